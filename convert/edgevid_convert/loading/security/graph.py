"""Looks through a SavedModel's graphs: an operator that reaches files, Python or the network is refused.

TensorFlow parses the file format here; it runs nothing of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevid.errors import ModelError, first_line
from edgevid_convert.loading.containers import SAVED_MODEL_FILE
from edgevid_convert.loading.security.config import INSIST, SUSPICIOUS

__all__ = ["vet_saved_model"]

CHUNKED_FILE = "saved_model.cpb"
LARGEST_FILE = 2 << 30  # protobuf's own limit
LARGEST_VARIABLE = 1 << 30  # elements
# What saves and restores variables, in the top-level graph and in functions of these names: TensorFlow 2 runs neither.
SAVER = re.compile("SaveV2|RestoreV2|MergeV2Checkpoints|ShardedFilename")
ADAPT_FUNCTION = "_adapt_function"  # of Keras 2's preprocessing layers
SAVER_FUNCTION = re.compile(r"__inference__traced_(save|restore)_\d+")


def vet_saved_model(folder: Path, *, trust: bool) -> None:
    """Check every operator of a SavedModel, and the sizes of its variables.

    Raises:
        ModelError: it is damaged or absurd; or, unless ``trust``, it could do more than compute.
    """
    for name, meta_graph in enumerate(_meta_graphs(folder)):
        for node in meta_graph.object_graph_def.nodes:
            sizes = [dimension.size for dimension in node.variable.shape.dim]
            if math.prod(size for size in sizes if size > 0) > LARGEST_VARIABLE:
                raise ModelError(f"{folder}: the variable {node.variable.name!r} states a shape of {sizes}")
        if trust:
            continue
        if not meta_graph.object_graph_def.nodes:
            raise ModelError(
                f"{folder}: meta graph {name} is of TensorFlow 1, and runs operators when loaded; {INSIST}"
            )
        for where, operator in _operators(meta_graph):
            if SUSPICIOUS.search(operator):
                raise ModelError(
                    f"{folder}: {where} holds the operator {operator}, which does more than compute; {INSIST}"
                )


def _meta_graphs(folder: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / SAVED_MODEL_FILE
    if (folder / CHUNKED_FILE).exists():  # TensorFlow would read this one
        raise ModelError(f"{folder}: a SavedModel in chunks ({CHUNKED_FILE}); save it as one {SAVED_MODEL_FILE}")
    if file.stat().st_size > LARGEST_FILE:
        raise ModelError(f"{file}: {file.stat().st_size} bytes; TensorFlow reads at most {LARGEST_FILE}")
    try:
        return SavedModel.FromString(file.read_bytes()).meta_graphs
    except Exception as error:
        raise ModelError(f"{folder}: TensorFlow cannot load it: {first_line(error)}; save or copy it again") from error


def _operators(meta_graph: Any) -> Iterator[tuple[str, str]]:
    """Yield each operator with where it stands, less those that only save and restore variables."""
    functions, idle = meta_graph.graph_def.library.function, _adapting(meta_graph)
    called = {name for function in functions for node in function.node_def for name in _called_by(node)}
    called.update(meta_graph.object_graph_def.concrete_functions)
    for node in meta_graph.object_graph_def.nodes:  # which the loader goes by, whatever the list above holds
        called.add(node.bare_concrete_function.concrete_function_name)
        called.update(node.function.concrete_functions)
    for node in meta_graph.graph_def.node:
        if not SAVER.fullmatch(node.op):
            yield f"node {node.name!r}", node.op
    for function in functions:
        name = function.signature.name
        if name in idle:
            continue
        only_saves = SAVER_FUNCTION.fullmatch(name) and name not in called
        for node in function.node_def:
            if not (only_saves and SAVER.fullmatch(node.op)):
                yield f"function {name!r}", node.op


def _adapting(meta_graph: Any) -> set[str]:
    """Return the functions that only a layer's ``adapt()`` runs, as a Normalization of Keras 2 saves one.

    They read data sets. Nothing else may hold or call such a function, whatever its name: objects are restored, and
    resources initialized, by the names under which their functions hang on them.
    """
    nodes = meta_graph.object_graph_def.nodes
    held: dict[str, set[int]] = {}
    for index, node in enumerate(nodes):
        for name in (node.bare_concrete_function.concrete_function_name, *node.function.concrete_functions):
            held.setdefault(name, set()).add(index)
    hung: dict[int, set[tuple[int, str]]] = {}
    for index, node in enumerate(nodes):
        for child in node.children:
            hung.setdefault(child.node_id, set()).add((index, child.local_name))
    defined = (node for function in meta_graph.graph_def.library.function for node in function.node_def)
    called = {name for node in (*meta_graph.graph_def.node, *defined) for name in _called_by(node)}
    return {
        name
        for name, holders in held.items()
        if name
        and name not in called
        and all(
            under == ADAPT_FUNCTION or parent in holders
            for holder in holders
            for parent, under in hung.get(holder, {(0, "")})
        )
    }


def _called_by(node: Any) -> Iterator[str]:
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        for function in value.list.func:
            yield function.name

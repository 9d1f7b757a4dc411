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
from edgevid_convert.vetting.config import INSIST

__all__ = ["vet_saved_model"]

CHUNKED_FILE = "saved_model.cpb"
LARGEST_FILE = 2 << 30  # protobuf's own limit
LARGEST_VARIABLE = 1 << 30  # elements
SUSPICIOUS = re.compile(
    "PyFunc|File|Checkpoint|^Save|^Restore|Dataset|Iterator|Reader|Record|Summary|Print|Debug|Rpc|Socket|Lmdb|"
    "CustomCall|RemoteCall|^_?(Host)?(Send|Recv)$|^DumpTensor$|^CalibrationStatisticsSaver$|^ImmutableConst$|"
    "VocabRemapping|^LoadAndRemap|^Skipgram$|^FixedUnigram|^DistributedSave$"
)
# What saves and restores variables, in the top-level graph and in functions of these names: TensorFlow 2 runs neither.
SAVER = re.compile("SaveV2|RestoreV2|MergeV2Checkpoints|ShardedFilename")
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
    functions = meta_graph.graph_def.library.function
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
        only_saves = SAVER_FUNCTION.fullmatch(name) and name not in called
        for node in function.node_def:
            if not (only_saves and SAVER.fullmatch(node.op)):
                yield f"function {name!r}", node.op


def _called_by(node: Any) -> Iterator[str]:
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        for function in value.list.func:
            yield function.name

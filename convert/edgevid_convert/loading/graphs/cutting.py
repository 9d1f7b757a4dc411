"""Cuts an image classifier before its last layer, whose input, the features, can be pooled over a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevid.errors import ModelError
from edgevid_convert.engine import tf
from edgevid_convert.loading.frozen import FrozenGraph, FrozenModel
from edgevid_convert.loading.graphs.freezing import INPUT_NAME, OUTPUT_NAME

__all__ = ["cut_before_last_layer"]

# What may stand between the last layer and the output: it computes each class by itself, or is the activation.
AFTER = frozenset({"Identity", "Softmax", "Sigmoid", "BiasAdd", "Add", "AddV2", "Reshape", "Squeeze", "Mean"})


def cut_before_last_layer(path: Path, model: FrozenModel) -> FrozenModel:
    """Return an image classifier as a graph that answers with features, and a head that makes class scores of them.

    The features are what the last dense layer or 1×1 convolution takes.

    Raises:
        ModelError: it takes windows of frames, or ends in no such layer.
    """
    if model.frames:
        raise ModelError(f"{path}: --features is for classifiers of images, and this model takes windows of frames")
    name = _features(path, model.graph)
    shape = _shape(model.graph, name)
    size = int(np.prod(shape))
    return replace(
        model,
        graph=_up_to(model.graph, name, size),
        head=FrozenGraph(graph=_from(model.graph, name, shape, size)),
    )


def _features(path: Path, graph: Any) -> str:
    """Return the tensor that the last layer takes."""
    nodes = {node.name: node for node in graph.node}
    node = nodes[OUTPUT_NAME]
    while node.op in AFTER:
        data = [other for other in _inputs(node) if nodes[other].op != "Const"]
        if len(data) != 1:
            break
        node = nodes[data[0]]
    weights = [nodes[other] for other in _inputs(node)][1:]
    if weights and weights[0].op == "Const":
        kernel = tf.make_ndarray(weights[0].attr["value"].tensor)
        if node.op == "MatMul" or (node.op == "Conv2D" and kernel.shape[:2] == (1, 1)):
            return str(node.input[0])
    raise ModelError(
        f"{path}: --features: before its output stands {node.name}, a {node.op}; expected a dense layer or a 1×1 "
        "convolution; leave --features out"
    )


def _inputs(node: Any) -> Iterator[str]:
    return (name.split(":")[0] for name in node.input if not name.startswith("^"))


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _shape(graph: Any, name: str) -> tuple[int, ...]:
    with tf.Graph().as_default():
        (tensor,) = tf.import_graph_def(graph, return_elements=[_tensor_name(name)], name="")
        return tuple(tensor.shape)


def _up_to(graph: Any, name: str, size: int) -> Any:
    """Return the graph that ends in a tensor, as (1, size); its operators keep their names."""
    cut = type(graph)()
    cut.CopyFrom(graph)
    (output,) = (node for node in cut.node if node.name == OUTPUT_NAME)
    shape = cut.node.add(name=f"{OUTPUT_NAME}/shape", op="Const")
    shape.attr["dtype"].type = tf.int32.as_datatype_enum
    shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([1, size], tf.int32))
    flat = cut.node.add(name=f"{OUTPUT_NAME}/features", op="Reshape", input=[name, shape.name])
    flat.attr["T"].type = tf.float32.as_datatype_enum
    flat.attr["Tshape"].type = tf.int32.as_datatype_enum
    output.input[:] = [flat.name]
    return tf.compat.v1.graph_util.extract_sub_graph(cut, [OUTPUT_NAME])


def _from(graph: Any, name: str, shape: tuple[int, ...], size: int) -> Any:
    """Return the graph from a tensor on, which takes it as (1, 1, size)."""
    with tf.Graph().as_default() as cut:
        features = tf.reshape(tf.compat.v1.placeholder(tf.float32, (1, 1, size), name=INPUT_NAME), shape)
        (answer,) = tf.import_graph_def(
            graph, input_map={_tensor_name(name): features}, return_elements=[f"{OUTPUT_NAME}:0"], name="head"
        )
        tf.identity(answer, name=OUTPUT_NAME)
    return tf.compat.v1.graph_util.extract_sub_graph(cut.as_graph_def(), [OUTPUT_NAME])

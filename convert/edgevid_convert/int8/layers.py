"""A frozen graph as layers: convolutions and dense layers whose weights and bias can be read and replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid_convert.engine import tf
from edgevid_convert.loading.graphs.freezing import OUTPUT_NAME

__all__ = ["Array", "Layer", "LayeredGraph", "Parameters", "folded", "node_name"]

Array: TypeAlias = npt.NDArray[np.float64]
LAYER_OPERATORS = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul"})
# What a layer can take into its weights and its bias, when the other operand is constant: one number a channel.
FOLDED_OPERATORS = frozenset({"BiasAdd", "AddV2", "Add", "Sub", "Mul"})


@dataclass(frozen=True)
class Parameters:
    """Weights in TensorFlow's order, the output channel last or, if depthwise, the last two; one bias a channel."""

    weights: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer of a :class:`LayeredGraph`.

    Attributes:
        name: of its operator.
        kind: ``Conv2D``, ``DepthwiseConv2dNative`` or ``MatMul``.
        input: the name of the node that it reads.
        biased: the name of the BiasAdd after it, whose output is the layer's.
        strides, dilations: (down, across).
        same: whether its padding is TensorFlow's "SAME"; else there is none.
    """

    name: str
    kind: str
    input: str
    biased: str
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    same: bool = False

    @property
    def weights_name(self) -> str:
        """The name of the constant with its weights."""
        return f"{self.name}/weights"

    @property
    def bias_name(self) -> str:
        """The name of the constant with its bias."""
        return f"{self.name}/bias"


@dataclass(frozen=True)
class LayeredGraph:
    """A GraphDef whose layers each have one constant of weights and one BiasAdd, in the order of computation."""

    graph: Any
    layers: tuple[Layer, ...]

    def parameters(self) -> dict[str, Parameters]:
        """Return the parameters of each layer, by its name."""
        nodes = {node.name: node for node in self.graph.node}
        return {
            layer.name: Parameters(
                _value(nodes[layer.weights_name]).astype(np.float64), _value(nodes[layer.bias_name]).astype(np.float64)
            )
            for layer in self.layers
        }

    def replaced(self, parameters: Mapping[str, Parameters]) -> LayeredGraph:
        """Return the graph with other parameters for some of its layers."""
        graph = type(self.graph)()
        graph.CopyFrom(self.graph)
        nodes = {node.name: node for node in graph.node}
        for layer in self.layers:
            if layer.name in parameters:
                new = parameters[layer.name]
                _set_value(nodes[layer.weights_name], new.weights)
                _set_value(nodes[layer.bias_name], new.bias)
        return LayeredGraph(graph, self.layers)


def folded(graph_def: Any) -> LayeredGraph:
    """Return the graph with batch normalization and the like folded into the layers before it.

    It computes the same function. A layer whose weights are computed, or whose channels come first, stays as it is.

    Args:
        graph_def: of :func:`edgevid_convert.loading.graphs.freezing.frozen_graph`.
    """
    graph = type(graph_def)()
    graph.CopyFrom(graph_def)
    nodes = {node.name: node for node in graph.node}
    readers = readers_of(graph)
    folded_away: set[str] = set()
    layers = [
        _fold(graph, node, nodes, readers, folded_away)
        for node in list(graph.node)
        if node.op in LAYER_OPERATORS and _is_plain(node, nodes)
    ]
    kept = type(graph)(versions=graph.versions)
    kept.node.extend(node for node in graph.node if node.name not in folded_away)
    needed = tf.compat.v1.graph_util.extract_sub_graph(kept, [OUTPUT_NAME])
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(needed, name="")
    in_order = imported.as_graph_def()
    position = {node.name: index for index, node in enumerate(in_order.node)}
    layers = sorted((layer for layer in layers if layer.name in position), key=lambda layer: position[layer.name])
    return LayeredGraph(in_order, tuple(layers))


def readers_of(graph_def: Any) -> dict[str, list[Any]]:
    """Return the nodes that read each node, by its name."""
    readers: dict[str, list[Any]] = {}
    for node in graph_def.node:
        for name in node.input:
            readers.setdefault(node_name(name), []).append(node)
    return readers


def node_name(tensor: str) -> str:
    """Return the name of the node that a tensor, named in a GraphDef, comes from."""
    return tensor.partition(":")[0].lstrip("^")


def _is_plain(node: Any, nodes: Mapping[str, Any]) -> bool:
    if nodes[node_name(node.input[1])].op != "Const" or ":" in node.input[0]:  # not a node's first output
        return False
    if node.attr["T"].type != tf.float32.as_datatype_enum:  # of half precision
        return False
    if node.op == "MatMul":
        return not (node.attr["transpose_a"].b or node.attr["transpose_b"].b)
    return bool(node.attr["data_format"].s in (b"", b"NHWC") and node.attr["padding"].s in (b"SAME", b"VALID"))


def _fold(
    graph: Any, node: Any, nodes: Mapping[str, Any], readers: Mapping[str, list[Any]], folded_away: set[str]
) -> Layer:
    """Fold what follows ``node`` into constants of its own, and return the layer."""
    weights = _value(nodes[node_name(node.input[1])]).astype(np.float64)
    channels = weights.shape[-1] * (weights.shape[-2] if node.op == "DepthwiseConv2dNative" else 1)
    end = _end(node, readers)
    scale, shift, chain = np.ones(channels), np.zeros(channels), [end]
    while step := _next_step(chain[-1], nodes, readers, channels):
        reader, operand = step
        if reader.op == "Mul":
            scale, shift = scale * operand, shift * operand
        else:
            shift = shift - operand if reader.op == "Sub" else shift + operand
        chain.append(reader)
    layer = Layer(
        name=node.name,
        kind=node.op,
        input=node_name(node.input[0]),
        biased=chain[-1].name if len(chain) > 1 else f"{end.name}/biased",
        **_geometry(node),
    )
    for name, value in ((layer.weights_name, _scaled(weights, scale)), (layer.bias_name, shift)):
        constant = graph.node.add(name=name, op="Const")
        constant.attr["dtype"].type = tf.float32.as_datatype_enum
        _set_value(constant, value)
    node.input[1] = layer.weights_name
    if len(chain) == 1:
        for reader in readers.get(end.name, []):
            reader.input[:] = [layer.biased if node_name(name) == end.name else name for name in reader.input]
    folded_away.update(step.name for step in chain[1:])
    _add_bias(graph, layer, end.name, folded_away)
    return layer


def _end(node: Any, readers: Mapping[str, list[Any]]) -> Any:
    """Return the node after which a layer's bias comes: TensorFlow lays a dilated convolution out as three."""
    following = readers.get(node.name, [])
    return following[0] if len(following) == 1 and following[0].op == "BatchToSpaceND" else node


def _geometry(node: Any) -> dict[str, Any]:
    if node.op == "MatMul":
        return {}
    (_, *strides, _), (_, *dilations, _) = (node.attr[name].list.i for name in ("strides", "dilations"))
    return {"strides": tuple(strides), "dilations": tuple(dilations), "same": node.attr["padding"].s == b"SAME"}


def _next_step(
    node: Any, nodes: Mapping[str, Any], readers: Mapping[str, list[Any]], channels: int
) -> tuple[Any, Array] | None:
    """Return the only reader of ``node`` and its constant, one number a channel, if a layer can take it in."""
    following = readers.get(node.name, [])
    if len(following) != 1 or following[0].op not in FOLDED_OPERATORS:
        return None
    reader = following[0]
    names = [node_name(name) for name in reader.input[:2]]
    other = nodes.get(names[1 - names.index(node.name)])
    if other is None or other.op != "Const" or (reader.op == "Sub" and names[0] != node.name):
        return None
    value = _value(other).astype(np.float64)
    if value.size == 1 and value.ndim <= 1:
        return reader, np.full(channels, value.reshape(()))
    if value.size == channels and value.shape[-1] == channels:
        return reader, value.reshape(channels)
    return None


def _add_bias(graph: Any, layer: Layer, end: str, folded_away: set[str]) -> None:
    """Add the layer's BiasAdd, under the name of the last step that was folded away, if there was one."""
    for node in graph.node:
        if node.name == layer.biased:
            node.Clear()
            break
    else:
        node = graph.node.add()
    node.name, node.op = layer.biased, "BiasAdd"
    node.input.extend([end, layer.bias_name])
    node.attr["T"].type = tf.float32.as_datatype_enum
    folded_away.discard(layer.biased)


def _scaled(weights: Array, scale: Array) -> Array:
    return (weights.reshape(-1, scale.size) * scale).reshape(weights.shape)


def _value(node: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
    return array


def _set_value(node: Any, value: Array) -> None:
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value.astype(np.float32)))

"""Rewrites operators that take channels first for CPUs and TFLite, which take them last."""

from __future__ import annotations

from typing import Any

from edgevid_convert.engine import tf

__all__ = ["with_channels_last"]

TO_LAST = (0, 2, 3, 1)
# Operators of one image tensor, the first input, and one answer of that layout, the first output.
OPERATORS = frozenset(
    {"Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2"}
    | {"FusedBatchNormV3"}
)
# What TensorFlow puts around a dilated convolution. Their block has a number for the channels, a 1, and so has each
# row of their third input: channels last, both begin with the height.
BLOCK_OPERATORS = frozenset({"SpaceToBatchND", "BatchToSpaceND"})
PER_AXIS = {"strides": 1, "ksize": 1, "dilations": 1, "explicit_paddings": 2}  # numbers an axis


def with_channels_last(graph: Any) -> Any:
    """Return a GraphDef in which each channels-first operator stands between two transposes, as channels-last."""
    constants = {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in graph.node if node.op == "Const"}
    ranks = _ranks(graph) if any(node.op in OPERATORS and _first(node) for node in graph.node) else {}
    rewritten = type(graph)()
    rewritten.CopyFrom(graph)
    del rewritten.node[:]
    for node in graph.node:
        inner = rewritten.node.add()
        inner.CopyFrom(node)
        of_channels_first = node.op in OPERATORS and _first(node)
        blocks = constants.get(node.input[1]) if node.op in BLOCK_OPERATORS else None
        if of_channels_first:
            _turn_attributes(inner)
        elif blocks is not None and len(blocks) == 3 and blocks[0] == 1 and node.input[2] in constants:
            for index in (1, 2):
                inner.input[index] = _constant(rewritten, f"{node.name}/{index}", constants[node.input[index]][1:])
        else:
            continue
        # Keras adds a bias to sequences and clips in this way, too: they have another number of axes.
        axes = range(ranks.get(node.name, 4))
        to_last, to_first = (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])
        inner.name = f"{node.name}/channels_last"
        inner.input[0] = _transpose(rewritten, f"{node.name}/in", node.input[0], to_last, node.attr["T"].type)
        _transpose(rewritten, node.name, inner.name, to_first, node.attr["T"].type)
    return rewritten


def _first(node: Any) -> bool:
    return bool(node.attr["data_format"].s == b"NCHW")


def _ranks(graph: Any) -> dict[str, int]:
    """Return how many axes the answer of each operator has."""
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
    return {
        operation.name: operation.outputs[0].shape.rank
        for operation in imported.get_operations()
        if operation.outputs and operation.outputs[0].shape.rank is not None
    }


def _turn_attributes(node: Any) -> None:
    node.attr["data_format"].s = b"NHWC"
    for name, width in PER_AXIS.items():
        numbers = list(node.attr[name].list.i) if name in node.attr else []
        if len(numbers) == 4 * width:
            node.attr[name].list.i[:] = [numbers[axis * width + i] for axis in TO_LAST for i in range(width)]


def _constant(graph: Any, name: str, values: Any) -> str:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values, tf.int32))
    return name


def _transpose(graph: Any, name: str, tensor: str, axes: tuple[int, ...], dtype: int) -> str:
    node = graph.node.add(name=name, op="Transpose", input=[tensor, _constant(graph, f"{name}/axes", axes)])
    node.attr["T"].type = dtype
    node.attr["Tperm"].type = tf.int32.as_datatype_enum
    return name

"""Has a graph compute in float32 what it computes in other floating-point types: TFLite and engines take no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgevid_convert.engine import tf

__all__ = ["computes_in_float32", "in_float32"]

FLOAT32 = tf.float32.as_datatype_enum
OTHER_FLOATS = frozenset(each.as_datatype_enum for each in (tf.float16, tf.bfloat16, tf.float64))


def computes_in_float32(graph: Any) -> bool:
    """Return whether no operator of a GraphDef takes or gives another floating-point type than float32."""
    return not any(attribute.type in OTHER_FLOATS for _, attribute in _attributes(graph))


def in_float32(graph: Any) -> Any:
    """Return a GraphDef with float32 in place of float16, bfloat16 and float64; constants are converted."""
    result = type(graph)()
    result.CopyFrom(graph)
    for node, attribute in _attributes(result):
        if attribute.HasField("tensor") and attribute.tensor.dtype in OTHER_FLOATS:
            values = tf.make_ndarray(attribute.tensor).astype(np.float32)
            attribute.tensor.CopyFrom(tf.make_tensor_proto(values, tf.float32))
        if attribute.type in OTHER_FLOATS:
            attribute.type = FLOAT32
        if OTHER_FLOATS.intersection(attribute.list.type):
            attribute.list.type[:] = [FLOAT32 if each in OTHER_FLOATS else each for each in attribute.list.type]
        if node.op == "Cast" and node.attr["SrcT"].type == node.attr["DstT"].type:
            _make_identity(node)
    for function in result.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type in OTHER_FLOATS:
                argument.type = FLOAT32
    return result


def _attributes(graph: Any) -> Iterator[tuple[Any, Any]]:
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        for name in list(node.attr):
            if name in node.attr:
                yield node, node.attr[name]


def _make_identity(node: Any) -> None:
    node.op = "Identity"
    node.attr["T"].type = node.attr["DstT"].type
    for name in ("SrcT", "DstT", "Truncate"):
        node.attr.pop(name, None)

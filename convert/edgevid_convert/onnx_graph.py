"""Makes an ONNX graph smaller without changing what it computes: what tf2onnx and ONNX Runtime leave behind."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["OPSET", "OP_HANDLERS", "free_batch", "remove_unused", "simplified", "unknown_operators"]

OPSET, IR_VERSION = 17, 8  # read by ONNX Runtime 1.12 and later
RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Express TensorFlow's Erfc, which GELU is made of, as 1 − Erf."""
    node.type = "Erf"
    (output,) = node.output
    one = context.make_const(f"{name}/one", np.array([1], np.float32)).output[0]
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    subtraction = context.make_node("Sub", [one, output], name=f"{name}/complement", shapes=[shape], dtypes=[dtype])
    context.insert_node_on_output(subtraction, output)


# For tf2onnx: the operators that it does not know.
OP_HANDLERS: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, [])}


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Return the kinds of operators that ONNX does not have; tf2onnx leaves TensorFlow's where it knows no way."""
    kinds = {node.op_type for node in model.graph.node if node.domain in STANDARD_DOMAINS}
    return sorted(kind for kind in kinds if not onnx.defs.has(kind, OPSET))


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with chains of reshapes joined, and hard-swish and hard-sigmoid as operators.

    It asks for no domain that it does not use, and no newer format than it needs, so that old runtimes read it.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    _join_reshapes(graph)
    _fuse_hard_activations(graph)
    remove_unused(graph)
    used = {node.domain for node in graph.node} | STANDARD_DOMAINS
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    model.ir_version = IR_VERSION
    return model


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model for any number of images at once; whether it answers as before is for its user to see.

    A reshape to a constant shape that begins with 1 keeps the first dimension of what it reads instead.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    constants = {initializer.name: initializer for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = numpy_helper.to_array(constants[node.input[1]])
            if shape.size > 1 and shape[0] == 1:
                name = f"{node.output[0]}/free_shape"
                kept = np.concatenate([np.zeros(1, shape.dtype), shape[1:]])  # 0: as it is in the input
                graph.initializer.append(numpy_helper.from_array(kept, name))
                node.input[1] = name
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    remove_unused(graph)
    return freed


def _join_reshapes(graph: onnx.GraphProto) -> None:
    """Have each reshape read what the first of its chain reads; one that changes no shape is passed over."""
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    made_by = {output: node for node in graph.node for output in node.output}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type not in RESHAPING:
            continue
        source = node.input[0]
        while source in made_by and made_by[source].op_type in RESHAPING:
            source = made_by[source].input[0]
        shape = shapes.get(node.output[0])
        if shape is None:
            continue
        if shape == shapes.get(source) and node.output[0] not in outputs:
            _replace_input(graph, node.output[0], source)
        elif source != node.input[0]:
            target = numpy_helper.from_array(np.array(shape, np.int64), f"{node.output[0]}/shape")
            graph.initializer.append(target)
            replacement = helper.make_node("Reshape", [source, target.name], node.output, name=node.name)
            node.CopyFrom(replacement)


def _fuse_hard_activations(graph: onnx.GraphProto) -> None:
    """Turn clip(x + 3, 0, 6) / 6 into HardSigmoid and x × HardSigmoid(x) into HardSwish, in place."""
    numbers = {
        tensor.name: numpy_helper.to_array(tensor).item() for tensor in graph.initializer if np.prod(tensor.dims) == 1
    }
    made_by = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)

    def other_operand(name: str, kind: str, number: float) -> str:
        """Return what ``name`` is the ``kind`` of with that number; nothing where it is something else."""
        node = made_by.get(name)
        for one, other in (node.input, reversed(node.input)) if node and node.op_type == kind else ():
            if math.isclose(numbers.get(one, math.nan), number, rel_tol=1e-5):
                return str(other)
        return ""

    for node in graph.node:
        clip = made_by.get(other_operand(node.output[0], "Mul", 1 / 6))
        if clip is None or clip.op_type != "Clip" or [numbers.get(name) for name in clip.input[1:]] != [0, 6]:
            continue
        if source := other_operand(clip.input[0], "Add", 3):
            node.CopyFrom(helper.make_node("HardSigmoid", [source], node.output, name=node.name, alpha=1 / 6, beta=0.5))
    sigmoids = {name: node for name, node in made_by.items() if node.op_type == "HardSigmoid" and readers[name] == 1}
    for node in [node for node in graph.node if node.op_type == "Mul"]:
        for source, name in (node.input, reversed(node.input)):
            if name in sigmoids and sigmoids[name].input[0] == source:
                node.CopyFrom(helper.make_node("HardSwish", [source], node.output, name=node.name))
                break


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that nothing reads any more."""
    writers = {output: node for node in graph.node for output in node.output}
    wanted: set[str] = set()
    to_follow = [value.name for value in graph.output]
    while to_follow:
        name = to_follow.pop()
        if name not in wanted:
            wanted.add(name)
            to_follow.extend(writers[name].input if name in writers else ())
    kept = [node for node in graph.node if wanted.intersection(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _replace_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return the shape where it is known in full."""
    dimensions = value.type.tensor_type.shape.dim
    if not value.type.tensor_type.HasField("shape") or any(not each.HasField("dim_value") for each in dimensions):
        return None
    return tuple(each.dim_value for each in dimensions)

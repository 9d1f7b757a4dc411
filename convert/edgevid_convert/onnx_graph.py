"""Makes an ONNX graph smaller without changing what it computes: what tf2onnx and ONNX Runtime leave behind."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from tf2onnx.onnx_opset.nn import ConvTranspose, Resize

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


def _conv_transpose(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Make what a transposed convolution's strides leave of its output beyond the kernel padding of the output.

    tf2onnx writes it as negative padding of the input, which ONNX does not have.
    """
    ConvTranspose.version_11(context, node)
    pads = node.get_attr_value("pads")
    if pads and min(pads) < 0:
        missing = np.maximum(0, -np.sum(np.reshape(pads, (2, -1)), axis=0))
        node.set_attr("output_padding", missing.tolist())
        node.set_attr("pads", [0 if missing[index % len(missing)] else pad for index, pad in enumerate(pads)])


def _resize_bilinear(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Have the scales, which tf2onnx rounds to the nearest, give the size that is meant: ONNX rounds it down."""
    before, after = ((context.get_shape(each) or [-1] * 4)[1:3] for each in (node.input[0], node.output[0]))
    Resize.version_11(context, node)
    if min(*before, *after) < 1:
        return
    resize = context.get_node_by_name(name).inputs[0]
    scales = np.array([1, 1, *map(_scale, before, after)], np.float32)
    context.replace_input(resize, resize.input[2], context.make_const(f"{name}/scales", scales).output[0], 2)
    batch, channels, *_ = context.get_shape(resize.input[0])
    context.set_shape(resize.output[0], [batch, channels, *after])


def _scale(before: int, after: int) -> np.float32:
    """Return the least float32 by which ``before`` becomes ``after`` when the product is rounded down."""
    scale = np.float32(after / before)
    while np.float32(before) * scale < after or before * float(scale) < after:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _resize_nearest(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Take rows and columns by their numbers where the size is no multiple: ONNX rounds otherwise than TensorFlow."""
    before, after = ((context.get_shape(each) or [-1] * 4)[1:3] for each in (node.input[0], node.output[0]))
    align_corners, half_pixels = (bool(node.get_attr_value(each)) for each in ("align_corners", "half_pixel_centers"))
    multiple = not align_corners and not any(np.mod(after, before))
    if multiple:
        node.set_attr("half_pixel_centers", 0)  # which is the same then; ONNX calls what it has for it deprecated
    if multiple or min(*before, *after) < 1:
        Resize.version_11(context, node)
        return
    picked, outputs, shapes, dtypes = node.input[0], node.output, node.output_shapes, node.output_dtypes
    context.remove_node(name)
    for axis, sizes in enumerate(zip(before, after, strict=True), 1):
        numbers = context.make_const(f"{name}/numbers{axis}", _nearest(*sizes, align_corners, half_pixels))
        (picked,) = context.make_node("Gather", [picked, numbers.output[0]], {"axis": axis}).output
    context.make_node("Identity", [picked], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _nearest(before: int, after: int, align_corners: bool, half_pixels: bool) -> npt.NDArray[np.int64]:
    """Return which of ``before`` pixels TensorFlow takes for each of ``after``, in float32 as it does."""
    steps = (before - 1, after - 1) if align_corners and after > 1 else (before, after)
    places = np.arange(after, dtype=np.float32) + np.float32(0.5 if half_pixels else 0)
    places = places * (np.float32(steps[0]) / np.float32(steps[1]))
    return np.minimum(np.floor(places.astype(np.float64) + (0.5 if align_corners else 0)), before - 1).astype(np.int64)


# For tf2onnx: the operators that it does not know, or gets wrong.
OP_HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Conv2DBackpropInput": (_conv_transpose, []),
    "Conv3DBackpropInputV2": (_conv_transpose, []),
    "Erfc": (_erfc, []),
    "ResizeBilinear": (_resize_bilinear, []),
    "ResizeNearestNeighbor": (_resize_nearest, []),
}


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Return the kinds of operators that ONNX does not have; tf2onnx leaves TensorFlow's where it knows no way."""
    kinds = {node.op_type for node in model.graph.node if node.domain in STANDARD_DOMAINS}
    return sorted(kind for kind in kinds if not onnx.defs.has(kind, OPSET))


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with chains of reshapes joined, and hard-swish and hard-sigmoid as operators.

    It asks for no domain that it does not use, and no newer format than it needs, so that old runtimes read it.
    """
    _make_scalars(model.graph)
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


def _make_scalars(graph: onnx.GraphProto) -> None:
    """Have a Gemm's factors be numbers: tf2onnx takes a row of constants for one, where ONNX has no such factor."""
    nodes = []
    for node in graph.node:
        rows = [each for each in node.attribute if node.op_type == "Gemm" and each.type == onnx.AttributeProto.FLOATS]
        for attribute in rows:
            index = {"alpha": 1, "beta": 2}[attribute.name]  # of the input that is multiplied, column by column
            factors = numpy_helper.from_array(np.array(attribute.floats, np.float32), f"{node.name}/{attribute.name}")
            graph.initializer.append(factors)
            product = f"{factors.name}/product"
            nodes.append(helper.make_node("Mul", [node.input[index], factors.name], [product], name=product))
            node.input[index] = product
            node.attribute.remove(attribute)
        nodes.append(node)
    if len(nodes) > len(graph.node):
        kept = [_copied(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


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

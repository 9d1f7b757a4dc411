"""Rewrites operators that TFLite or ONNX lacks, or that an engine computes wrongly, as common ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgevid_convert.engine import tf
from edgevid_convert.loading.graphs.freezing import OUTPUT_NAME, frozen_graph

__all__ = ["with_common_operators"]


def with_common_operators(graph: Any) -> Any:
    """Return a GraphDef that computes the same in operators that TFLite and ONNX both have.

    One that has no others is returned as it is. An operator that is not known here, or whose shapes are open, stays.
    """
    while (decided := _without_dead_branches(graph)) is not graph:
        graph = frozen_graph(decided)
    if not any(_kind(node) in REWRITINGS for node in graph.node):
        return graph
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
    pieces = {
        node.name: _piece(node, imported.get_operation_by_name(node.name))
        for node in graph.node
        if _kind(node) in REWRITINGS
    }
    products = dict(_gelus_to_order(imported))
    if not any(pieces.values()) and not products:
        return graph
    rewritten = type(graph)(versions=graph.versions, library=graph.library)
    for node in graph.node:
        rewritten.node.extend(pieces.get(node.name) or [node])
        if node.name in products:
            rewritten.node[-1].input[:] = products[node.name]
    return tf.compat.v1.graph_util.extract_sub_graph(rewritten, [OUTPUT_NAME])


def _gelus_to_order(imported: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the products of GELUs that TFLite's converter would not know, with their inputs in order."""
    for operation in imported.get_operations():
        for name, inputs in _gelu(operation) if operation.type == "Erf" else ():
            if [_name(tensor) for tensor in imported.get_operation_by_name(name).inputs] != inputs:
                yield name, inputs


def _kind(node: Any) -> str:
    """Return the name of an operator, with what may be unusual of it."""
    marks = sorted(attribute.s.decode() for _, attribute in node.attr.items() if attribute.s in UNUSUAL)
    return " ".join((node.op, *marks))


def _piece(node: Any, operation: Any) -> list[Any]:
    """Return the nodes that compute what one does, the last under its name; none where it is to stay."""
    data = [name for name in node.input if not name.startswith("^")]
    inputs = {f"input{index}": name for index, name in enumerate(data)}
    with tf.Graph().as_default() as piece:
        arguments = []
        for name, tensor in zip(inputs, operation.inputs, strict=True):
            known = tf.get_static_value(tensor)
            placeholder = tf.compat.v1.placeholder(tensor.dtype, tensor.shape, name=name)
            arguments.append(placeholder if known is None else known)
        answer = REWRITINGS[_kind(node)](operation, *arguments)
        if answer is None:
            return []
        tf.identity(answer, name="answer")
    nodes = [inner for inner in piece.as_graph_def().node if inner.name not in inputs]
    for inner in nodes:
        inner.input[:] = [inputs.get(name) or f"{node.name}/common/{name}" for name in inner.input]
        inner.name = node.name if inner.name == "answer" else f"{node.name}/common/{inner.name}"
    return nodes


# --- Branches ---


def _without_dead_branches(graph: Any) -> Any:
    """Return a GraphDef without the branches that constant conditions rule out, and with constants for known shapes.

    What hung on them can then be folded. A graph that has none of them is returned as it is.
    """
    if not any(node.op in HANGING for node in graph.node):
        return graph
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
    values, shapes = _values(imported), dict(_known_shapes(imported))
    if not shapes and all(name == value for name, value in values.items()):
        return graph
    pruned = type(graph)(versions=graph.versions, library=graph.library)
    for node in graph.node:
        inputs = [values[name] for name in node.input if not name.startswith("^")]
        if None not in inputs:
            pruned.node.add().CopyFrom(shapes.get(node.name, node))
            pruned.node[-1].input[:] = () if node.name in shapes else inputs
    return tf.compat.v1.graph_util.extract_sub_graph(pruned, [OUTPUT_NAME])


def _known_shapes(imported: Any) -> Iterator[tuple[str, Any]]:
    """Yield a constant for each operation that asks for a shape that does not change."""
    for operation in imported.get_operations():
        if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
            with tf.Graph().as_default() as piece:
                tf.constant(operation.inputs[0].shape.as_list(), operation.get_attr("out_type"), name="shape")
            (constant,) = piece.as_graph_def().node
            constant.name = operation.name
            yield operation.name, constant


def _values(imported: Any) -> dict[str, str | None]:
    """Return for each tensor the one that it has its value from; None for what is never computed."""
    values: dict[str, str | None] = {}
    for operation in imported.get_operations():  # each after what it reads, but for loops
        inputs = [values.get(_name(tensor), _name(tensor)) for tensor in operation.inputs]
        before = (values.get(_name(tensor), "") for other in operation.control_inputs for tensor in other.outputs[:1])
        names = [_name(tensor) for tensor in operation.outputs]
        computed = [value for value in inputs if value is not None]
        condition = _condition(imported, inputs[1]) if operation.type == "Switch" else None
        if operation.type == "Merge" and len(computed) == 1 < len(inputs):
            values.update(zip(names, (*computed, names[1]), strict=True))
        elif operation.type != "Merge" and (None in inputs or None in before):
            values.update(dict.fromkeys(names))
        elif condition is not None:
            values.update({names[condition]: inputs[0], names[not condition]: None})
        elif operation.type == "PlaceholderWithDefault":
            values[names[0]] = inputs[0]
        else:
            values.update(zip(names, names, strict=True))
    return values


def _condition(imported: Any, name: str | None) -> bool | None:
    operation = imported.get_operation_by_name(name) if name and ":" not in name else None
    return bool(tf.get_static_value(operation.outputs[0])) if operation and operation.type == "Const" else None


# --- Pictures of another size ---


def _resize(operation: Any, images: Any, size: Any, scale: Any = (1, 1), translation: Any = (0, 0)) -> Any:
    """Resize by a matrix for each axis: that is what it is, whatever the interpolation, and engines are good at it."""
    shape = images.shape[1:]
    if None in shape or not all(isinstance(each, np.ndarray | tuple) for each in (size, scale, translation)):
        return None
    down, across = (_matrix(operation, shape[axis], size[axis], scale[axis], translation[axis]) for axis in (0, 1))
    by_rows = tf.transpose(tf.cast(images, tf.float32), (0, 1, 3, 2))
    by_columns = tf.transpose(_product(by_rows, across), (0, 3, 2, 1))
    return tf.transpose(_product(by_columns, down), (0, 3, 1, 2))


def _matrix(operation: Any, before: int, after: int, scale: float, translation: float) -> Any:
    """Return what the operator makes of each pixel of a column, (after, before): its answers to the unit vectors."""
    options = {name: operation.get_attr(name) for name in operation.node_def.attr if name != "T"}
    if operation.type == "ScaleAndTranslate":
        options.update(scale=(scale, 1.0), translation=(translation, 0.0))
    units = np.eye(before, dtype=np.float32).reshape(1, before, 1, before)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        answers = session.run(getattr(tf.raw_ops, operation.type)(images=units, size=(after, 1), **options))
    return answers.reshape(after, before)


def _product(rows: Any, matrix: Any) -> Any:
    """Return each row of the last axis times a matrix, by two-dimensional products, which every engine quantizes."""
    after, before = matrix.shape
    if after == before and np.array_equal(matrix, np.eye(before)):
        return rows
    products = tf.matmul(tf.reshape(rows, (-1, before)), matrix.T)
    return tf.reshape(products, (-1, *rows.shape[1:-1], after))


# --- Convolutions and pooling ---


def _conv_transpose(operation: Any, sizes: Any, kernel: Any, images: Any) -> Any:
    """Convolve with the kernel turned around: without strides it is no more than that, and TFLite dilates no other."""
    shapes = images.shape, operation.outputs[0].shape
    if (
        set(operation.get_attr("strides")) != {1}
        or not isinstance(kernel, np.ndarray)
        or any(None in shape[1:] for shape in shapes)
    ):
        return None
    dilations = operation.get_attr("dilations")
    padding = [(0, 0)]
    for axis in (1, 2):
        reach = (kernel.shape[axis - 1] - 1) * dilations[axis]
        before = reach - (reach // 2 if operation.get_attr("padding") == b"SAME" else 0)
        padding.append((before, shapes[1][axis] - shapes[0][axis] + reach - before))
    if min(min(pair) for pair in padding) < 0:
        return None
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return tf.nn.conv2d(images, turned, 1, [*padding, (0, 0)], dilations=dilations)


def _conv_3d(operation: Any, volumes: Any, kernel: Any) -> Any:
    """Convolve channels last, and groups frame by frame: TensorFlow's CPU code and TFLite have no groups in 3D."""
    channels_first = operation.get_attr("data_format") == b"NCDHW"
    strides = _spatial(operation, "strides", channels_first)
    if not isinstance(kernel, np.ndarray) or None in volumes.shape[1:] or set(operation.get_attr("dilations")) != {1}:
        return None
    grouped = kernel.shape[3] != volumes.shape[1 if channels_first else 4]
    if not grouped and not channels_first:
        return None
    padding = operation.get_attr("padding").decode()
    last = tf.transpose(volumes, (0, 2, 3, 4, 1)) if channels_first else volumes
    if grouped:
        answer = _grouped_conv_3d(last, kernel, strides, padding)
    else:
        answer = tf.nn.conv3d(last, kernel, (1, *strides, 1), padding)
    return tf.transpose(answer, (0, 4, 1, 2, 3)) if channels_first else answer


def _grouped_conv_3d(volumes: Any, kernel: Any, strides: Sequence[int], padding: str) -> Any:
    """Return the sum of what each frame of a kernel makes of its frames, which then stand where a batch does."""
    _, frames, height, width, channels = volumes.shape
    depth, *_, per_group, outputs = kernel.shape
    missing = max(0, (math.ceil(frames / strides[0]) - 1) * strides[0] + depth - frames) if padding == "SAME" else 0
    padded = tf.pad(volumes, ((0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)))
    count = (frames + missing - depth) // strides[0] + 1
    parts = []
    for index in range(depth):
        seen = padded[:, index : index + (count - 1) * strides[0] + 1 : strides[0]]
        pictures = tf.reshape(seen, (-1, height, width, channels))
        if per_group == 1 and strides[1] == strides[2]:  # for which engines have fast kernels
            depthwise = kernel[index].reshape(*kernel.shape[1:3], channels, outputs // channels)
            parts.append(tf.nn.depthwise_conv2d(pictures, depthwise, (1, *strides[1:], 1), padding))
        else:
            parts.append(tf.nn.conv2d(pictures, kernel[index], strides[1:], padding))
    total = sum(parts[1:], parts[0])
    return tf.reshape(total, (-1, count, *total.shape[1:]))


def _pool_3d(operation: Any, volumes: Any) -> Any:
    """Pool each frame, then each pixel over time: TFLite pools pictures only."""
    if operation.get_attr("data_format") != b"NDHWC" or None in volumes.shape[1:]:
        return None
    pool = tf.nn.max_pool2d if operation.type == "MaxPool3D" else tf.nn.avg_pool2d
    (depth, *size), (step, *steps) = (_spatial(operation, name) for name in ("ksize", "strides"))
    padding = operation.get_attr("padding").decode()
    _, frames, height, width, channels = volumes.shape
    pooled = pool(tf.reshape(volumes, (-1, height, width, channels)), size, steps, padding)
    _, height, width, _ = pooled.shape
    over_time = tf.reshape(pooled, (-1, frames, height * width, channels))
    if (depth, step) != (1, 1):
        over_time = pool(over_time, (depth, 1), (step, 1), padding)
    return tf.reshape(over_time, (-1, over_time.shape[1], height, width, channels))


def _spatial(operation: Any, name: str, channels_first: bool = False) -> list[int]:
    """Return the numbers of an attribute for the axes between the batch and the channels."""
    numbers = list(operation.get_attr(name))
    return numbers[2:] if channels_first else numbers[1:-1]


def _max_pool(operation: Any, images: Any, size: Any, strides: Any) -> Any:
    """Pool with numbers in place of inputs."""
    if not isinstance(size, np.ndarray) or not isinstance(strides, np.ndarray):
        return None
    return tf.nn.max_pool2d(images, size.tolist(), strides.tolist(), operation.get_attr("padding").decode())


def _padded_max_pool(operation: Any, images: Any) -> Any:
    """Pad with copies of what each window at the border sees anyway, which changes no maximum."""
    size = operation.get_attr("ksize")
    pads = np.reshape(operation.get_attr("explicit_paddings"), (4, 2))
    if (2 * pads > np.reshape(size, (4, 1))).any():
        return None
    return tf.nn.max_pool2d(tf.pad(images, pads, "SYMMETRIC"), size, operation.get_attr("strides"), "VALID")


def _patches(operation: Any, images: Any) -> Any:
    """Take patches out of pictures as blocks, if they lie side by side, or by a convolution that computes nothing."""
    size, strides, rates = (_spatial(operation, name) for name in ("ksizes", "strides", "rates"))
    padding = operation.get_attr("padding").decode()
    _, height, width, channels = images.shape
    if None in (height, width, channels):
        return None
    if size == strides and size[0] == size[1] > 1 and rates == [1, 1] and padding == "VALID":
        block = size[0]
        return tf.nn.space_to_depth(images[:, : height // block * block, : width // block * block], block)
    numbers = math.prod(size) * channels
    kernel = np.eye(numbers, dtype=np.float32).reshape(*size, channels, numbers)
    return tf.nn.conv2d(images, kernel, strides, padding, dilations=rates)


def _conv_1d(operation: Any, sequences: Any, kernel: Any) -> Any:
    """Turn a sequence whose channels come first around as one: TFLite's converter fails at one turned as a picture."""
    padding = operation.get_attr("padding")
    if sequences.shape[2] != 1 or kernel.shape[0] != 1 or padding not in (b"SAME", b"VALID"):
        return None
    strides, dilations = (_spatial(operation, name, channels_first=True) for name in ("strides", "dilations"))
    last = tf.expand_dims(tf.transpose(tf.squeeze(sequences, 2), (0, 2, 1)), 1)
    answer = tf.nn.conv2d(last, kernel, strides, padding.decode(), dilations=dilations)
    return tf.expand_dims(tf.transpose(tf.squeeze(answer, 1), (0, 2, 1)), 2)


def _reverse(operation: Any, values: Any, axes: Any) -> Any:
    """Reverse one axis after the other; TFLite reverses several only if they are neighbours."""
    if not isinstance(axes, np.ndarray) or values.shape.rank is None:
        return None
    numbers = sorted(int(axis) % values.shape.rank for axis in axes)
    if not numbers or numbers == list(range(numbers[0], numbers[-1] + 1)):
        return None
    for axis in numbers:
        values = tf.reverse(values, (axis,))
    return values


# --- Colours ---


def _to_hsv(operation: Any, images: Any) -> Any:
    red, green, blue = tf.split(images, 3, -1)
    value = tf.reduce_max(images, -1, keepdims=True)
    spread = value - tf.reduce_min(images, -1, keepdims=True)
    between = tf.where(tf.equal(red, value), green - blue, tf.where(tf.equal(green, value), blue - red, red - green))
    start = tf.where(tf.equal(red, value), 0.0, tf.where(tf.equal(green, value), 2 / 6, 4 / 6))
    hue = _quotient(between, 6 * spread) + tf.where(tf.greater(spread, 0), start, 0.0)
    return tf.concat((tf.where(tf.less(hue, 0), hue + 1, hue), _quotient(spread, value), value), -1)


def _to_rgb(operation: Any, images: Any) -> Any:
    hue, saturation, value = tf.split(images, 3, -1)
    colors = (tf.abs(6 * hue - 3) - 1, 2 - tf.abs(6 * hue - 2), 2 - tf.abs(6 * hue - 4))
    pure = tf.maximum(tf.minimum(tf.concat(colors, -1), 1), 0)
    return ((1 - saturation) + saturation * pure) * value


def _saturated(operation: Any, images: Any, factor: Any) -> Any:
    hue, saturation, value = tf.split(_to_hsv(operation, images), 3, -1)
    stronger = tf.maximum(tf.minimum(saturation * factor, 1), 0)
    return _to_rgb(operation, tf.concat((hue, stronger, value), -1))


def _of_other_hue(operation: Any, images: Any, turn: Any) -> Any:
    hue, *others = tf.split(_to_hsv(operation, images), 3, -1)
    turned = hue + turn
    return _to_rgb(operation, tf.concat((turned - tf.floor(turned), *others), -1))


def _contrasted(operation: Any, images: Any, factor: Any) -> Any:
    mean = tf.reduce_mean(images, (-3, -2), keepdims=True)
    return (images - mean) * factor + mean


def _quotient(dividend: Any, divisor: Any) -> Any:
    """Divide numbers that are not negative; what is divided by 0 becomes 0."""
    positive = tf.greater(divisor, 0)
    return tf.where(positive, dividend / tf.where(positive, divisor, 1.0), 0.0)


# --- Numbers ---

ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)  # Abramowitz and Stegun, 7.1.26


def _erf(operation: Any, values: Any) -> Any:
    """Approximate the error function to 1e-6: TFLite knows it only inside GELU, which stays."""
    if list(_gelu(operation)):
        return None
    size = tf.abs(values)
    part = 1 / (1 + 0.3275911 * size)
    polynomial = part * 0
    for factor in ERF:
        polynomial = (polynomial + factor) * part
    return tf.sign(values) * (1 - polynomial * tf.exp(-size * size))


def _gelu(erf: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the products of a GELU, each with its inputs in the order that TFLite's converter knows; or none.

    That is ``(x × 0.5) × (1 + erf(x / √2))``.
    """
    value, sum_ = _without(erf.inputs[0].op, "Mul", math.sqrt(0.5)), _only_reader(erf, "AddV2")
    first = sum_ and _only_reader(sum_, "Mul")
    if value is None or first is None or _without(sum_, "AddV2", 1.0) != erf.name:
        return
    others = [tensor for tensor in first.inputs if _name(tensor) != sum_.name]
    if len(others) == 1 and _without(others[0].op, "Mul", 0.5) == value:
        yield first.name, [_name(others[0]), sum_.name]
    elif second := _only_reader(first, "Mul"):
        others += [tensor for tensor in second.inputs if _name(tensor) != first.name]
        half = [_name(tensor) for tensor in others if _is_number(tensor, 0.5)]
        if len(half) == 1 and value in map(_name, others):
            yield first.name, [value, half[0]]
            yield second.name, [first.name, sum_.name]


def _only_reader(operation: Any, kind: str) -> Any:
    readers = operation.outputs[0].consumers()
    return readers[0] if len(readers) == 1 and readers[0].type == kind else None


def _without(operation: Any, kind: str, number: float) -> str | None:
    """Return what an operation multiplies by a number, or adds it to; None if it does something else."""
    if operation.type != kind or not any(_is_number(tensor, number) for tensor in operation.inputs):
        return None
    return next((_name(tensor) for tensor in operation.inputs if not _is_number(tensor, number)), None)


def _is_number(tensor: Any, number: float) -> bool:
    value = tf.get_static_value(tensor) if tensor.op.type == "Const" else None
    return value is not None and value.size == 1 and math.isclose(value.item(), number, rel_tol=1e-6)


def _name(tensor: Any) -> str:
    """Return a tensor's name as a GraphDef has it."""
    return str(tensor.name.removesuffix(":0"))


def _bucket(operation: Any, values: Any) -> Any:
    passed = tf.greater_equal(values[..., tf.newaxis], np.float32(operation.get_attr("boundaries")))
    return tf.reduce_sum(tf.cast(passed, tf.int32), -1)


HANGING = frozenset({"Switch", "PlaceholderWithDefault", "Shape"})
UNUSUAL = frozenset({b"EXPLICIT", b"NCHW"})  # attributes that are part of an operator's name below
# What an operator with these inputs becomes: a tensor, or None where it is to stay as it is.
REWRITINGS: dict[str, Callable[..., Any]] = {
    "Acos": lambda _, x: tf.atan2(tf.sqrt(1 - x * x), x),
    "Acosh": lambda _, x: tf.math.log(x + tf.sqrt(x * x - 1)),
    "AdjustContrastv2": _contrasted,
    "AdjustHue": _of_other_hue,
    "AdjustSaturation": _saturated,
    "Asin": lambda _, x: tf.atan2(x, tf.sqrt(1 - x * x)),
    "Asinh": lambda _, x: tf.sign(x) * tf.math.log(tf.abs(x) + tf.sqrt(x * x + 1)),
    "Atan": lambda _, x: tf.atan2(x, tf.ones_like(x)),
    "Atanh": lambda _, x: 0.5 * (tf.math.log(1 + x) - tf.math.log(1 - x)),
    "AvgPool3D": _pool_3d,
    "Bucketize": _bucket,
    "ClipByValue": lambda _, x, low, high: tf.minimum(tf.maximum(x, low), high),
    "Conv2D NCHW": _conv_1d,
    "Conv2DBackpropInput": _conv_transpose,
    "Conv3D": _conv_3d,
    "Cosh": lambda _, x: 0.5 * (tf.exp(x) + tf.exp(-x)),
    "Erf": _erf,
    "EuclideanNorm": lambda o, x, axes: tf.sqrt(tf.reduce_sum(x * x, axes, o.get_attr("keep_dims"))),
    "Expm1": lambda _, x: tf.exp(x) - 1,
    "ExtractImagePatches": _patches,
    "HSVToRGB": _to_rgb,
    "Log1p": lambda _, x: tf.math.log(x + 1),
    "MaxPool EXPLICIT": _padded_max_pool,
    "MaxPool3D": _pool_3d,
    "MaxPoolV2": _max_pool,
    "MulNoNan": lambda _, x, gate: tf.where(tf.equal(gate, 0), 0.0, x) * gate,
    "RGBToHSV": _to_hsv,
    "ResizeArea": _resize,
    "ResizeBicubic": _resize,
    "ReverseV2": _reverse,
    "ScaleAndTranslate": _resize,
    "Sinh": lambda _, x: 0.5 * (tf.exp(x) - tf.exp(-x)),
    "Snapshot": lambda _, x: x,
    "SparseMatMul": lambda o, x, y: tf.matmul(x, y, o.get_attr("transpose_a"), o.get_attr("transpose_b")),
    "Tan": lambda _, x: tf.sin(x) / tf.cos(x),
    "Xdivy": lambda _, x, y: x / tf.where(tf.equal(x, 0), 1.0, y),
    "Xlog1py": lambda _, x, y: x * tf.math.log(tf.where(tf.equal(x, 0), 0.0, y) + 1),
    "Xlogy": lambda _, x, y: x * tf.math.log(tf.where(tf.equal(x, 0), 1.0, y)),
}

"""Repairs a float graph before it is quantized: TFLite and ONNX are made from the same repaired graph.

Channels are equalized, then layer after layer, in the order of computation, weights are rounded to what int8 can hold,
on the inputs that the layers before now give and towards the outputs of the float model, and the bias takes up what
is left of the mean error (empirical bias correction, Nagel et al. 2019, arXiv:1906.04721). The result computes in
float, with weights that both converters represent exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid_convert.engine import tf
from edgevid_convert.freezing import INPUT_NAME
from edgevid_convert.int8.equalize import equalized, streams
from edgevid_convert.int8.layers import Array, Layer, LayeredGraph, Parameters, folded
from edgevid_convert.int8.rounding import LARGEST_FAN_IN, least_squares, rounded, rounded_to_nearest

__all__ = ["repaired"]

MOST_FRAMES = 96
SAMPLES_PER_WEIGHT = 4  # input patches for each weight of an output
FEWEST_SAMPLES, MOST_SAMPLES = 2048, 8192

Tensors32 = Sequence[npt.NDArray[np.float32]]


def repaired(
    graph_def: Any,
    frames: Tensors32,
    going_on: Callable[[int, int], bool] = lambda done, total: True,
    seed: int = 0,
) -> Any:
    """Return a GraphDef close to the given one in what it answers, and whose layers' weights are int8 already.

    Args:
        graph_def: of :func:`edgevid_convert.freezing.frozen_graph`.
        frames: calibration tensors, float32 (1, height, width, channels).
        going_on: called with how many layers are done, and how many there are; if it returns false, the layers that are
            left stay as they are.
        seed: of the choice of image positions.
    """
    frames = frames[:: -(-len(frames) // MOST_FRAMES)]
    layered = _equalized(folded(graph_def), frames)
    return _rounded(layered, frames, going_on, seed).graph


class _Running:
    """A layered graph that can be asked for any of its tensors, while its parameters are replaced."""

    def __init__(self, layered: LayeredGraph) -> None:
        names = [name for layer in layered.layers for name in (layer.weights_name, layer.bias_name)]
        constants = {node.name: node for node in layered.graph.node if node.name in set(names)}
        self._variables = {name: tf.Variable(tf.make_ndarray(constants[name].attr["value"].tensor)) for name in names}

        def imported(image: Any) -> None:
            values = {f"{name}:0": variable.read_value() for name, variable in self._variables.items()}
            tf.graph_util.import_graph_def(layered.graph, name="", input_map={f"{INPUT_NAME}:0": image, **values})

        (placeholder,) = (node for node in layered.graph.node if node.op == "Placeholder")
        shape = [dimension.size for dimension in placeholder.attr["shape"].shape.dim]
        self._function = tf.compat.v1.wrap_function(imported, [tf.TensorSpec(shape, tf.float32, name="frame")])

    def asked(self, names: Sequence[str]) -> Callable[[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
        """Return a function from a frame to the outputs of the nodes of these names."""
        tensors = ["frame:0" if name == INPUT_NAME else f"{name}:0" for name in names]
        pruned = self._function.prune("frame:0", tensors)
        return lambda frame: [tensor.numpy() for tensor in pruned(tf.constant(frame))]

    def replace(self, layer: Layer, parameters: Parameters) -> None:
        self._variables[layer.weights_name].assign(parameters.weights.astype(np.float32))
        self._variables[layer.bias_name].assign(parameters.bias.astype(np.float32))


def _equalized(layered: LayeredGraph, frames: Tensors32) -> LayeredGraph:
    found = streams(layered)
    if not found:
        return layered
    names = sorted({name for stream in found for name in stream.nodes})
    ask = _Running(layered).asked(names)
    largest: dict[str, Array] = {}
    for frame in frames:
        for name, tensor in zip(names, ask(frame), strict=True):
            peak = np.abs(tensor).max(axis=tuple(range(tensor.ndim - 1))).astype(np.float64)
            largest[name] = np.maximum(largest.get(name, 0), peak)
    return equalized(layered, found, largest)


@dataclass(frozen=True)
class _Sampling:
    """Which output positions of a layer are looked at, the same in every run: indices per frame, in one row."""

    positions: tuple[npt.NDArray[np.intp], ...]

    def of(self, index: int, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the sampled outputs of one frame, (samples, channels)."""
        rows: npt.NDArray[np.float32] = outputs.reshape(-1, outputs.shape[-1])[self.positions[index]]
        return rows


def _rounded(layered: LayeredGraph, frames: Tensors32, going_on: Callable[[int, int], bool], seed: int) -> LayeredGraph:
    layers, parameters = layered.layers, layered.parameters()
    ask = _Running(layered).asked([layer.name for layer in layers])
    generator = np.random.default_rng(seed)
    samplings = [
        _sampling(
            parameters[layer.name], layer, outputs.reshape(-1, outputs.shape[-1]).shape[0], len(frames), generator
        )
        for layer, outputs in zip(layers, ask(frames[0]), strict=True)
    ]
    targets: list[list[npt.NDArray[np.float32]]] = [[] for _ in layers]
    for index, frame in enumerate(frames):
        for target, sampling, outputs in zip(targets, samplings, ask(frame), strict=True):
            target.append(sampling.of(index, outputs))
    running, result = _Running(layered), {}
    for index, layer in enumerate(layers):
        if not going_on(index, len(layers)):
            break
        ask = running.asked([layer.input])
        patches = np.concatenate(
            [
                _patches(layer, parameters[layer.name].weights, ask(frame)[0], samplings[index].positions[number])
                for number, frame in enumerate(frames)
            ]
        )
        result[layer.name] = _fitted(layer, parameters[layer.name], patches, np.concatenate(targets[index]))
        targets[index].clear()
        running.replace(layer, result[layer.name])
    return layered.replaced(result)


def _fitted(
    layer: Layer, old: Parameters, patches: npt.NDArray[np.float32], target: npt.NDArray[np.float32]
) -> Parameters:
    """Return parameters in int8 steps that make ``target``, (samples, outputs), of ``patches``, nearly."""
    weights, inputs = _grouped(layer, old.weights, patches)
    groups, outputs, fan_in = weights.shape
    targets = np.ascontiguousarray(target.reshape(len(target), groups, outputs).transpose(1, 0, 2))
    input_mean = inputs.mean(axis=1, keepdims=True, dtype=np.float64)
    target_mean = targets.mean(axis=1, keepdims=True, dtype=np.float64)
    if fan_in <= LARGEST_FAN_IN:
        centred = inputs - input_mean.astype(np.float32)
        missing = targets - target_mean.astype(np.float32) - centred @ weights.transpose(0, 2, 1).astype(np.float32)
        curvature, slope = least_squares(centred, missing)
        new = rounded(weights + np.linalg.solve(curvature, slope).transpose(0, 2, 1), curvature)
    else:
        new = rounded_to_nearest(weights)
    moved = (target_mean - input_mean @ new.transpose(0, 2, 1)).reshape(-1)
    return Parameters(_ungrouped(layer, new, old.weights.shape), old.bias + moved)


def _sampling(
    parameters: Parameters, layer: Layer, positions: int, frames: int, generator: np.random.Generator
) -> _Sampling:
    weights = parameters.weights
    fan_in = weights[..., 0].size // (weights.shape[2] if layer.kind == "DepthwiseConv2dNative" else 1)
    samples = min(max(SAMPLES_PER_WEIGHT * fan_in, FEWEST_SAMPLES), MOST_SAMPLES)
    count = min(positions, -(-samples // frames))
    return _Sampling(tuple(generator.choice(positions, count, replace=False) for _ in range(frames)))


def _patches(
    layer: Layer, weights: Array, tensor: npt.NDArray[np.float32], positions: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Return what the layer reads for each of these output positions: (positions, kernel area, channels)."""
    if layer.kind == "MatMul":
        return tensor.reshape(-1, 1, tensor.shape[-1])[positions]
    _, height, width, _ = tensor.shape
    rows, top = _windows(height, weights.shape[0], layer.strides[0], layer.dilations[0], layer.same)
    columns, left = _windows(width, weights.shape[1], layer.strides[1], layer.dilations[1], layer.same)
    padded = np.pad(tensor, ((0, 0), (top, rows.max()), (left, columns.max()), (0, 0)))
    # TensorFlow lays a dilated convolution out as a plain one over a batch of smaller images.
    image, position = np.divmod(positions, len(rows) * len(columns))
    down, across = np.divmod(position, len(columns))
    taken = padded[image[:, None, None], rows[down][:, :, None], columns[across][:, None, :]]
    return taken.reshape(len(positions), -1, tensor.shape[-1])


def _windows(size: int, kernel: int, stride: int, dilation: int, same: bool) -> tuple[npt.NDArray[np.intp], int]:
    """Return the padded indices that each output reads, (outputs, kernel), and how much padding comes first."""
    span = (kernel - 1) * dilation + 1
    outputs = -(-size // stride) if same else (size - span) // stride + 1
    padding = max((outputs - 1) * stride + span - size, 0) if same else 0
    return np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation, padding // 2


def _grouped(layer: Layer, weights: Array, patches: npt.NDArray[np.float32]) -> tuple[Array, npt.NDArray[np.float32]]:
    """Return weights as (groups, outputs, fan-in) and patches as (groups, samples, fan-in)."""
    samples, area, channels = patches.shape
    if layer.kind == "MatMul":
        return weights.T[None], patches.reshape(1, samples, channels)
    if layer.kind == "DepthwiseConv2dNative":
        return weights.reshape(area, channels, -1).transpose(1, 2, 0), np.ascontiguousarray(patches.transpose(2, 0, 1))
    per_group = weights.shape[2]
    groups = channels // per_group
    inputs = patches.reshape(samples, area, groups, per_group).transpose(2, 0, 1, 3)
    return (
        weights.reshape(area * per_group, groups, -1).transpose(1, 2, 0),
        inputs.reshape(groups, samples, area * per_group),
    )


def _ungrouped(layer: Layer, weights: Array, shape: tuple[int, ...]) -> Array:
    if layer.kind == "MatMul":
        weights = weights.transpose(0, 2, 1)
        return weights.reshape(shape)
    ungrouped: Array = weights.transpose(2, 0, 1).reshape(shape)
    return ungrouped

"""Repairs a float graph before it is quantized: TFLite and ONNX are made from the same repaired graph.

Channels are equalized, then layer after layer, in the order of computation, weights are rounded to what int8 can hold,
on the inputs that the layers before now give and towards the outputs of the float model, and the bias takes up what
is left of the mean error (empirical bias correction, Nagel et al. 2019, arXiv:1906.04721). The result computes in
float, with weights that both converters represent exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid_convert.engine import opened_graph
from edgevid_convert.int8.equalize import equalized, streams
from edgevid_convert.int8.layers import Array, Layer, LayeredGraph, Parameters, folded, node_name
from edgevid_convert.int8.rounding import LARGEST_FAN_IN, least_squares, rounded, rounded_to_nearest
from edgevid_convert.loading.graphs.freezing import INPUT_NAME

__all__ = ["repaired"]

MOST_FRAMES = 96
SAMPLES_PER_WEIGHT = 8  # input patches for each weight of an output
FEWEST_SAMPLES, MOST_SAMPLES = 4096, 16384
MOST_KEPT_BYTES = 1 << 29

Tensors32 = Sequence[npt.NDArray[np.float32]]


def repaired(
    graph_def: Any,
    frames: Tensors32,
    going_on: Callable[[int, int], bool] = lambda done, total: True,
    seed: int = 0,
) -> Any:
    """Return a GraphDef close to the given one in what it answers, and whose layers' weights are int8 already.

    Args:
        graph_def: of :func:`edgevid_convert.loading.graphs.freezing.frozen_graph`.
        frames: calibration tensors, float32 (1, height, width, channels).
        going_on: called with how many layers are done, and how many there are; if it returns false, the layers that are
            left stay as they are.
        seed: of the choice of image positions.
    """
    frames = frames[:: -(-len(frames) // MOST_FRAMES)]
    layered = _equalized(folded(graph_def), frames)
    return _rounded(layered, frames, going_on, seed).graph


class _Running:
    """A layered graph that is asked for its tensors while its parameters are replaced, layer after layer.

    What a layer reads is kept for the layers after it, so that each part of the graph is computed once for all frames.
    """

    def __init__(self, layered: LayeredGraph, frames: Tensors32) -> None:
        self._layers = layered.layers
        self._sources = {node.name: [_tensor(name) for name in node.input] for node in layered.graph.node}
        self._kept: dict[str, Tensors32] = {_tensor(INPUT_NAME): frames}
        self._replaced: dict[str, npt.NDArray[np.float32]] = {}
        self._session = opened_graph(layered.graph)

    def outputs(self, names: Sequence[str]) -> Iterator[list[npt.NDArray[np.float32]]]:
        """Yield the outputs of the nodes of these names, frame by frame, of the graph as it was given."""
        for frame in self._kept[_tensor(INPUT_NAME)]:
            yield self._session.run([_tensor(name) for name in names], {_tensor(INPUT_NAME): frame})

    def read_by(self, index: int) -> Tensors32:
        """Return what a layer reads, frame by frame; to be asked layer after layer, each replaced before the next."""
        wanted = _tensor(self._layers[index].input)
        if wanted in self._kept:
            return self._kept[wanted]
        between = self._between(wanted)
        known = [name for name in between if name in self._kept]
        parameters = {name: self._replaced[name] for name in between if name in self._replaced}
        tensors = [
            self._session.run(wanted, {**dict(zip(known, given, strict=True)), **parameters})
            for given in zip(*(self._kept[name] for name in known), strict=True)
        ]
        self._keep(wanted, tensors, self._layers[index + 1 :])
        return tensors

    def replace(self, layer: Layer, parameters: Parameters) -> None:
        """Give a layer other parameters."""
        self._replaced[_tensor(layer.weights_name)] = parameters.weights.astype(np.float32)
        self._replaced[_tensor(layer.bias_name)] = parameters.bias.astype(np.float32)

    def _between(self, wanted: str) -> list[str]:
        """Return the tensors that ``wanted`` is computed from, back to those that are kept."""
        seen, open_ends = [], [wanted]
        while open_ends:
            name = open_ends.pop()
            if name in seen:
                continue
            seen.append(name)
            if name not in self._kept:
                open_ends.extend(self._sources[node_name(name)])
        return seen

    def _keep(self, name: str, tensors: Tensors32, still_to_come: Sequence[Layer]) -> None:
        """Keep a tensor, if there is room for it, and what the layers to come cannot do without."""
        room = MOST_KEPT_BYTES - sum(tensor.nbytes for kept in self._kept.values() for tensor in kept)
        if sum(tensor.nbytes for tensor in tensors) <= room:
            self._kept[name] = tensors
        needed = {_tensor(INPUT_NAME)}.union(*(self._between(_tensor(layer.input)) for layer in still_to_come))
        self._kept = {name: tensors for name, tensors in self._kept.items() if name in needed}


def _tensor(name: str) -> str:
    """Return the full name of a tensor that a GraphDef names in short, as it does a node's first output."""
    return name if ":" in name else f"{name.lstrip('^')}:0"


def _equalized(layered: LayeredGraph, frames: Tensors32) -> LayeredGraph:
    found = streams(layered)
    if not found:
        return layered
    names = sorted({name for stream in found for name in stream.nodes})
    largest: dict[str, Array] = {}
    for tensors in _Running(layered, frames).outputs(names):
        for name, tensor in zip(names, tensors, strict=True):
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
    running, generator = _Running(layered, frames), np.random.default_rng(seed)
    samplings: list[_Sampling] = []
    targets: list[list[npt.NDArray[np.float32]]] = [[] for _ in layers]
    for index, outputs in enumerate(running.outputs([layer.name for layer in layers])):
        if not samplings:
            samplings = [
                _sampling(parameters[layer.name], layer, tensor.size // tensor.shape[-1], len(frames), generator)
                for layer, tensor in zip(layers, outputs, strict=True)
            ]
        for target, sampling, tensor in zip(targets, samplings, outputs, strict=True):
            target.append(sampling.of(index, tensor))
    result: dict[str, Parameters] = {}
    for index, layer in enumerate(layers):
        if not going_on(index, len(layers)):
            break
        patches = np.concatenate(
            [
                _patches(layer, parameters[layer.name].weights, tensor, positions)
                for tensor, positions in zip(running.read_by(index), samplings[index].positions, strict=True)
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

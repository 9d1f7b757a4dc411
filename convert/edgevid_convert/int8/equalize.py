"""Cross-layer equalization: channels of one tensor brought to one range, so that its 256 levels serve them all.

A channel that a layer makes s times larger, and every layer that reads it makes s times smaller again, changes nothing
in float where all between is linear, a ReLU, a pooling or a residual addition; a residual stream is scaled as one.
ReLU6 clips, so there a channel grows only to where it still stays below 6.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721),
which scales pairs of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgevid_convert.int8.layers import Array, Layer, LayeredGraph, Parameters, node_name, readers_of
from edgevid_convert.loading.graphs.freezing import OUTPUT_NAME

__all__ = ["Stream", "equalized", "streams"]

# A scaled input gives an equally scaled output (ReLU6 with the limit above).
HOMOGENEOUS = frozenset({"Relu", "Relu6", "AddV2", "Add", "MaxPool", "AvgPool", "Identity"})
LARGEST_SCALE = 8.0
HEADROOM = 1.5  # above the largest value seen, before a ReLU6 clips it


@dataclass
class Stream:
    """Nodes whose channels must be scaled alike, the layers that write them, and the layers that read them."""

    nodes: set[str] = field(default_factory=set)
    writers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)
    clipped: bool = False


def streams(layered: LayeredGraph) -> list[Stream]:
    """Return the streams of a graph that can be scaled: only layers write them, and only layers read them."""
    nodes = {node.name: node for node in layered.graph.node}
    by_bias = {layer.biased: layer for layer in layered.layers}
    by_name = {layer.name: layer for layer in layered.layers}
    readers, parameters = readers_of(layered.graph), layered.parameters()
    found: list[Stream] = []
    seen: set[str] = set()
    for layer in layered.layers:
        if layer.biased in seen:
            continue
        stream, scalable = _stream(layer.biased, nodes, readers, by_bias, by_name)
        seen |= stream.nodes
        if scalable and stream.readers and _same_channels(stream, parameters):
            found.append(stream)
    return found


def _stream(
    start: str,
    nodes: Mapping[str, Any],
    readers: Mapping[str, list[Any]],
    by_bias: Mapping[str, Layer],
    by_name: Mapping[str, Layer],
) -> tuple[Stream, bool]:
    """Return all that must be scaled together with a layer's output, and whether it can be."""
    stream, open_ends, scalable = Stream(), [start], True
    while open_ends:
        name = open_ends.pop()
        if name in stream.nodes:
            continue
        stream.nodes.add(name)
        scalable &= name != OUTPUT_NAME
        if name in by_bias:
            stream.writers.append(by_bias[name])
        elif nodes[name].op in HOMOGENEOUS:
            stream.clipped |= nodes[name].op == "Relu6"
            open_ends.extend(node_name(source) for source in nodes[name].input)
        else:
            scalable = False  # something else writes into it
            continue
        for reader in readers.get(name, []):
            if reader.name in by_name and by_name[reader.name].input == name:
                stream.readers.append(by_name[reader.name])
            elif reader.op in HOMOGENEOUS:
                open_ends.append(reader.name)
            else:
                scalable = False
    return stream, scalable


def _same_channels(stream: Stream, parameters: Mapping[str, Parameters]) -> bool:
    """Return whether every reader reads every channel: a grouped convolution would need more than one look."""
    channels = {parameters[writer.name].bias.size for writer in stream.writers}
    channels |= {parameters[reader.name].weights.shape[-2] for reader in stream.readers}
    return len(channels) == 1


def equalized(layered: LayeredGraph, found: list[Stream], largest: Mapping[str, Array]) -> LayeredGraph:
    """Return the graph with each stream's channels at one range.

    Args:
        layered: the graph.
        found: its streams.
        largest: the largest absolute value seen in each channel of the streams' nodes, by name.
    """
    parameters = layered.parameters()
    for stream in found:
        peak = np.maximum(np.max([largest[name] for name in stream.nodes], axis=0), 1e-6)
        goal = 6 / HEADROOM if stream.clipped else peak.max()
        scale = np.clip(goal / peak, 1, LARGEST_SCALE)
        for writer in stream.writers:
            old = parameters[writer.name]
            weights = (old.weights.reshape(-1, scale.size) * scale).reshape(old.weights.shape)
            parameters[writer.name] = Parameters(weights, old.bias * scale)
        for reader in stream.readers:
            old = parameters[reader.name]
            parameters[reader.name] = replace(old, weights=old.weights / scale[:, None])
    return layered.replaced(parameters)

"""Freezes a model of windows of frames: in two where each frame alone passes a CNN, and only then all together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevid.errors import ModelError, UsageError
from edgevid.manifest import MOST_FRAMES
from edgevid_convert.engine import tf
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.loading.frozen import FrozenGraph, FrozenModel
from edgevid_convert.loading.model import Request
from edgevid_convert.loading.opened import Opened
from edgevid_convert.loading.tracing import PROBE_SIZES, checked, frozen_function, only, scores_of, shown, traced

__all__ = ["freeze_windows"]

ALIKE = 1e-5  # of the largest feature; a layer that looks at other frames differs by far more
EXPECTED = "expected clips, (batch, frames, height, width, 1 or 3 channels)"


@dataclass(frozen=True)
class Parts:
    """A Keras model in two.

    Attributes:
        of_frame: a model of one frame, (batch, height, width, channels).
        of_window: a model of what that answers to the frames of a window, batch and frames first.
        shape: of the answer to one frame.
    """

    of_frame: Any
    of_window: Any
    shape: tuple[int, ...]


def freeze_windows(opened: Opened, path: Path, request: Request) -> FrozenModel:
    """Return a model of one window of channels-last frames as a graph, or as two.

    Raises:
        ModelError: it is no classifier of clips, answers at random, or not as it did before.
        UsageError: its input size is open, or ``request`` contradicts it.
    """
    frames, height, width, channels = _window_shape(path, opened.shape, request.image_size)
    window = frames, height, width, channels

    def classify(tensor: Any) -> Any:
        return scores_of(path, tf.cast(only(path, opened.call(tf.cast(tensor, opened.dtype))), tf.float32))

    parts, head = _split(opened, window), None
    if parts:
        function, last = _traced_apart(path, parts, window, opened.dtype)
        head = FrozenGraph(graph=frozen_function(path, last)[1])
    else:
        what = f"{frames} frames of {height}×{width}×{channels}"
        function = last = traced(path, classify, (1, *window), what)
    units = int(last.outputs[0].shape[-1])
    plain, graph = frozen_function(path, function)
    frozen = FrozenModel(
        height=height,
        width=width,
        channels=channels,
        classes=max(2, units),
        binary=units == 1,
        activation="logits",
        statistics=FirstLayers(plain).statistics(),
        frames=frames,
        graph=graph,
        head=head,
    )
    return checked(path, frozen, classify, opened.dtype, plain, request)


def _traced_apart(path: Path, parts: Parts, window: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Return the ConcreteFunctions of one frame, and of the features of a window's frames."""
    features = int(np.prod(parts.shape))

    def of_frame(image: Any) -> Any:
        answer = tf.cast(parts.of_frame(tf.cast(image, dtype), training=False), tf.float32)
        return tf.reshape(answer, (1, features)) if len(parts.shape) > 1 else answer

    def of_window(rows: Any) -> Any:
        rows = tf.reshape(rows, (1, window[0], *parts.shape))
        return scores_of(path, only(path, parts.of_window(rows, training=False)))

    return (
        traced(path, of_frame, (1, *window[1:]), "one of its frames"),
        traced(path, of_window, (1, window[0], features), "the features of its frames"),
    )


def _window_shape(
    path: Path, shape: Sequence[int | None], image_size: tuple[int, int] | None
) -> tuple[int, int, int, Any]:
    """Return frames, height, width and channels."""
    frames, height, width, channels = shape[1:]
    if channels not in (1, 3):
        raise ModelError(f"{path}: input of shape {shown(shape)}; {EXPECTED}")
    if frames is None:
        raise ModelError(
            f"{path}: input of shape {shown(shape)} leaves the number of frames open; save it with a fixed one, "
            "as keras.Input((16, height, width, channels)) has it"
        )
    if not 2 <= frames <= MOST_FRAMES:
        raise ModelError(f"{path}: input of shape {shown(shape)}; expected windows of 2 to {MOST_FRAMES} frames")
    given_height, given_width = image_size or (height, width)
    if given_height is None or given_width is None:
        raise UsageError(f"{path}: input of shape {shown(shape)} leaves the size open; give --image-size H,W")
    if height not in (None, given_height) or width not in (None, given_width):
        raise UsageError(f"--image-size {given_height},{given_width}: the model takes {height},{width}; leave it out")
    return frames, given_height, given_width, channels


def _split(opened: Opened, window: tuple[int, ...]) -> Parts | None:
    """Return a Keras model in two, cut behind the last layer up to which each frame passes alone; None without one.

    A SavedModel is not cut, since its layers cannot be told any more; nor is one where nothing with weights, such as a
    convolution, would be before the cut, as in a 3-D CNN.
    """
    model, keras = opened.owner, opened.library
    if keras is None or not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return None
    if any(isinstance(layer, keras.layers.Masking) for layer in model._flatten_layers()):  # it speaks past the cut
        return None
    for tensor in _tensors(model.outputs[0]):
        if len(tensor.shape) > 2 and tensor.shape[1] == window[0] and (parts := _cut_at(keras, model, tensor, window)):
            return parts
    return None


def _tensors(last: Any) -> Iterator[Any]:
    """Yield the tensors between the layers of a Keras model, from the last to the first."""
    waiting, seen = [last], {id(last)}
    for tensor in waiting:
        yield tensor
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        before = node.input_tensors  # of Keras 3 a list, of Keras 2 a tensor where there is one alone
        for other in before if isinstance(before, list | tuple) else [before]:
            if id(other) not in seen and hasattr(other, "_keras_history"):
                seen.add(id(other))
                waiting.append(other)


def _cut_at(keras: Any, model: Any, cut: Any, window: tuple[int, ...]) -> Parts | None:
    try:
        before = keras.Model(model.inputs[0], cut)
        if not _has_kernel(before):
            return None
        behind = keras.Model(cut, model.outputs[0])
        image = keras.Input(window[1:], dtype=model.inputs[0].dtype)
        of_frame = _of_frames(keras, before, image)
        shape = tuple(of_frame.outputs[0].shape[1:])
        alone = None not in shape and _passes_frames_alone(before, of_frame, window)
    except Exception:  # noqa: BLE001 - Keras raises what it likes where a model cannot be cut, or a layer wants a window
        return None
    return Parts(of_frame, behind, shape) if alone else None


def _of_frames(keras: Any, before: Any, image: Any) -> Any:
    """Return a model that does to one frame what ``before`` does to each frame of a window, with the same weights."""

    def of_one_frame(layer: Any) -> Any:
        return layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer

    if keras.__name__.startswith("tf_keras"):
        return keras.models.clone_model(before, image, of_one_frame)
    return keras.models.clone_model(before, image, of_one_frame, _called_on_one_frame)


def _called_on_one_frame(layer: Any, *inputs: Any, mask: Any = None, **arguments: Any) -> Any:
    """Call a layer of one frame, which may not know of masks over frames."""
    return layer(*inputs, **arguments)


def _has_kernel(model: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in model.weights)


def _passes_frames_alone(before: Any, of_frame: Any, window: tuple[int, ...]) -> bool:
    """Return whether a model answers to each frame of a window as ``of_frame`` does to it alone."""
    generator = np.random.default_rng(0)
    for size in PROBE_SIZES[1::2]:
        tensor = generator.normal(0, size, (1, *window)).astype(before.inputs[0].dtype)
        together = np.asarray(before(tensor, training=False))[0]
        apart = np.asarray(of_frame(tensor[0], training=False))
        if together.shape != apart.shape:
            return False
        if not np.abs(together - apart).max() <= ALIKE * max(1.0, np.abs(together).max()):
            return False
    return True

"""Proves variants against the Keras model, through the same preprocessing and backends as on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.backends import BackendOptions, load_backend
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.errors import BackendError, ModelError
from edgevid.manifest import InputSpec, Manifest, Preprocessing, Tensor, Variant
from edgevid.postprocess import Postprocessor, probabilities_of
from edgevid.preprocess import Preprocessor
from edgevid.quiet import captured
from edgevid.sequence import head_model
from edgevid.window import parse_window
from edgevid_convert.frames import Clip
from edgevid_convert.loading.model import FrozenModel
from edgevid_convert.parity import Scores, compare

__all__ = ["float_preprocessor", "input_tensors", "keras_answers", "proven", "takes_batches", "variant_answers"]

IMAGE_RANK = 3  # height, width, channels
BATCH = 3  # frames, to see whether a variant takes several
BATCH_ERROR = 1e-5


def proven(bundle: Bundle, variant: Variant, reference: Sequence[Scores], clips: Sequence[Clip]) -> Variant:
    """Return the variant with its parity, measured through the runtime's own backend.

    Args:
        bundle: where its file is.
        variant: the variant.
        reference: what the Keras model answers to each clip, of :func:`keras_answers`.
        clips: the frames to judge by.

    Raises:
        ModelError: it answers with something that is no number.
    """
    manifest = bundle.manifest
    data: Literal["held-out", "noise"] = "held-out" if manifest.calibration else "noise"
    with variant_answers(bundle, variant) as answers:
        candidate = [answers(clip) for clip in clips]
    spacings = [clip.spacing for clip in clips]
    window = parse_window(manifest.smoothing.window).frames
    parity = compare(reference, candidate, spacings, window, data, manifest.output.multi_label)
    if not np.isfinite(parity.max_abs_error):
        raise ModelError(f"{variant.id}: it answers with something that is no number; leave it out with --precision")
    return msgspec.structs.replace(variant, parity=parity)


def keras_answers(model: FrozenModel, manifest: Manifest, clip: Clip) -> Scores:
    """Return what the Keras model itself answers to a clip: probabilities, float32 (frames, classes)."""
    preprocessor = float_preprocessor(manifest.input, manifest.preprocessing)
    answers = np.concatenate([model.answer(tensor) for tensor in input_tensors(clip.frames, preprocessor)])
    return probabilities_of(answers, manifest.output)


@contextmanager
def variant_answers(bundle: Bundle, variant: Variant) -> Iterator[Callable[[Clip], Scores]]:
    """Load a variant, and its head if it has one, and yield what it answers to a clip: float32 (frames, classes)."""
    sequence = bundle.manifest.sequence
    with ExitStack() as stack:
        answer = stack.enter_context(_single_answers(bundle, variant))
        if sequence and sequence.heads:
            name, _ = choose_backend(bundle, variant_id=variant.id)
            head = stack.enter_context(closing(head_model(bundle, variant, name, BackendOptions())))
            yield lambda clip: np.stack(
                [head.of(np.stack([answer(each) for each in _frames_of(pixels)])) for pixels in clip.frames]
            )
        else:
            yield lambda clip: np.stack([answer(pixels) for pixels in clip.frames])


@contextmanager
def _single_answers(bundle: Bundle, variant: Variant) -> Iterator[Callable[[npt.NDArray[np.uint8]], Scores]]:
    """Load a variant, and yield what it answers to one tensor: probabilities or, where it is split, features."""
    manifest = bundle.manifest
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    postprocess = Postprocessor(manifest.row, variant.output)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    with load_backend(name, bundle, variant) as backend:

        def answer(pixels: npt.NDArray[np.uint8]) -> Scores:
            _encode(pixels, preprocessor, backend.input)
            return postprocess(backend.infer())

        yield answer


def takes_batches(bundle: Bundle, variant: Variant, clips: Sequence[Clip]) -> bool:
    """Return whether a variant answers to several frames at once as it does to each alone."""
    manifest = bundle.manifest
    if manifest.takes_windows:
        return False
    frames = [frame for clip in clips for pixels in clip.frames for frame in _frames_of(pixels)][:BATCH]
    postprocess = Postprocessor(manifest.row, variant.output)
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    together = BackendOptions(batch=len(frames))
    freed = msgspec.structs.replace(variant, free_batch=True)
    with _single_answers(bundle, variant) as answer:
        expected = np.stack([answer(pixels) for pixels in frames])
    try:
        with captured(1, 2), load_backend(name, bundle, freed, together) as backend:
            tensor = backend.input
            for index, pixels in enumerate(frames):
                preprocessor.encode(pixels, tensor[index : index + 1])
            del tensor
            rows = np.stack([postprocess(row) for row in backend.infer()])
    except BackendError:
        return False
    return rows.shape == expected.shape and bool(np.allclose(rows, expected, atol=BATCH_ERROR))


def float_preprocessor(spec: InputSpec, preprocessing: Preprocessing) -> Preprocessor:
    """Return the runtime's preprocessing for the Keras model itself, which takes float32."""
    tensor = Tensor(shape=(1, spec.height, spec.width, spec.channels), dtype="float32")
    return Preprocessor(spec, preprocessing, tensor)


def input_tensors(pixels: Sequence[npt.NDArray[np.uint8]], preprocessor: Preprocessor) -> list[npt.NDArray[np.float32]]:
    """Return the input tensor, float32 (1, height, width, channels), of each frame or window in the model's size."""
    tensors = []
    for each in pixels:
        tensor = np.empty((1, *each.shape), np.float32)
        _encode(each, preprocessor, tensor)
        tensors.append(tensor)
    return tensors


def _frames_of(pixels: npt.NDArray[np.uint8]) -> Sequence[npt.NDArray[np.uint8]]:
    """Return the frames of a window; of a single frame that one."""
    return [pixels] if pixels.ndim == IMAGE_RANK else list(pixels)


def _encode(pixels: npt.NDArray[np.uint8], preprocessor: Preprocessor, tensor: npt.NDArray[Any]) -> None:
    """Write a frame, or each frame of a window, into a tensor of one."""
    if pixels.ndim == IMAGE_RANK:
        preprocessor.encode(pixels, tensor)
        return
    for index, frame in enumerate(pixels):
        preprocessor.encode(frame, tensor[:, index])

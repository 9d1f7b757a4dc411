"""Proves variants against the Keras model, through the same preprocessing and backends as on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.backends import BackendOptions, load_backend
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.errors import BackendError, ModelError
from edgevid.manifest import InputSpec, Manifest, Preprocessing, Tensor, Variant
from edgevid.postprocess import Postprocessor, softmax
from edgevid.preprocess import Preprocessor
from edgevid.quiet import captured
from edgevid.window import parse_window
from edgevid_convert.frames import Clip
from edgevid_convert.loading.model import FrozenModel
from edgevid_convert.parity import Scores, compare

__all__ = ["float_preprocessor", "input_tensors", "keras_answers", "proven", "takes_batches", "variant_answers"]

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
    parity = compare(reference, candidate, spacings, window, data, manifest.output.activation)
    if not np.isfinite(parity.max_abs_error):
        raise ModelError(f"{variant.id}: it answers with something that is no number; leave it out with --precision")
    return msgspec.structs.replace(variant, parity=parity)


def keras_answers(model: FrozenModel, manifest: Manifest, clip: Clip) -> Scores:
    """Return what the Keras model itself answers to a clip: probabilities, float32 (frames, classes)."""
    preprocessor = float_preprocessor(manifest.input, manifest.preprocessing)
    answers = np.concatenate([model(tensor) for tensor in input_tensors(clip.frames, preprocessor)])
    return softmax(answers) if model.activation == "logits" else answers


@contextmanager
def variant_answers(bundle: Bundle, variant: Variant) -> Iterator[Callable[[Clip], Scores]]:
    """Load a variant, and yield what it answers to a clip: probabilities, float32 (frames, classes)."""
    manifest = bundle.manifest
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    postprocess = Postprocessor(manifest.output, variant.output)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    with load_backend(name, bundle, variant) as backend:

        def answers(clip: Clip) -> Scores:
            rows = np.empty((len(clip.frames), manifest.output.classes), np.float32)
            for row, pixels in zip(rows, clip.frames, strict=True):
                preprocessor.encode(pixels, backend.input)
                row[:] = postprocess(backend.infer())
            return rows

        yield answers


def takes_batches(bundle: Bundle, variant: Variant, clips: Sequence[Clip]) -> bool:
    """Return whether a variant answers to several frames at once as it does to each alone."""
    frames = [pixels for clip in clips for pixels in clip.frames][:BATCH]
    manifest, postprocess = bundle.manifest, Postprocessor(bundle.manifest.output, variant.output)
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    together = BackendOptions(batch=len(frames))
    freed = msgspec.structs.replace(variant, free_batch=True)
    with variant_answers(bundle, variant) as answers:
        expected = answers(Clip(frames))
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


def input_tensors(frames: Sequence[npt.NDArray[np.uint8]], preprocessor: Preprocessor) -> list[npt.NDArray[np.float32]]:
    """Return the input tensor, float32 (1, height, width, channels), of each frame in the model's size."""
    tensors = []
    for pixels in frames:
        tensor = np.empty((1, *pixels.shape), np.float32)
        preprocessor.encode(pixels, tensor)
        tensors.append(tensor)
    return tensors

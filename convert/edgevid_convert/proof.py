"""Proves variants against the Keras model, through the same preprocessing and backends as on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.backends import choose_backend, load_backend
from edgevid.bundle import Bundle
from edgevid.errors import ModelError
from edgevid.manifest import InputSpec, Manifest, Preprocessing, Tensor, Variant
from edgevid.postprocess import Postprocessor, softmax
from edgevid.preprocess import Preprocessor
from edgevid_convert.frames import Clip
from edgevid_convert.loading import TracedModel
from edgevid_convert.parity import Scores, compare
from edgevid_convert.variants import Progress

__all__ = ["float_preprocessor", "input_tensors", "proven"]


def proven(bundle: Bundle, model: TracedModel, clips: Sequence[Clip], progress: Progress) -> Manifest:
    """Return the manifest with every variant's parity, measured through the runtime's own backends."""
    manifest = bundle.manifest
    spacings = [clip.spacing for clip in clips]
    data: Literal["held-out", "noise"] = "held-out" if manifest.calibration else "noise"
    progress("asking the Keras model", 0, None)
    preprocessor = float_preprocessor(manifest.input, manifest.preprocessing)
    reference = [
        _probabilities(np.concatenate([model(tensor) for tensor in input_tensors(clip.frames, preprocessor)]), model)
        for clip in clips
    ]
    with_parity = []
    for index, variant in enumerate(manifest.variants):
        progress(f"comparing {variant.id} with Keras", index, len(manifest.variants))
        candidate = [_answers(bundle, variant, clip) for clip in clips]
        parity = compare(reference, candidate, spacings, manifest.smoothing.window, data, model.activation)
        if not np.isfinite(parity.max_abs_error):
            raise ModelError(
                f"{variant.id}: it answers with something that is no number; leave it out with --precision"
            )
        with_parity.append(msgspec.structs.replace(variant, parity=parity))
    return msgspec.structs.replace(manifest, variants=tuple(with_parity))


def _answers(bundle: Bundle, variant: Variant, clip: Clip) -> Scores:
    """Return what a variant answers to a clip: probabilities, float32 (frames, classes)."""
    manifest = bundle.manifest
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    postprocess = Postprocessor(manifest.output, variant.output)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    answers = np.empty((len(clip.frames), manifest.output.classes), np.float32)
    with load_backend(name, bundle, variant) as backend:
        for row, pixels in zip(answers, clip.frames, strict=True):
            preprocessor.encode(pixels, backend.input)
            row[:] = postprocess(backend.infer())
    return answers


def _probabilities(answers: Scores, model: TracedModel) -> Scores:
    return softmax(answers) if model.activation == "logits" else answers


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

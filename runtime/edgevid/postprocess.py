"""From a backend's output tensor to class probabilities: dequantize, then apply what the model left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.manifest import OutputSpec, Tensor

__all__ = ["Postprocessor", "softmax"]


class Postprocessor:
    """Turns raw outputs of one variant into probabilities.

    A softmax or sigmoid that is inside the model is left alone; logits get a softmax here. Where there is no
    ``output_spec``, the outputs are no class scores but features, and stay what they are.
    """

    def __init__(self, output_spec: OutputSpec | None, tensor: Tensor) -> None:
        self._softmax_missing = output_spec is not None and output_spec.activation == "logits"
        self._tensor = tensor

    def __call__(self, raw: npt.NDArray[Any], out: Probabilities | None = None) -> Probabilities:
        """Return probabilities, float32 of shape (classes,), for a raw output of shape (classes,) or (1, classes).

        They are written into ``out``, if given; they are never the backend's own memory.
        """
        values: npt.NDArray[Any] = raw.reshape(-1)
        probabilities = np.empty(values.shape, np.float32) if out is None else out
        np.copyto(probabilities, values)
        if self._tensor.quantized:  # exact in float32: the difference of two bytes has 9 bits
            probabilities -= np.float32(self._tensor.zero_point)
            probabilities *= np.float32(self._tensor.scale)
        return softmax(probabilities, probabilities) if self._softmax_missing else probabilities


def softmax(logits: Probabilities, out: Probabilities | None = None) -> Probabilities:
    """Return the softmax of float32 ``logits`` over the last axis, safe against overflow, in ``out`` if given."""
    probabilities: Probabilities = np.subtract(logits, logits.max(axis=-1, keepdims=True), out=out)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities

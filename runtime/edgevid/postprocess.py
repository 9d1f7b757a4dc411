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

    A softmax or sigmoid that is inside the model is left alone; logits get a softmax here.
    """

    def __init__(self, output_spec: OutputSpec, tensor: Tensor) -> None:
        self._softmax_missing = output_spec.activation == "logits"
        self._tensor = tensor

    def __call__(self, raw: npt.NDArray[Any]) -> Probabilities:
        """Return probabilities, float32 of shape (classes,), for a raw output of shape (classes,) or (1, classes)."""
        values: npt.NDArray[Any] = raw.reshape(-1)
        if self._tensor.quantized:
            # Subtracted in a wide type: int8 − zero point does not fit int8.
            values = (values.astype(np.int32) - self._tensor.zero_point) * np.float32(self._tensor.scale)
        values = np.array(values, np.float32)  # a copy: the backend may write over its own array at any time
        return softmax(values) if self._softmax_missing else values


def softmax(logits: Probabilities) -> Probabilities:
    """Return the softmax of float32 ``logits`` over the last axis, safe against overflow."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: npt.NDArray[Any] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities.astype(np.float32, copy=False)

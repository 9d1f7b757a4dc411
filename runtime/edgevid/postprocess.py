"""From a backend's output tensor to class probabilities: dequantize, then apply what the model left out."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.manifest import OutputSpec, Tensor

__all__ = ["Postprocessor", "probabilities_of", "softmax"]


class Postprocessor:
    """Turns raw outputs of one variant into probabilities.

    A softmax or sigmoid that is inside the model is left alone; logits get one here. The one score p of a binary model
    becomes two, 1 − p and p. Where there is no ``output_spec``, the outputs are no class scores but features, and stay
    what they are.

    Attributes:
        size: how many values it returns.
    """

    def __init__(self, output_spec: OutputSpec | None, tensor: Tensor) -> None:
        self._logits = output_spec is not None and output_spec.activation == "logits"
        self._binary = output_spec is not None and output_spec.binary
        self._tensor = tensor
        self.size = 2 if self._binary else prod(tensor.shape[1:])

    def __call__(self, raw: npt.NDArray[Any], out: Probabilities | None = None) -> Probabilities:
        """Return probabilities, float32 of shape (classes,), for a raw output of shape (classes,) or (1, classes).

        They are written into ``out``, if given; they are never the backend's own memory.
        """
        probabilities = np.empty(self.size, np.float32) if out is None else out
        values = probabilities[1:] if self._binary else probabilities
        np.copyto(values, raw.reshape(-1))
        if self._tensor.quantized:  # exact in float32: the difference of two bytes has 9 bits
            values -= np.float32(self._tensor.zero_point)
            values *= np.float32(self._tensor.scale)
        if self._logits:
            (sigmoid if self._binary else softmax)(values, values)
        if self._binary:
            np.subtract(1, values, out=probabilities[:1])
        return probabilities


def probabilities_of(scores: Probabilities, output_spec: OutputSpec) -> Probabilities:
    """Return class probabilities, float32 (n, classes), of a float model's own scores, float32 (n, units)."""
    if output_spec.activation == "logits":
        scores = sigmoid(scores) if output_spec.binary else softmax(scores)
    return np.concatenate([1 - scores, scores], axis=-1) if output_spec.binary else scores


def softmax(logits: Probabilities, out: Probabilities | None = None) -> Probabilities:
    """Return the softmax of float32 ``logits`` over the last axis, safe against overflow, in ``out`` if given."""
    probabilities: Probabilities = np.subtract(logits, logits.max(axis=-1, keepdims=True), out=out)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: Probabilities, out: Probabilities | None = None) -> Probabilities:
    """Return the sigmoid of float32 ``logits``, safe against overflow, in ``out`` if given."""
    probabilities: Probabilities = np.multiply(logits, 0.5, out=out)
    np.tanh(probabilities, out=probabilities)  # of half as much: the same curve, and it cannot overflow
    probabilities *= 0.5
    probabilities += 0.5
    return probabilities

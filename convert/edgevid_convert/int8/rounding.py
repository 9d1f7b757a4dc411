"""Weights to integers: the columns in turn, each one's rounding error made up for by the columns still to come.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv:2210.17323), which rounds as Optimal Brain Surgeon prunes; here for groups of convolution channels, and with the
target moved to what the float model answers (as in Li et al. 2025, "GPTAQ", arXiv:2504.02692).
"""

from __future__ import annotations

import numpy as np

from edgevid_convert.int8.layers import Array

__all__ = ["LARGEST_FAN_IN", "least_squares", "rounded", "rounded_to_nearest", "steps"]

LEVELS = 127  # of int8 weights, which are symmetric about 0
LARGEST_FAN_IN = 6000  # a square matrix of this side is factored
DAMPING = 0.1  # of the mean curvature: how much the calibration frames are not believed
BLOCK = 64  # columns whose errors reach the rest of the matrix together


def steps(weights: Array) -> Array:
    """Return the size of one integer step, (groups, outputs, 1), as the converters choose it: largest weight ÷ 127."""
    largest: Array = np.maximum(np.abs(weights).max(axis=2, keepdims=True), 1e-12)
    return largest / LEVELS


def rounded_to_nearest(weights: Array) -> Array:
    """Return (groups, outputs, fan-in) weights, each at the nearest multiple of its output's step."""
    step = steps(weights)
    return np.rint(weights / step) * step


def least_squares(inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return the curvature of the squared error, (groups, fan-in, fan-in), and its slope at weights of 0.

    Args:
        inputs: (groups, samples, fan-in), of mean 0 over the samples.
        targets: (groups, samples, outputs), likewise.
    """
    transposed = inputs.transpose(0, 2, 1)
    curvature = (transposed @ inputs).astype(np.float64) / inputs.shape[1]
    mean = np.einsum("gii->gi", curvature).mean(axis=1)
    curvature += (DAMPING * mean + 1e-12)[:, None, None] * np.eye(curvature.shape[1])
    return curvature, (transposed @ targets).astype(np.float64) / inputs.shape[1]


def rounded(weights: Array, curvature: Array) -> Array:
    """Return weights at multiples of each output's step, so that the layer's squared error is small.

    The largest weight of each output stays the largest, since the converters derive the step from it.

    Args:
        weights: (groups, outputs, fan-in).
        curvature: (groups, fan-in, fan-in), positive definite.
    """
    groups, outputs, fan_in = weights.shape
    step = steps(weights)[:, :, 0]
    # The columns that matter most first, while all others can still make up for them.
    order = np.argsort(-np.einsum("gii->i", curvature)) if groups == 1 else np.arange(fan_in)
    weights, curvature = weights[:, :, order].copy(), curvature[:, order][:, :, order]
    largest = np.abs(weights).argmax(axis=2)
    inverse = np.linalg.cholesky(np.linalg.inv(curvature)).transpose(0, 2, 1)
    result = np.empty_like(weights)
    for start in range(0, fan_in, BLOCK):
        end = min(start + BLOCK, fan_in)
        errors = np.empty((groups, outputs, end - start))
        for column in range(start, end):
            value = weights[:, :, column]
            integer = np.clip(np.rint(value / step), -LEVELS, LEVELS)
            integer = np.where(largest == column, np.where(value < 0, -LEVELS, LEVELS), integer)
            result[:, :, column] = integer * step
            error = (value - result[:, :, column]) / inverse[:, column, column, None]
            errors[:, :, column - start] = error
            weights[:, :, column + 1 : end] -= error[:, :, None] * inverse[:, None, column, column + 1 : end]
        weights[:, :, end:] -= errors @ inverse[:, start:end, end:]
    return result[:, :, np.argsort(order)]

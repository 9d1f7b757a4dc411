"""Whether the numbers a model is given are those it was trained on: what is surely wrong, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgevid.arrays import Image
from edgevid.errors import UsageError
from edgevid.manifest import InputSpec, Preprocessing
from edgevid_convert.first_layers import FirstLayers, InnerMap
from edgevid_convert.loading.model import Statistics
from edgevid_convert.options import ConvertOptions
from edgevid_convert.preprocessing import PLAIN
from edgevid_convert.proof import float_preprocessor, input_tensors

__all__ = ["check_input"]

TINY_SPAN = 0.3  # of a channel at the first convolution; the least that anybody trains on is 1, from 0 to 1
FRAMES_LOOKED_AT = 24
# Of the divergence that FirstLayers measures. On the sample model and its clips the right preprocessing gave 0.04 to
# 0.12, torch and 0-1 gave 0.5 to 0.9, and caffe and grey levels as they are gave thousands.
SUSPICIOUS_DIVERGENCE, TIMES_BETTER = 0.25, 4.0
CANDIDATES = ("none", "0-1", "tf", "torch", "caffe")
SUGGESTIONS = "tf (−1 to 1), 0-1, torch or caffe, or keras:NAME of the application it was made from"


def check_input(
    options: ConvertOptions,
    layers: FirstLayers,
    seen: Statistics | None,
    spec: InputSpec,
    steps: Preprocessing,
    frames: Sequence[Image],
) -> tuple[str, ...]:
    """Return remarks on the preprocessing that was asked for, a line each.

    Args:
        options: what was asked for.
        layers: the model's first ones.
        seen: what they saw in training, as far as they tell.
        spec: the image that the model takes.
        steps: the preprocessing that follows from ``options``.
        frames: real ones, in the model's size and colour order; may be none.

    Raises:
        UsageError: the model normalizes by itself, and would get what is already normalized.
    """
    inner = layers.inner_map()
    asked = f"--preprocess {options.preprocess}" if options.preprocess else "--mean/--std"
    asked_nothing = options.preprocess is None and options.mean is None and options.std is None
    if options.insist and asked_nothing:
        raise UsageError(
            "--insist: there is nothing to insist on; give --preprocess, or --mean and --std, or leave it out"
        )
    fit = _fit(layers, seen, spec, steps, frames) if frames and seen else None
    remarks = []
    if max(steps.std) < 1:
        remarks.append("--std looks meant for pixels of 0–1, and here they are 0–255: multiply --mean and --std by 255")
    if inner.normalizes and not options.normalization.identity and not (fit and fit.right):
        remarks.append(_normalized_twice(asked, inner, steps, fit, insist=options.insist))
    elif fit and not fit.right:
        remarks.append(
            f"the preprocessing looks wrong: --preprocess {fit.best} fits much better what the model's first batch "
            f"normalization saw in training (divergence {fit.of_best:.2g}, with the one given {fit.of_given:.2g})"
        )
    elif asked_nothing and not inner.normalizes and not fit:
        remarks.append(
            "the model gets grey levels 0–255 as they are, and does not bring them to small numbers itself: if it was "
            f"trained on others, give --preprocess, most likely {SUGGESTIONS}; else --preprocess none"
        )
    return tuple(remarks)


@dataclass(frozen=True)
class _Fit:
    """How well preprocessing fits what the first batch normalization saw in training.

    Attributes:
        of_given: the divergence with the one that was asked for.
        best, of_best: the best of the usual ones, by its name, and its divergence.
    """

    of_given: float
    best: str
    of_best: float

    @property
    def right(self) -> bool:
        """Whether no other fits much better than the one that was asked for."""
        return self.of_given < max(SUSPICIOUS_DIVERGENCE, TIMES_BETTER * self.of_best)


def _normalized_twice(asked: str, inner: InnerMap, steps: Preprocessing, fit: _Fit | None, *, insist: bool) -> str:
    """Return a remark on two normalizations, one after the other; refuse them if next to nothing is left.

    A model that was trained on pictures of 0 to 1 and divides them by 255 again is a common mistake, and trains all the
    same: only what its layers saw in training tells it from preprocessing that was asked for in vain.
    """
    mean, std = np.array(steps.mean), np.array(steps.std)
    low, high = inner.range_of((0 - mean) / std, (255 - mean) / std)
    what = (
        f"the model normalizes by itself, as {inner}, after {asked}: values from {low:.3g} to {high:.3g} reach its "
        "first convolution"
    )
    if (255 / std * np.abs(inner.scale)).max() >= TINY_SPAN:
        return f"{what}; if that is not how it was trained, use --preprocess none"
    if insist:
        return f"{what}, as --insist has it"
    if fit:
        raise UsageError(
            f"{asked}: {what}, and --preprocess {fit.best} fits much better what its first batch normalization saw in "
            f"training (divergence {fit.of_best:.2g}, with the one given {fit.of_given:.2g}); use --preprocess "
            f"{fit.best}, or add --insist"
        )
    raise UsageError(
        f"{asked}: {what}; if its training got grey levels 0–255, use --preprocess none; if its training got pictures "
        f"normalized by {asked}, add --insist"
    )


def _fit(
    layers: FirstLayers, seen: Statistics, spec: InputSpec, steps: Preprocessing, frames: Sequence[Image]
) -> _Fit | None:
    """Return how well the preprocessing fits the first batch normalization; None where that is gone."""
    chosen = frames[:: -(-len(frames) // FRAMES_LOOKED_AT)]

    def divergence(mean: tuple[float, ...], std: tuple[float, ...]) -> float | None:
        other = Preprocessing(mean=mean, std=std)
        return layers.divergence(seen, input_tensors(chosen, float_preprocessor(spec, other)))

    given = divergence(steps.mean, steps.std)
    if given is None:
        return None
    found = {}
    for name in CANDIDATES:
        named = PLAIN[name].in_order(spec.color) if spec.channels == 3 else PLAIN[name]
        if {len(named.mean), len(named.std)} <= {1, spec.channels}:
            repeated = [values * (spec.channels // len(values)) for values in (named.mean, named.std)]
            found[name] = divergence(*repeated) or 0.0
    best = min(found, key=lambda name: found[name])
    return _Fit(given, best, found[best])

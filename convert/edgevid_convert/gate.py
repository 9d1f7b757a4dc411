"""The gate: a variant that loses more of the Keras model than ``--max-drop`` allows is rejected, not run unasked."""

from __future__ import annotations

import msgspec

from edgevid.bundle import Bundle
from edgevid.errors import BundleError, GateError
from edgevid.manifest import Manifest, Parity, Variant

__all__ = ["ENOUGH_FRAMES", "QUANTIZED", "check_gate", "choice", "gated", "passes", "unproven"]

# Distinct ones, that a quantized variant is judged by. Of eight that all agree, the share of all frames that would is
# above 69 % (with 95 % confidence, 0.05 ** (1 / 8)); of two it is above 22 %.
ENOUGH_FRAMES = 8
QUANTIZED = frozenset({"int8", "int8-full", "dynamic-int8"})
UNPROVEN = "is not proven: "
WORST_NAMED = 3


def passes(parity: Parity, max_drop: float) -> bool:
    """Return whether a variant with this parity keeps enough of the Keras model's smoothed labels."""
    return 1 - parity.smoothed_agreement <= max_drop + 1e-9


def gated(manifest: Manifest, variant: Variant) -> Variant:
    """Return the variant, rejected if it falls short: by accuracy where there were labels, else by agreement.

    Nor does a quantized one pass that was judged by too few frames, unless it may lose everything.
    On noise nothing is rejected: it says nothing of what a camera will see.
    """
    parity, accuracy, of_keras = variant.parity, variant.accuracy, manifest.keras_accuracy
    rejected = None
    if variant.precision in QUANTIZED and manifest.max_drop < 1 and (few := _too_few(manifest, variant)):
        rejected = f"{UNPROVEN}{few}"
    elif accuracy and of_keras:
        drop = of_keras.smoothed_accuracy - accuracy.smoothed_accuracy
        if drop > manifest.max_drop + 1e-9:
            rejected = f"is {drop:.1%} less accurate than the Keras model, with --max-drop {manifest.max_drop:g}"
    elif parity and parity.data == "held-out" and not passes(parity, manifest.max_drop):
        rejected = (
            f"loses {1 - parity.smoothed_agreement:.1%} of the smoothed labels, with --max-drop {manifest.max_drop:g}"
        )
    return msgspec.structs.replace(variant, rejected=rejected)


def unproven(variant: Variant) -> bool:
    """Return whether a variant was rejected for want of frames, so that no other file in its place could pass."""
    return variant.rejected is not None and variant.rejected.startswith(UNPROVEN)


def _too_few(manifest: Manifest, variant: Variant) -> str | None:
    """Return by how few frames a variant was judged, and the remedy; None where they are enough, or noise."""
    calibration = manifest.calibration
    if variant.accuracy:
        count, what, remedy = variant.accuracy.frames, "labelled frame", "add some to --eval"
    elif calibration and calibration.distinct_held_out is not None:
        what = "distinct window" if manifest.takes_windows else "distinct frame"
        count, remedy = calibration.distinct_held_out, "add more varied --calib"
    else:
        return None
    if count >= ENOUGH_FRAMES:
        return None
    return f"only {count} {what}{'s' * (count != 1)} to judge by; expected {ENOUGH_FRAMES} or more, {remedy}"


def choice(bundle: Bundle) -> str:
    """Return which variant ``run`` takes of a bundle when none is named, and why, for reading."""
    formats = tuple(dict.fromkeys(variant.format for variant in bundle.manifest.variants))
    try:
        chosen = bundle.preferred(formats)
    except BundleError:
        return "run takes none of them unless --variant names one: every one was rejected"
    parity = chosen.parity
    measured = chosen.accuracy is not None or (parity is not None and parity.data == "held-out")
    why = "the fastest kind that passed the gate" if measured else "the fastest kind; none was judged on real frames"
    return f"run takes {chosen.id}: {why}"


def check_gate(bundle: Bundle, precisions: tuple[str, ...]) -> None:
    """Check that each precision that was asked for by name has a variant that passed.

    Raises:
        GateError: one has none; with the layers that lose the most, and what to try.
    """
    for precision in precisions:
        asked = [variant for variant in bundle.manifest.variants if variant.precision == precision]
        if asked and all(variant.rejected for variant in asked):
            reasons = "; ".join(f"{variant.id} {variant.rejected}" for variant in asked)
            raise GateError(
                f"--precision {precision}: no variant passed the gate ({reasons}). {_worst_layers(asked)}"
                "Try more varied --calib, a longer --search-minutes, or a wider --max-drop"
            )


def _worst_layers(variants: list[Variant]) -> str:
    for variant in variants:
        if variant.search and variant.search.sensitivity:
            worst = sorted(variant.search.sensitivity, key=lambda one: -one.loss)[:WORST_NAMED]
            return f"The most sensitive layers: {', '.join(one.layer for one in worst)}. "
    return ""

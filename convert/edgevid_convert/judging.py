"""Judges the variants of a bundle: parity with the Keras model, accuracy on labelled frames, and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from edgevid.bundle import Bundle
from edgevid.manifest import Accuracy, Manifest, Variant
from edgevid.window import parse_window
from edgevid_convert.evaluation import LabelledClip, measure_accuracy
from edgevid_convert.frames import Clip
from edgevid_convert.gate import gated
from edgevid_convert.loading.model import FrozenModel
from edgevid_convert.parity import Scores
from edgevid_convert.proof import keras_answers, proven, variant_answers

__all__ = ["Judging", "keras_accuracy"]


@dataclass(frozen=True)
class Judging:
    """What variants are judged by.

    Attributes:
        bundle: where their files are; its manifest has the Keras model's accuracy, if there are labels.
        clips: held-out frames, or noise where there are none.
        reference: what the Keras model answers to each of these clips.
        labelled: clips of which the truth is known; may be none.
    """

    bundle: Bundle
    clips: Sequence[Clip]
    reference: Sequence[Scores]
    labelled: Sequence[LabelledClip]

    def judged(self, variant: Variant) -> Variant:
        """Return the variant with its parity and its accuracy, and rejected if it misses the gate.

        Raises:
            ModelError: it answers with something that is no number.
        """
        result = proven(self.bundle, variant, self.reference, self.clips)
        if self.labelled:
            with variant_answers(self.bundle, variant) as answers:
                rows = [answers(each.clip) for each in self.labelled]
            result = msgspec.structs.replace(result, accuracy=_accuracy(rows, self.labelled, self.bundle))
        return gated(self.bundle.manifest, result)


def keras_accuracy(bundle: Bundle, model: FrozenModel, labelled: Sequence[LabelledClip]) -> Manifest:
    """Return the bundle's manifest with the Keras model's own accuracy; as it is, where nothing is labelled."""
    if not labelled:
        return bundle.manifest
    rows = [keras_answers(model, bundle.manifest, each.clip) for each in labelled]
    return msgspec.structs.replace(bundle.manifest, keras_accuracy=_accuracy(rows, labelled, bundle))


def _accuracy(rows: Sequence[Scores], labelled: Sequence[LabelledClip], bundle: Bundle) -> Accuracy:
    window = parse_window(bundle.manifest.smoothing.window).frames
    return measure_accuracy(rows, labelled, bundle.labels, window)

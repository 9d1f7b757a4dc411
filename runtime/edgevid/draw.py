"""Labels on frames: one bar at the bottom, its text sized to the frame."""

from __future__ import annotations

import cv2
import numpy as np

from edgevid.arrays import Image
from edgevid.smoothing import Prediction

__all__ = ["annotate"]

# OpenCV's built-in variable font, with Latin, Greek, Cyrillic and the common CJK characters.
FONT = cv2.FontFace("sans")
MIN_TEXT_PX = 13
TEXT_SHARE = 1 / 18  # of the frame's height
WEIGHT = 600
WHITE = (255, 255, 255)
BAR_TRANSPARENCY = 0.35  # how much of the picture shows through the bar


def annotate(image: Image, prediction: Prediction, out: Image | None = None) -> Image:
    """Return a copy of ``image`` with the smoothed label and its score along the bottom.

    Args:
        image: uint8 of shape (height, width, 3), BGR.
        prediction: what to write.
        out: where to, of the same shape; a new array without it, which at 720p takes most of the time.
    """
    annotated = np.empty_like(image) if out is None else out
    np.copyto(annotated, image)
    height, width = image.shape[:2]
    size = max(MIN_TEXT_PX, round(height * TEXT_SHARE))
    score = f"{prediction.score:.0%}"
    padding = max(3, size // 3)
    score_width = _text_width(score, size)
    label = _shortened(prediction.label, size, width - score_width - 3 * padding)
    bar = annotated[max(0, height - size - 2 * padding) :]
    cv2.convertScaleAbs(bar, bar, alpha=BAR_TRANSPARENCY)
    baseline = height - padding - size // 6
    cv2.putText(annotated, label, (padding, baseline), WHITE, FONT, size, WEIGHT)
    cv2.putText(annotated, score, (width - score_width - padding, baseline), WHITE, FONT, size, WEIGHT)
    return annotated


def _text_width(text: str, size: int) -> int:
    box = cv2.getTextSize((0, 0), text, (0, 0), FONT, size, WEIGHT)
    return int(box[2])


def _shortened(text: str, size: int, width: int) -> str:
    """Return ``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"

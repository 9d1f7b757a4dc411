"""Labels on frames: one bar at the bottom, its text sized to the frame."""

from __future__ import annotations

import cv2
import numpy as np

from edgevid.arrays import Image
from edgevid.smoothing import Prediction

__all__ = ["annotate"]

# OpenCV 5's built-in variable font, with Latin, Greek, Cyrillic and the common CJK characters. OpenCV 4, which is what
# goes with tflite-runtime, has strokes for ASCII only.
FONT = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
STROKES = cv2.FONT_HERSHEY_SIMPLEX
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
    _write(annotated, label, (padding, baseline), size)
    _write(annotated, score, (width - score_width - padding, baseline), size)
    return annotated


def _write(image: Image, text: str, origin: tuple[int, int], size: int) -> None:
    if FONT is None:
        cv2.putText(image, text, origin, STROKES, _scale(size), WHITE, 1, cv2.LINE_AA)
    else:
        cv2.putText(image, text, origin, WHITE, FONT, size, WEIGHT)


def _text_width(text: str, size: int) -> int:
    if FONT is None:
        (width, _), _ = cv2.getTextSize(text, STROKES, _scale(size), 1)
        return int(width)
    box = cv2.getTextSize((0, 0), text, (0, 0), FONT, size, WEIGHT)
    return int(box[2])


def _scale(size: int) -> float:
    """Return the scale of the strokes whose capitals are as high as those of the font at a size in pixels."""
    return cv2.getFontScaleFromHeight(STROKES, max(1, round(0.7 * size)))


def _shortened(text: str, size: int, width: int) -> str:
    """Return ``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"

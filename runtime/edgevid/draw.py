"""Labels on frames: one bar at the bottom, its text sized to the frame."""

from __future__ import annotations

import cv2
import numpy as np

from edgevid.arrays import Image, Plane
from edgevid.smoothing import Prediction

__all__ = ["annotate", "annotate_planes"]

# OpenCV 5's built-in variable font, with Latin, Greek, Cyrillic and the common CJK characters. OpenCV 4, which is what
# goes with tflite-runtime, has strokes for ASCII only.
FONT = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
STROKES = cv2.FONT_HERSHEY_SIMPLEX
MIN_TEXT_PX = 13
TEXT_SHARE = 1 / 18  # of the frame's height
WEIGHT = 600
WHITE = (255, 255, 255)
LUMA_WHITE = (235, 235, 235)  # in video; 255 there is whiter than white
CHROMA_ZERO = 128
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
    bar = annotated[-_bar_height(len(image)) :]
    cv2.convertScaleAbs(bar, bar, alpha=BAR_TRANSPARENCY)
    _write(bar, prediction, len(image), WHITE)
    return annotated


def annotate_planes(y: Plane, u: Plane, v: Plane, prediction: Prediction) -> None:
    """Draw the smoothed label and its score along the bottom of a YUV 4:2:0 picture, in place.

    The bar has no colour, so that white is white on it.

    Args:
        y: luma, uint8 of shape (height, width).
        u: blue-difference chroma, of half its height and width.
        v: red-difference chroma, likewise.
        prediction: what to write.
    """
    height = _bar_height(len(y))
    bar = y[-height:]
    cv2.convertScaleAbs(bar, bar, alpha=BAR_TRANSPARENCY)
    for chroma in (u, v):
        chroma[-(height // 2) :] = CHROMA_ZERO
    _write(bar, prediction, len(y), LUMA_WHITE)


def _bar_height(height: int) -> int:
    """Return the bar's height in a frame of that height: even, as chroma has half the rows."""
    size = _text_size(height)
    return min(height, (size + 2 * _padding(size) + 1) // 2 * 2)


def _text_size(height: int) -> int:
    return max(MIN_TEXT_PX, round(height * TEXT_SHARE))


def _padding(size: int) -> int:
    return max(3, size // 3)


def _write(bar: Image | Plane, prediction: Prediction, frame_height: int, color: tuple[int, int, int]) -> None:
    """Write the label on the left of a bar, and the score on its right."""
    size = _text_size(frame_height)
    padding, width = _padding(size), bar.shape[1]
    score = f"{prediction.score:.0%}"
    score_width = _text_width(score, size)
    names = ", ".join(label for label, _ in prediction.holding) or prediction.label
    label = _shortened(names, size, width - score_width - 3 * padding)
    baseline = len(bar) - padding - size // 6
    for text, left in ((label, padding), (score, width - score_width - padding)):
        if FONT is None:
            cv2.putText(bar, text, (left, baseline), STROKES, _scale(size), color, 1, cv2.LINE_AA)
        else:
            cv2.putText(bar, text, (left, baseline), color, FONT, size, WEIGHT)


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

"""Labels on frames: one bar at the bottom, its text sized to the frame."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

import cv2
import numpy as np

from edgevid import fonts
from edgevid.arrays import Image, Plane
from edgevid.smoothing import Prediction

__all__ = ["annotate", "annotate_planes", "undrawable"]

# OpenCV 5's built-in variable font, with Latin, Greek, Cyrillic and the common CJK characters. OpenCV 4, which is what
# goes with tflite-runtime, has strokes for ASCII only. What neither can draw as it is written is left to `fonts.py`.
FONT = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
STROKES = cv2.FONT_HERSHEY_SIMPLEX
ELLIPSIS = "..." if FONT is None else "…"
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
    room = width - score_width - 3 * padding
    baseline = len(bar) - padding - size // 6
    if _opencv_draws(names):
        _put(bar, _shortened(names, size, room), padding, baseline, color, size)
    else:
        letters = _lettering(names, size, room, len(bar), baseline, color[0])
        part = bar[:, padding : padding + letters.shape[1]]
        letters = letters[:, : part.shape[1]]
        np.maximum(part, letters if part.ndim == 2 else letters[:, :, None], out=part)
    _put(bar, score, width - score_width - padding, baseline, color, size)


def undrawable(labels: Iterable[str]) -> str | None:
    """Return which labels cannot be drawn, and what to do about it; None if all can."""
    return fonts.complaint(labels, _opencv_draws)


@lru_cache(maxsize=256)
def _lettering(text: str, size: int, room: int, height: int, baseline: int, white: int) -> Plane:
    """Return a text of many scripts on black, cut to a width: uint8 of shape (height, width)."""
    cut = _shortened(unicodedata.normalize("NFC", text), size, room)
    pieces = []
    for run in fonts.runs_of(cut, _opencv_draws):
        if run.font is None:
            piece = np.zeros((height, max(1, _run_width(run, size))), np.uint8)
            _put(piece, run.text, 0, baseline, WHITE, size)
        else:
            piece = fonts.render(run, size, height, baseline)
        pieces.append(piece)
    return cv2.convertScaleAbs(np.concatenate(pieces, axis=1), alpha=white / 255).astype(np.uint8, copy=False)


@lru_cache(maxsize=4096)
def _opencv_draws(text: str) -> bool:
    """Return whether OpenCV draws a text as it is written: it joins no letters, and for those it lacks draws ``?``."""
    if text.isascii():
        return True
    return FONT is not None and fonts.is_simple(text) and not any(_is_lacking(letter) for letter in text)


@cache
def _is_lacking(letter: str) -> bool:
    drawn = []
    for shown in (letter, "?"):
        canvas = np.zeros((2 * MIN_TEXT_PX, 2 * MIN_TEXT_PX), np.uint8)
        _put(canvas, shown, 2, 2 * MIN_TEXT_PX - 8, WHITE, MIN_TEXT_PX)
        drawn.append(canvas)
    return not letter.isspace() and letter != "?" and bool((drawn[0] == drawn[1]).all())


def _put(bar: Image | Plane, text: str, left: int, baseline: int, color: tuple[int, int, int], size: int) -> None:
    if FONT is None:
        cv2.putText(bar, text, (left, baseline), STROKES, _scale(size), color, 1, cv2.LINE_AA)
    else:
        cv2.putText(bar, text, (left, baseline), color, FONT, size, WEIGHT)


def _text_width(text: str, size: int) -> int:
    if not _opencv_draws(text):
        return sum(_run_width(run, size) for run in fonts.runs_of(text, _opencv_draws))
    return _run_width(fonts.TextRun(text, None), size)


def _run_width(run: fonts.TextRun, size: int) -> int:
    if run.font is not None:
        return fonts.run_width(run, size)
    if FONT is None:
        (width, _), _ = cv2.getTextSize(run.text, STROKES, _scale(size), 1)
        return int(width)
    box = cv2.getTextSize((0, 0), run.text, (0, 0), FONT, size, WEIGHT)
    return int(box[2])


def _scale(size: int) -> float:
    """Return the scale of the strokes whose capitals are as high as those of the font at a size in pixels."""
    return cv2.getFontScaleFromHeight(STROKES, max(1, round(0.7 * size)))


@lru_cache(maxsize=256)
def _shortened(text: str, size: int, width: int) -> str:
    """Return ``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + ELLIPSIS, size) > width:
        text = text[:-1]
    return text + ELLIPSIS

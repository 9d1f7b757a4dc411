"""Text that OpenCV cannot draw: letters found in the fonts of this machine, and joined and ordered by Pillow."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgevid.arrays import Plane

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["TextRun", "complaint", "is_simple", "render", "run_width", "runs_of"]

FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
OTHER_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
SUFFIXES = (".ttf", ".otf", ".ttc")
# Of Unicode: marks on other letters, and what is not seen.
JOINED = frozenset({"Mn", "Mc", "Me", "Cf"})
JOINER = "\u200d"
RIGHT_TO_LEFT = frozenset({"R", "AL"})
PROBE_PX = 24
NOWHERE = "\U0010fffe"  # no font has it

Drawable = Callable[[str], bool]


class TextRun(NamedTuple):
    """Letters next to each other that are drawn with one font: a file, or OpenCV's, if None."""

    text: str
    font: str | None


def is_simple(cluster: str) -> bool:
    """Return whether letters stand one after the other, from left to right, each by itself."""
    return not any(unicodedata.category(letter) in JOINED or _runs_left(letter) for letter in cluster)


def runs_of(text: str, drawable: Drawable) -> list[TextRun]:
    """Return a text in runs, as they follow each other on the screen.

    Args:
        text: a line of it.
        drawable: tells whether OpenCV draws a letter right; what neither it nor a font has is left to it all the same.
    """
    if not drawable(text) and (whole := _font_with("".join(sorted(set(text))))):
        return [TextRun(text, whole)]
    clusters = _clusters(text)
    fonts: list[str | None] = []
    for cluster in clusters:
        before = fonts[-1] if fonts else None
        if drawable(cluster):
            # Spaces, digits and the like go with the letters before them, so that those are ordered with them.
            goes_along = before and not cluster.isalpha() and _has(before, cluster)
            fonts.append(before if goes_along else None)
        else:
            fonts.append(before if before and _has(before, cluster) else _font_with(cluster))
    pairs = groupby(zip(clusters, fonts, strict=True), key=lambda pair: pair[1])
    runs = [TextRun("".join(cluster for cluster, _ in group), font) for font, group in pairs]
    strong = (unicodedata.bidirectional(letter) for letter in text)
    first = next((kind for kind in strong if kind == "L" or kind in RIGHT_TO_LEFT), "L")
    return runs[::-1] if first in RIGHT_TO_LEFT else runs


def run_width(run: TextRun, size: int) -> int:
    """Return how wide a run with a font of its own is, in pixels."""
    assert run.font is not None
    return math.ceil(_font(run.font, size).getlength(run.text))


def render(run: TextRun, size: int, height: int, baseline: int) -> Plane:
    """Return a run with a font of its own, white on black: uint8 of shape (height, width)."""
    from PIL import Image, ImageDraw

    assert run.font is not None
    image = Image.new("L", (max(1, run_width(run, size)), height))
    ImageDraw.Draw(image).text((0, baseline), run.text, fill=255, font=_font(run.font, size), anchor="ls")
    return np.asarray(image)


def complaint(labels: Iterable[str], drawable: Drawable) -> str | None:
    """Return which labels cannot be drawn, and what to do about it; None if all can."""
    lacking = {label: cluster for label in labels if (cluster := _lacking(label, drawable))}
    if not lacking:
        return None
    label, cluster = next(iter(lacking.items()))
    which = f"the label {label!r} has" if len(lacking) == 1 else f"{len(lacking)} labels, such as {label!r}, have"
    return f"{which} letters that cannot be drawn here, and are ? on frames, or out of order; {_remedy(cluster)}"


def _remedy(cluster: str) -> str:
    if not _has_pillow():
        return 'run  pip install "edgevid[text]"'
    if not _can_shape():
        return "install libfribidi, with which Pillow orders and joins them: apt install libfribidi0"
    letter = next((letter for letter in cluster if _is_seen(letter)), cluster[0])
    which = "Noto Emoji, without colours" if unicodedata.category(letter) == "So" else "one of Noto"
    folder = FOLDERS.get(sys.platform, OTHER_FOLDERS)[-1]
    return f"put a font that has {letter!r} ({unicodedata.name(letter, 'unnamed')}) into {folder}, such as {which}"


def _lacking(label: str, drawable: Drawable) -> str | None:
    """Return the first letter of a label, with its marks, that neither OpenCV nor a font here has."""
    if label.isascii():
        return None
    runs = runs_of(unicodedata.normalize("NFC", label), drawable)
    clusters = (cluster for run in runs if run.font is None for cluster in _clusters(run.text))
    return next((cluster for cluster in clusters if not drawable(cluster)), None)


def _clusters(text: str) -> list[str]:
    """Return letters, each with the marks on it and what is joined to it."""
    clusters: list[str] = []
    for letter in text:
        if clusters and (unicodedata.category(letter) in JOINED or clusters[-1].endswith(JOINER)):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters


def _runs_left(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in RIGHT_TO_LEFT


def _is_seen(letter: str) -> bool:
    hidden = letter.isspace() or unicodedata.category(letter) == "Cf"
    return not hidden and "VARIATION SELECTOR" not in unicodedata.name(letter, "")


@cache
def _has_pillow() -> bool:
    try:
        import PIL.ImageFont  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def _can_shape() -> bool:
    """Return whether Pillow is there, with what joins letters and orders them."""
    if not _has_pillow():
        return False
    from PIL import features

    return bool(features.check("raqm") and features.check("fribidi"))


@cache
def _font_with(letters: str) -> str | None:
    return next((file for file in _files() if _has(file, letters)), None) if _can_shape() else None


def _has(file: str, letters: str) -> bool:
    """Return whether a font has every letter that is seen."""
    return all(_has_letter(file, letter) for letter in letters if _is_seen(letter))


@cache
def _has_letter(file: str, letter: str) -> bool:
    probe = _probe(file)
    drawn = bytes(probe.getmask(letter)) if probe else b""
    return probe is not None and any(drawn) and drawn != bytes(probe.getmask(NOWHERE))


@cache
def _probe(file: str) -> FreeTypeFont | None:
    """Return a font for looking up single letters; None if it has other sizes only, as those of coloured emoji."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(file, PROBE_PX, layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None


@cache
def _font(file: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.RAQM)


@cache
def _files() -> Sequence[str]:
    """Return the fonts of this machine, plain ones first."""
    folders = (Path(folder).expanduser() for folder in FOLDERS.get(sys.platform, OTHER_FOLDERS))
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]

    def fancy(path: Path) -> tuple[bool, bool, str]:
        return "sans" not in path.name.lower(), "regular" not in path.name.lower(), path.name

    return [str(path) for path in sorted(found, key=fancy)]

"""Which files a folder or a pattern stands for, the same in every command; looks at names, and at no content."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = [
    "ANIMATED_SUFFIXES",
    "CLIP_SUFFIXES",
    "IMAGE_SUFFIXES",
    "files_in",
    "is_clip",
    "is_image",
    "left_out",
    "matching",
    "natural_order",
]

# Which files of a folder are videos; a file that is named is opened, whatever it is called.
CLIP_SUFFIXES = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf"}
    | {".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf"}
    | {".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
# Which are images: what OpenCV reads.
IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".hdr", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"}
    | {".pam", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"}
)
ANIMATED_SUFFIXES = frozenset({".apng", ".avif", ".gif", ".webp"})  # and which of them may be animations
# Which are images that it does not read, of which who gives a folder should know.
UNREAD_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".exr", ".heic", ".heif", ".icns", ".ico", ".jpx", ".jxl", ".jxr"}
    | {".nef", ".orf", ".pcx", ".pfm", ".psd", ".qoi", ".raf", ".rw2", ".sgi", ".svg", ".tga", ".xbm", ".xcf", ".xpm"}
)


def is_clip(path: Path) -> bool:
    """Return whether it is a file that has a video's name."""
    return path.suffix.lower() in CLIP_SUFFIXES and path.is_file()


def is_image(path: Path) -> bool:
    """Return whether it is a file that has an image's name; ``old.jpg`` may be a folder."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def left_out(files: Iterable[Path]) -> str:
    """Return how many of these are images of kinds that are not read, for reading; empty if none is."""
    kinds = Counter(file.suffix.lower() for file in files if file.suffix.lower() in UNREAD_SUFFIXES)
    shown = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    return f"left out are images of kinds that are not read ({shown}); convert them to .png, say" if kinds else ""


def files_in(folder: str | Path) -> list[Path]:
    """Return the files in a folder and in the folders in it, ``img2`` before ``img10``, each once.

    What begins with a dot is left out: thumbnails, and what a Mac leaves on other systems' disks.
    """
    found = _once(Path(place, name) for place, _, names in _walk(str(folder)) for name in names)
    return sorted(found, key=natural_order)


def matching(pattern: str) -> list[Path]:
    """Return the files and folders that have such a name, as in a shell, each once; ``**`` stands for any folders."""
    return sorted(_once(map(Path, _named(pattern))), key=natural_order)


def natural_order(path: Path) -> list[str | int]:
    """Return what sorts ``img2`` before ``img10``."""
    parts = re.split(r"(\d+)", str(path).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _named(pattern: str) -> Iterator[str]:
    """Yield what has such a name; unlike glob, never go in a circle of links, of which two make a search endless."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207 - any folder
        return
    at = parts.index("**")
    before, after = os.path.join("", *parts[:at]), parts[at + 1 :]  # noqa: PTH118 - patterns, not paths
    for base in glob.glob(before) if before else ["."]:  # noqa: PTH207
        for place, _, names in _walk(base):
            inside = glob.escape(os.path.normpath(place))
            if after:
                yield from _named(os.path.join(inside, *after))  # noqa: PTH118
            else:
                yield from (str(Path(place, name)) for name in names)


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through a folder as :func:`os.walk` does, also where links lead, but to each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        kept = [] if real in seen else sorted(folders, key=lambda name: (Path(place, name).is_symlink(), name))
        folders[:] = [name for name in kept if not name.startswith(".")]
        if real not in seen:
            seen.add(real)
            names = sorted(names, key=lambda name: (Path(place, name).is_symlink(), name))
            yield place, folders, [name for name in names if not name.startswith(".")]


def _once(files: Iterable[Path]) -> list[Path]:
    """Return each file once, by the first of the names that lead to it."""
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(os.path.realpath(file), file)
    return list(first.values())

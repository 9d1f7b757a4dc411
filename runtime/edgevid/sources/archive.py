"""Which clips are meant by names of files and folders, patterns and samples."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgevid.errors import SourceError, UsageError
from edgevid.sample import sample_clip
from edgevid.secrets import redact
from edgevid.sources import GSTREAMER_PREFIX, SAMPLE_PREFIX, STDIN, open_source
from edgevid.sources.base import Source
from edgevid.sources.images import IMAGE_SUFFIXES, ImageFolderSource, natural_order

__all__ = ["CLIP_SUFFIXES", "Clip", "find_clips"]

# Which files of a folder are videos; a file that is named is opened, whatever it is called.
CLIP_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class Clip:
    """A clip that was named, or found in a folder.

    Attributes:
        name: what the user called it, or the folder and what is in it.
        files: the video, or the images in their order; none where there is nothing of that name.
    """

    name: str
    files: Sequence[Path]

    def open(self) -> Source:
        """Open it.

        Raises:
            SourceError: there is no such thing, or it cannot be read.
        """
        if len(self.files) > 1 or Path(self.name).is_dir():
            if not self.files:
                raise SourceError(f"{self.name}: no videos and no images in it; expected files such as .mp4 or .jpg")
            return ImageFolderSource(self.name, self.files)
        return open_source(self.name)

    def state(self) -> dict[str, Any]:
        """Return what tells whether it has changed: how many bytes its files have, and when the newest was modified."""
        try:
            states = [file.stat() for file in self.files]
        except OSError:  # gone since it was found
            states = []
        newest = max((state.st_mtime for state in states), default=0.0)
        modified = datetime.fromtimestamp(newest, timezone.utc).isoformat(timespec="microseconds")
        return {"bytes": sum(state.st_size for state in states), "modified": modified.replace("+00:00", "Z")}


def find_clips(names: Iterable[str]) -> list[Clip]:
    """Return the clips that are meant, each once, in the order of the names; in folders ``clip2`` before ``clip10``.

    A folder stands for all videos in it and in the folders in it; where there are none, each of these folders that has
    images in it is a clip. A pattern such as ``clips/*.mp4`` stands for the files and folders that have such a name,
    as in a shell; ``**`` stands for any folders. What begins with a dot is left out of folders. Names that lead
    nowhere are clips without files, which cannot be opened.

    Raises:
        UsageError: a name is empty, a stream's, standard input, or an unknown sample's.
        MissingExtraError: a sample is named and the [sample] extra is not installed.
    """
    clips = [clip for name in names for clip in _named(name)]
    return list({clip.name: clip for clip in clips}.values())


def _named(name: str) -> Iterator[Clip]:
    if not name or name == STDIN or name.startswith(GSTREAMER_PREFIX) or "://" in name:
        raise UsageError(
            f"clip {redact(name)!r}: expected files, folders or patterns such as 'clips/*.mp4'; record a stream first"
        )
    if name.startswith(SAMPLE_PREFIX):
        yield Clip(name, [sample_clip(name.removeprefix(SAMPLE_PREFIX))])
    elif Path(name).exists():
        yield from _at(Path(name))
    else:
        found = sorted(map(Path, glob.glob(name, recursive=True)), key=natural_order)  # noqa: PTH207 - any folder
        for path in found:
            yield from _at(path)
        if not found:
            yield Clip(name, [])


def _at(path: Path) -> Iterator[Clip]:
    if not path.is_dir():
        yield Clip(str(path), [path])
        return
    inside = sorted((file for file in path.rglob("*") if _shown(file.relative_to(path))), key=natural_order)
    videos = [file for file in inside if file.suffix.lower() in CLIP_SUFFIXES and file.is_file()]
    if videos:
        yield from (Clip(str(video), [video]) for video in videos)
        return
    images: dict[Path, list[Path]] = {}
    for file in inside:
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            images.setdefault(file.parent, []).append(file)
    yield from (Clip(str(folder), files) for folder, files in images.items())
    if not images:
        yield Clip(str(path), [])


def _shown(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)

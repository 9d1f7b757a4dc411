"""Which clips are meant by names of files and folders, patterns and samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgevid.errors import SourceError, UsageError
from edgevid.events import Event
from edgevid.sample import sample_clip
from edgevid.secrets import redact
from edgevid.sources import GSTREAMER_PREFIX, SAMPLE_PREFIX, STDIN, open_source
from edgevid.sources.base import Source
from edgevid.sources.files import files_in, is_clip, is_image, left_out, matching
from edgevid.sources.images import ImageFolderSource

__all__ = ["Clip", "find_clips"]

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Clip:
    """A clip that was named, or found in a folder.

    Attributes:
        name: what the user called it, or the folder and what is in it.
        files: the video, or the images in their order; none where there is nothing of that name.
    """

    name: str
    files: Sequence[Path]

    def open(self, tell: Tell = lambda event: None) -> Source:
        """Open it.

        Args:
            tell: called with what of it is not taken.

        Raises:
            SourceError: there is no such thing, or it cannot be read.
        """
        if len(self.files) > 1 or Path(self.name).is_dir():
            if not self.files:
                raise SourceError(f"{self.name}: no videos and no images in it; expected files such as .mp4 or .jpg")
            return ImageFolderSource(self.name, self.files, tell)
        return open_source(self.name, tell=tell)

    def state(self) -> dict[str, Any]:
        """Return what tells whether it has changed: how many bytes its files have, and when the newest was modified."""
        try:
            states = [file.stat() for file in self.files]
        except OSError:  # gone since it was found
            states = []
        newest = max((state.st_mtime for state in states), default=0.0)
        modified = datetime.fromtimestamp(newest, timezone.utc).isoformat(timespec="microseconds")
        return {"bytes": sum(state.st_size for state in states), "modified": modified.replace("+00:00", "Z")}


def find_clips(names: Iterable[str], tell: Tell = lambda event: None) -> list[Clip]:
    """Return the clips that are meant, each once, in the order of the names; in folders ``clip2`` before ``clip10``.

    A folder stands for all videos in it and in the folders in it; where there are none, each of these folders that has
    images in it is a clip. A pattern such as ``clips/*.mp4`` stands for the files and folders that have such a name,
    as in a shell; ``**`` stands for any folders. What begins with a dot is left out of folders. Names that lead
    nowhere are clips without files, which cannot be opened.

    Args:
        names: as a user gives them.
        tell: called with what is left out of folders of images, since it cannot be read.

    Raises:
        UsageError: a name is empty, a stream's, standard input, or an unknown sample's.
        MissingExtraError: a sample is named and the [sample] extra is not installed.
    """
    first: dict[object, Clip] = {}
    for clip in (clip for name in names for clip in _named(name, tell)):
        first.setdefault(tuple(file.resolve() for file in clip.files) or clip.name, clip)
    return list(first.values())


def _named(name: str, tell: Tell) -> Iterator[Clip]:
    if not name or name == STDIN or name.startswith(GSTREAMER_PREFIX) or "://" in name:
        raise UsageError(
            f"clip {redact(name)!r}: expected files, folders or patterns such as 'clips/*.mp4'; record a stream first"
        )
    if name.startswith(SAMPLE_PREFIX):
        yield Clip(name, [sample_clip(name.removeprefix(SAMPLE_PREFIX))])
    elif Path(name).exists():
        yield from _at(Path(name), tell)
    else:
        found = matching(name)
        for path in found:
            yield from _at(path, tell)
        if not found:
            yield Clip(name, [])


def _at(path: Path, tell: Tell) -> Iterator[Clip]:
    if not path.is_dir():
        yield Clip(str(path), [path])
        return
    inside = files_in(path)
    videos = [file for file in inside if is_clip(file)]
    if videos:
        yield from (Clip(str(video), [video]) for video in videos)
        return
    if remark := left_out(inside):
        tell(Event("skipped", 0.0, f"{path}: {remark}"))
    images: dict[Path, list[Path]] = {}
    for file in filter(is_image, inside):
        images.setdefault(file.parent, []).append(file)
    yield from (Clip(str(folder), files) for folder, files in images.items())
    if not images:
        yield Clip(str(path), [])

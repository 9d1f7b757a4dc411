"""Which clips and pictures ``--calib`` means: files, folders, patterns and samples."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevid.errors import SourceError, UsageError
from edgevid.sample import sample_clip
from edgevid.secrets import redact
from edgevid.sources import GSTREAMER_PREFIX, SAMPLE_PREFIX, STDIN
from edgevid.sources.files import files_in, is_clip, is_image, left_out, matching

__all__ = ["CalibSource", "find_calib", "is_still", "not_read", "source_names"]

EXPECTED = "expected a video, a picture, a folder of them, or a pattern such as 'clips/*.mp4'"
MOST_NAMED = 10  # sources, in a bundle
KINDS_NAMED = 3  # of files, in an error


@dataclass(frozen=True)
class CalibSource:
    """A video, or pictures without an order.

    Attributes:
        name: for messages: the video's, or what the user called the pictures.
        files: the video, or the pictures, ``img2`` before ``img10``.
        stills: whether they are pictures, which are judged one by one.
    """

    name: str
    files: tuple[Path, ...]
    stills: bool


def find_calib(names: Iterable[str]) -> list[CalibSource]:
    """Return the videos that are meant and then the sets of pictures, no file twice.

    A folder stands for every video and all pictures in it and in the folders in it, but for what begins with a dot. A
    pattern such as ``pics/**/*.png`` stands for the files and folders that have such a name, as in a shell. The
    pictures of a folder or pattern are one set, and so are all pictures that are named one by one.

    Raises:
        UsageError: a name is empty, a stream's, standard input, or an unknown sample's.
        SourceError: a name leads nowhere, or to a folder with neither videos nor pictures in it.
        MissingExtraError: a sample is named and the [sample] extra is not installed.
    """
    seen: set[Path] = set()
    clips: list[CalibSource] = []
    sets: dict[str, list[Path]] = {}
    for name in names:
        new = {file.resolve(): file for file in _files(name)}
        for file in (file for resolved, file in new.items() if resolved not in seen):
            if is_still(file):
                sets.setdefault("" if Path(name) == file else name, []).append(file)
            else:
                clips.append(CalibSource(name if name.startswith(SAMPLE_PREFIX) else str(file), (file,), False))
        seen.update(new)
    return clips + [CalibSource(name or _together(files), tuple(files), True) for name, files in sets.items()]


def source_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return short names of sources, without the folders that they are in, for the manifest."""
    short = []
    for name in names[:MOST_NAMED]:
        folder = _before_wildcards(name)
        pattern = Path(name).relative_to(folder).as_posix()
        outer = folder.name or folder.resolve().name or str(folder)
        short.append(outer if pattern == "." else f"{outer}/{pattern}")
    more = len(names) - MOST_NAMED
    return (*short, *([f"{more} more"] if more > 0 else []))


def is_still(path: Path) -> bool:
    """Return whether it is one picture, and no animation."""
    from edgevid.sources.images import is_animated  # OpenCV comes with it

    return is_image(path) and not is_animated(path)


def not_read(names: Iterable[str]) -> list[str]:
    """Return which folders have images of kinds that are not read, for reading, a line each."""
    folders = [name for name in names if Path(name).is_dir()]
    remarks = {name: left_out(files_in(name)) for name in folders}
    return [f"--calib {name}: {remark}" for name, remark in remarks.items() if remark]


def _files(name: str) -> list[Path]:
    """Return the files that one name stands for."""
    if not name or name == STDIN or name.startswith(GSTREAMER_PREFIX) or "://" in name:
        raise UsageError(f"--calib {redact(name)!r}: {EXPECTED}; record a stream first")
    if name.startswith(SAMPLE_PREFIX):
        return [sample_clip(name.removeprefix(SAMPLE_PREFIX))]
    path = Path(name)
    if path.is_dir():
        return _inside(path) or _nothing(name, "no videos and no images in it", files_in(path))
    if path.exists():
        return [path]
    folder = _before_wildcards(name)
    if folder == path:
        raise SourceError(f"--calib {redact(name)}: no such file or folder; {EXPECTED}")
    if not folder.is_dir():
        raise SourceError(f"--calib {name}: no such folder as {folder}; {EXPECTED}")
    named = matching(name)
    if not named:
        return _nothing(name, "nothing has such a name", folder.iterdir())
    found = [file for match in named for file in (_inside(match) if match.is_dir() else [match])]
    return found or _nothing(name, "no videos and no images in these folders", named)


def _inside(folder: Path) -> list[Path]:
    """Return the videos and pictures of a folder and of the folders in it."""
    return [file for file in files_in(folder) if is_clip(file) or is_image(file)]


def _nothing(name: str, problem: str, instead: Iterable[Path]) -> list[Path]:
    """Refuse a source in which nothing is of use, and say what there is instead."""
    kinds = Counter("folder" if path.is_dir() else path.suffix or "file without a suffix" for path in instead)
    shown = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(KINDS_NAMED)) or "nothing"
    raise SourceError(f"--calib {name}: {problem}, found {shown}; {EXPECTED}")


def _before_wildcards(name: str) -> Path:
    """Return the folder in which a pattern looks; the path itself where it is none."""
    path = Path(name)
    if path.exists():
        return path
    patterns = [part for part in (path, *path.parents) if glob.has_magic(part.name)]
    return patterns[-1].parent if patterns else path


def _together(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"

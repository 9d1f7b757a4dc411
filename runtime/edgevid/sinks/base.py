"""What every sink does: take each frame with its prediction, and leave a complete file when closed."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgevid.errors import SinkError, UsageError
from edgevid.events import Event
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["STDOUT_FILE", "Sink", "check_apart", "check_output"]

STDOUT_FILE = ("stdout", Path("/dev/fd/1"))  # among the outputs of check_apart


class Sink(ABC):
    """Where predictions go.

    Attributes:
        name: what a user knows it by.
        main_thread: whether it must be written to on the main thread, as windows must.
        needs_picture: whether it looks at pictures, not at predictions alone.
        goes_on: whether it can be written to again after a write has failed.
        dropped: how many frames it left out because it could not keep up with a live source.
        missing: how many it left out because they could not be written, on a full disk say.
        unsaved: how many of the last it has taken, but not written yet.
        wrote: what files it left so far, for reading; empty if none.
    """

    name: str = "output"
    main_thread: bool = False
    needs_picture: bool = True
    goes_on: bool = False
    dropped: int = 0
    missing: int = 0
    unsaved: int = 0
    wrote: str = ""

    @abstractmethod
    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write one frame's prediction.

        Raises:
            SinkError: the output cannot be written.
        """

    def write_event(self, event: Event) -> None:  # noqa: B027 - most outputs have no place for events
        """Write what happened to the source or to an output, where this one has a place for it.

        Raises:
            SinkError: the output cannot be written.
        """

    def make_room(self) -> None:  # noqa: B027 - most keep everything
        """Delete what need not be kept, where there is such a thing; called while nothing can be written."""

    def end(self) -> None:  # noqa: B027 - most have nothing under way
        """Take note that nothing more is written, so that what is under way can be completed; close it then."""

    @abstractmethod
    def close(self) -> None:
        """Complete and release the output; safe to call twice.

        Raises:
            SinkError: the output cannot be completed.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def check_output(path: Path, force: bool) -> None:
    """Check that ``path`` can be created, without creating it.

    Raises:
        SinkError: its folder is absent, or it exists and ``force`` is false.
    """
    if not path.parent.is_dir():
        raise SinkError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise SinkError(f"{path}: it is a folder; expected the name of a file to write")
    if path.exists() and not force:
        raise SinkError(f"{path}: it exists already; name another file, or use --force to replace it")


def check_apart(outputs: Sequence[tuple[str, Path]], read: Mapping[str, Iterable[Path]]) -> None:
    """Check that no output is a file that is read, or another output, by whatever name or link.

    Args:
        outputs: each with the option that names it.
        read: files, each by what they are to the user.

    Raises:
        UsageError: one is; it would be lost, whatever --force says.
    """
    inputs = {_identity(file): what for what, files in read.items() for file in files} if outputs else {}
    written: dict[object, str] = {}
    for option, path in outputs:
        own = _identity(path)
        if own in written:
            raise UsageError(f"{option} {path}: {written[own]} is written to this file, too; name another")
        if own in inputs:
            raise UsageError(f"{option} {path}: it is {inputs[own]}, and would be lost; name another file")
        written[own] = option


def _identity(path: Path) -> object:
    """Return what is the same for all names of a file; pipes and devices are like nothing, since many may share one."""
    try:
        state = path.stat()
    except OSError:  # where it will be; to some disks small and large letters are the same
        return os.path.realpath(path).casefold()
    return (state.st_dev, state.st_ino) if stat.S_ISREG(state.st_mode) else object()

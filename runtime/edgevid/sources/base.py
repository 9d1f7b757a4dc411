"""What every source of frames does: describe itself, yield its frames in order, and count what it lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from edgevid.arrays import Image
from edgevid.events import Event
from edgevid.picture import Picture
from edgevid.sources.pick import Pick

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Frame", "Mark", "Source"]


class Mark(Enum):
    """What skipping static frames has decided about a frame, see :class:`edgevid.static.Skipping`."""

    CHANGED = "classified; all are where nothing is skipped"
    AUDIT = "static, and classified all the same"
    STATIC = "static, and not classified"
    SPARE = "static, and classified because skipping is off"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        index: its number in the source, from 0.
        time: the source's own timestamp, in seconds.
        picture: uint8 of shape (height, width, 3), BGR; or the planes of a video, not converted yet.
        arrived: when it was there, in seconds of the monotonic clock.
        gap_s: how many seconds of the stream are missing before it; infinity where another begins.
        mark: whether it is to be classified.
        sample_aspect_ratio: how wide a pixel is by its height; None where nobody says, which means square.
    """

    index: int
    time: float
    picture: Picture
    arrived: float = field(default_factory=monotonic)
    gap_s: float = 0.0
    mark: Mark = Mark.CHANGED
    sample_aspect_ratio: Fraction | None = None

    @property
    def image(self) -> Image:
        """The picture as BGR, uint8 of shape (height, width, 3); of a video, converted each time it is asked for."""
        return self.picture if isinstance(self.picture, np.ndarray) else self.picture.to_bgr()


class Source(ABC):
    """Where frames come from; iterate over it once.

    Attributes:
        name: what the user called it.
        live: whether frames that nobody takes are lost (a camera) or wait (a file).
        rate: frames per second, as the source states it.
        time_base: the unit of its timestamps, in seconds.
        frame_count: how many frames it will yield, as far as it knows; None if it does not.
        duration: how long it is, in seconds, as far as it knows; None if it does not.
        files: the files that it reads, which nothing must write over.
        broken: how many frames could not be decoded so far.
        dropped: how many frames were wanted and not decoded so far, since newer ones had come.
        gaps: how often a live source was lost and came back so far.
        exclusive: whether nobody else can have it while it is open.
        stale_when_unread: whether what comes waits somewhere, and grows old, while nobody reads.
        heard: when anything came from it, a packet or a picture that is not wanted, on the monotonic clock.
        pick: which frames are wanted, set before it is iterated over; others may be left out, and need not be decoded.
        first_index: the number of its first frame; another than 0 where it goes on for one that was lost.
        tell: called with what happens to it, between the frames where it happens.
    """

    name: str
    live: bool = False
    rate: Fraction
    time_base: Fraction
    frame_count: int | None = None
    duration: float | None = None
    files: Sequence[Path] = ()
    broken: int = 0
    dropped: int = 0
    gaps: int = 0
    exclusive: bool = False
    stale_when_unread: bool = False
    heard: float = 0.0
    pick: Pick = Pick()
    first_index: int = 0
    tell: Callable[[Event], None] = staticmethod(lambda event: None)

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises:
            SourceError: the source has no frame at all, or stopped delivering them.
        """

    def seek(self, seconds: float) -> None:  # noqa: B027 - a source that cannot seek is read from its beginning
        """Begin shortly before a time, where the source can; to be called before it is iterated over.

        Frames keep their numbers and times; those before ``seconds`` are for the caller to pass over.
        """

    def interrupt(self) -> None:  # noqa: B027 - most never wait
        """End soon: whoever waits for the next frame waits no longer. May be called on any thread."""

    @abstractmethod
    def close(self) -> None:
        """Release the file or the camera; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

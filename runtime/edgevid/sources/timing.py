"""Where the frames of a file lie: its key frames, and the number of a timestamp."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from av.video.stream import VideoStream

if TYPE_CHECKING:
    from av.index import IndexEntry

__all__ = ["EvenTiming", "complete_count", "even_timing", "frame_number"]

UNEVEN_TICKS = 1  # what rounding to the file's time base may move a timestamp by


@dataclass(frozen=True)
class EvenTiming:
    """The timestamps of a file whose frames are evenly spaced.

    Attributes:
        first: the timestamp of the first frame, in units of the stream's time base.
        step: the units from one frame to the next.
        key_frames: the numbers of the frames that need no other.
        count: how many frames there are.
    """

    first: int
    step: float
    key_frames: tuple[int, ...]
    count: int

    def number(self, timestamp: int) -> int:
        """Return the number of the frame with that presentation timestamp."""
        return round((timestamp - self.first) / self.step)

    def timestamp(self, number: int) -> int:
        """Return the presentation timestamp of a frame."""
        return self.first + round(number * self.step)

    def key_before(self, number: int) -> int:
        """Return which key frame, the how-manieth, is the last up to the frame of that number; -1 for none."""
        return bisect_right(self.key_frames, number) - 1


def frame_number(stream: VideoStream, decoded: int) -> int | None:
    """Return the number of the key frame with that decoding timestamp; None where the file's index does not tell."""
    entries = _complete_index(stream)
    place = bisect_left(entries, decoded, key=lambda entry: entry.timestamp)
    return place if place < len(entries) and entries[place].timestamp == decoded else None


def even_timing(stream: VideoStream) -> EvenTiming | None:
    """Return the timing of a file from its index; None if it has none, or its frames are not evenly spaced."""
    entries = _complete_index(stream)
    if len(entries) < 2 or stream.start_time is None:
        return None
    first = entries[0].timestamp
    step = (entries[-1].timestamp - first) / (len(entries) - 1)
    uneven = any(abs(entry.timestamp - first - n * step) > UNEVEN_TICKS for n, entry in enumerate(entries))
    if step <= 2 * UNEVEN_TICKS or uneven or any(entry.is_discard for entry in entries):
        return None
    key_frames = tuple(number for number, entry in enumerate(entries) if entry.is_keyframe)
    return EvenTiming(stream.start_time, step, key_frames, len(entries))


def complete_count(stream: VideoStream) -> int:
    """Return how many packets a file has by its index; 0 where that does not tell."""
    return len(_complete_index(stream))


def _complete_index(stream: VideoStream) -> list[IndexEntry]:
    """Return an entry for each frame, in decoding order; nothing where the file has no such index.

    Other containers than MP4 and MOV state other timestamps in it, or list key frames only.
    """
    entries = list(stream.index_entries) if "mp4" in stream.container.format.name else []
    return entries if len(entries) == stream.frames else []

"""Cameras as Linux' drivers (V4L2) have them: which there are, what each has, and its frames as they come."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ctypes import Structure, c_int, pointer
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TypeVar

from edgevid.hardware import read_text
from edgevid.sources import v4l2_structs as v4l2
from edgevid.sources.v4l2_structs import BufferFlags, BufferType, Capabilities, Request

__all__ = ["Captured", "Layout", "VideoDevice", "nodes", "reported_name", "users"]

NAMES = Path("/sys/class/video4linux")
BUFFERS = 4
NOT_HAD = (errno.ENOTTY, errno.EINVAL)  # a request that the driver does not know, or the end of a list
S = TypeVar("S", bound=Structure)


@dataclass(frozen=True)
class Layout:
    """How a device delivers its pictures; colours in the numbers of V4L2, 0 for what follows from the others."""

    fourcc: str
    width: int
    height: int
    stride: int
    colorspace: int
    encoding: int
    quantization: int


@dataclass(frozen=True)
class Captured:
    """A frame in a buffer of the driver's, from ``begin`` to ``end``.

    Attributes:
        buffer: the driver's number of it.
        sequence: how many frames there were before it, with those that no buffer was free for.
        time: when it was taken, in seconds of the monotonic clock; None where the driver tells none.
        damaged: whether the driver says that something is missing.
    """

    buffer: int
    begin: int
    end: int
    sequence: int
    time: float | None
    damaged: bool


class VideoDevice:
    """A node such as ``/dev/video0``; no call of it waits, but for a driver that hangs.

    Args:
        path: the node.

    Raises:
        OSError: as the driver says it; ENOTTY where it is no video device.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._memory: list[mmap.mmap] = []
        told = v4l2.Capability()
        try:
            self._ask(Request.CAPABILITY, told)
        except OSError:
            self.close()
            raise
        self.card = told.card.decode(errors="replace")
        able = Capabilities(told.of_device)
        self.able = Capabilities(told.of_node) if Capabilities.OF_NODE in able else able
        self._planes = Capabilities.CAPTURE not in self.able
        self._type = BufferType.CAPTURE_PLANES if self._planes else BufferType.CAPTURE

    @property
    def captures(self) -> bool:
        """Whether pictures come from it; a codec takes them as well, and is no camera."""
        return bool(self.able & (Capabilities.CAPTURE | Capabilities.CAPTURE_PLANES))

    def formats(self) -> list[str]:
        """Return the pixel formats that it has."""
        found = self._each(Request.FORMATS, lambda index: v4l2.FormatDescription(index=index, type=self._type))
        return [_text(told.fourcc) for told in found]

    def sizes(self, fourcc: str) -> list[str]:
        """Return the sizes that it has in a format, as text; a range of them is one."""
        found = self._each(Request.SIZES, lambda index: v4l2.FrameSize(index=index, fourcc=_code(fourcc)))
        return [_size_text(told) for told in found]

    def fastest(self, fourcc: str) -> Fraction:
        """Return the highest rate that any size in a format has, in frames per second; 0 if it tells none."""
        sizes = self._each(Request.SIZES, lambda index: v4l2.FrameSize(index=index, fourcc=_code(fourcc)))
        return max((self._fastest(fourcc, told.sides[0], told.sides[1]) for told in sizes), default=Fraction(0))

    def set_format(self, fourcc: str, size: tuple[int, int]) -> Layout:
        """Ask for a format and a size, and return what it gives, which may be others."""
        told = v4l2.Format(type=self._type)
        self._ask(Request.GET_FORMAT, told)
        wanted = told.of.several if self._planes else told.of.one
        wanted.fourcc, (wanted.width, wanted.height) = _code(fourcc), size
        plane = wanted.planes[0] if self._planes else wanted
        plane.stride = plane.size = 0  # as the driver has it
        self._ask(Request.SET_FORMAT, told)
        return Layout(
            _text(wanted.fourcc),
            wanted.width,
            wanted.height,
            plane.stride,
            wanted.colorspace,
            wanted.encoding,
            wanted.quantization,
        )

    def set_rate(self, rate: Fraction) -> Fraction:
        """Ask for frames per second, and return what it gives; 0 if it tells none."""
        told = v4l2.StreamParameters(type=self._type)
        try:
            self._ask(Request.GET_PARAMETERS, told)
            if told.can & v4l2.SETTABLE_RATE:
                told.numerator, told.denominator = rate.denominator, rate.numerator
                self._ask(Request.SET_PARAMETERS, told)
        except OSError as error:
            if error.errno not in NOT_HAD:
                raise
            return Fraction(0)
        return Fraction(told.denominator, told.numerator) if told.numerator else Fraction(0)

    def start(self) -> None:
        """Have it deliver; from now on nobody else can."""
        asked = v4l2.BufferRequest(count=BUFFERS, type=self._type, memory=v4l2.MMAP)
        self._ask(Request.BUFFERS, asked)
        for index in range(asked.count):
            buffer = self._buffer(index)
            self._ask(Request.BUFFER, buffer)
            plane = buffer.place.planes[0] if self._planes else None
            length, offset = (plane.length, plane.place) if plane else (buffer.length, buffer.place.offset)
            self._memory.append(mmap.mmap(self._file, length, offset=offset))
            self._ask(Request.GIVE, buffer)
        self._ask(Request.START, c_int(self._type))

    def wait(self, timeout_s: float) -> None:
        """Wait until a frame is there, or the device is gone."""
        waiting = select.poll()
        waiting.register(self._file, select.POLLIN)
        waiting.poll(timeout_s * 1000)

    def waiting(self) -> list[Captured]:
        """Return all frames that are there, the oldest first; each has to be given back."""
        frames: list[Captured] = []
        while len(frames) < len(self._memory) and (frame := self._take()):
            frames.append(frame)
        return frames

    @property
    def buffers(self) -> int:
        """How many frames can wait; the driver has no room for more."""
        return len(self._memory)

    def copied(self, frame: Captured) -> bytes:
        """Return what a frame holds, as long as it is not given back."""
        return self._memory[frame.buffer][frame.begin : frame.end]

    def give_back(self, frames: Sequence[Captured]) -> None:
        """Let the driver have buffers again."""
        for frame in frames:
            self._ask(Request.GIVE, self._buffer(frame.buffer))

    def close(self) -> None:
        """Stop it, and let others have it; safe to call twice."""
        if self._file < 0:
            return
        if self._memory:
            with suppress(OSError):  # it is gone
                self._ask(Request.STOP, c_int(self._type))
        for memory in self._memory:
            memory.close()
        os.close(self._file)
        self._file, self._memory = -1, []

    def _take(self) -> Captured | None:
        buffer = self._buffer(0)
        try:
            self._ask(Request.TAKE, buffer)
        except BlockingIOError:
            return None
        plane = buffer.place.planes[0] if self._planes else None
        begin, end = (plane.begin, plane.used) if plane else (0, buffer.used)
        by_our_clock = buffer.flags & BufferFlags.CLOCK == BufferFlags.MONOTONIC
        return Captured(
            buffer.index,
            begin,
            end,
            buffer.sequence,
            buffer.seconds + buffer.microseconds / 1e6 if by_our_clock else None,
            bool(buffer.flags & BufferFlags.ERROR),
        )

    def _buffer(self, index: int) -> v4l2.Buffer:
        buffer = v4l2.Buffer(index=index, type=self._type, memory=v4l2.MMAP)
        if self._planes:
            buffer.place.planes, buffer.length = pointer(v4l2.MemoryPlane()), 1
        return buffer

    def _fastest(self, fourcc: str, width: int, height: int) -> Fraction:
        found = self._each(
            Request.INTERVALS,
            lambda index: v4l2.FrameInterval(index=index, fourcc=_code(fourcc), width=width, height=height),
        )
        shortest = (told.fractions[:2] for told in found)  # also of a range
        return max((Fraction(bottom, top) for top, bottom in shortest if top), default=Fraction(0))

    def _each(self, request: int, question: Callable[[int], S]) -> Iterator[S]:
        """Yield the answers for 0, 1, 2, until there is no more."""
        for index in count():
            told = question(index)
            try:
                self._ask(request, told)
            except OSError as error:
                if error.errno not in NOT_HAD:
                    raise
                return
            yield told

    def _ask(self, request: int, what: Structure | c_int) -> None:
        fcntl.ioctl(self._file, request, what)


def nodes() -> list[str]:
    """Return the paths of all video nodes, of which some are no cameras."""
    found = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    return [str(path) for path in found if path.is_char_device()]


def reported_name(path: str) -> str:
    """Return what the driver calls a node; it need not be opened for that."""
    return read_text(NAMES / Path(path).name / "name") or "unknown"


def users(path: str) -> list[int]:
    """Return the processes that have a node open, as far as this user may see them."""
    device = Path(path).stat().st_rdev
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or just ended
            opened = (file.stat() for file in (process / "fd").iterdir())
            if any(stat.S_ISCHR(status.st_mode) and status.st_rdev == device for status in opened):
                found.append(int(process.name))
    return found


def _code(fourcc: str) -> int:
    return int.from_bytes(fourcc.encode("latin-1"), "little")


def _text(code: int) -> str:
    return code.to_bytes(4, "little").decode("latin-1")


def _size_text(told: v4l2.FrameSize) -> str:
    if told.type == v4l2.DISCRETE:
        return f"{told.sides[0]}x{told.sides[1]}"
    narrowest, widest, _, lowest, highest, _ = told.sides
    return f"{narrowest}x{lowest} to {widest}x{highest}"

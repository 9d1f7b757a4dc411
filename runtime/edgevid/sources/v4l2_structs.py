"""What programs and Linux' video drivers tell each other: structures and numbers of ``linux/videodev2.h``."""

from __future__ import annotations

from ctypes import (
    POINTER,
    Structure,
    Union,
    c_char,
    c_int,
    c_long,
    c_uint8,
    c_uint16,
    c_uint32,
    c_ulong,
    c_void_p,
    sizeof,
)
from enum import IntFlag

__all__ = [
    "Buffer",
    "BufferFlags",
    "BufferRequest",
    "BufferType",
    "Capabilities",
    "Capability",
    "Format",
    "FormatDescription",
    "FrameInterval",
    "FrameSize",
    "MemoryPlane",
    "Request",
    "StreamParameters",
]

MMAP = 1  # buffers in the driver's memory
DISCRETE = 1  # a size or an interval by itself, and not a range of them
SETTABLE_RATE = 0x1000


class Capabilities(IntFlag):
    """What a node can do."""

    CAPTURE = 0x1
    OUTPUT = 0x2
    CAPTURE_PLANES = 0x1000
    OUTPUT_PLANES = 0x2000
    CODEC_PLANES = 0x4000
    CODEC = 0x8000
    METADATA = 0x80_0000
    STREAMING = 0x400_0000
    METADATA_OUTPUT = 0x800_0000
    OF_NODE = 0x8000_0000  # the node's own are told apart from those of the whole device


class BufferType(IntFlag):
    """What a queue of buffers holds."""

    CAPTURE = 1
    CAPTURE_PLANES = 9


class BufferFlags(IntFlag):
    """What a driver says of a buffer."""

    ERROR = 0x40
    MONOTONIC = 0x2000
    CLOCK = 0xE000  # the bits that tell the clock


class Capability(Structure):
    """What a node is."""

    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus", c_char * 32),
        ("version", c_uint32),
        ("of_device", c_uint32),
        ("of_node", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FormatDescription(Structure):
    """A pixel format that a node has."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("fourcc", c_uint32),
        ("bus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FrameSize(Structure):
    """A size that a pixel format has: width and height; or of both the smallest, the largest, and the step."""

    _fields_ = (
        ("index", c_uint32),
        ("fourcc", c_uint32),
        ("type", c_uint32),
        ("sides", c_uint32 * 6),
        ("reserved", c_uint32 * 2),
    )


class FrameInterval(Structure):
    """A time between frames that a size has: a fraction of a second; or the shortest, the longest, and the step."""

    _fields_ = (
        ("index", c_uint32),
        ("fourcc", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("fractions", c_uint32 * 6),
        ("reserved", c_uint32 * 2),
    )


class OnePlane(Structure):
    """A picture in one piece of memory."""

    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("fourcc", c_uint32),
        ("field", c_uint32),
        ("stride", c_uint32),
        ("size", c_uint32),
        ("colorspace", c_uint32),
        ("magic", c_uint32),
        ("flags", c_uint32),
        ("encoding", c_uint32),
        ("quantization", c_uint32),
        ("transfer", c_uint32),
    )


class PlaneLayout(Structure):
    """One of several pieces of memory."""

    _pack_ = 1
    _fields_ = (("size", c_uint32), ("stride", c_uint32), ("reserved", c_uint16 * 6))


class SeveralPlanes(Structure):
    """A picture in several pieces of memory, of which there may be one."""

    _pack_ = 1
    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("fourcc", c_uint32),
        ("field", c_uint32),
        ("colorspace", c_uint32),
        ("planes", PlaneLayout * 8),
        ("count", c_uint8),
        ("flags", c_uint8),
        ("encoding", c_uint8),
        ("quantization", c_uint8),
        ("transfer", c_uint8),
        ("reserved", c_uint8 * 7),
    )


class AnyFormat(Union):
    """By the type of the queue; a pointer in another of its kinds says how it is aligned."""

    _fields_ = (("one", OnePlane), ("several", SeveralPlanes), ("raw", c_uint8 * 200), ("pointer", c_void_p))


class Format(Structure):
    """How pictures lie in memory, and what their colours mean."""

    _fields_ = (("type", c_uint32), ("of", AnyFormat))


class StreamParameters(Structure):
    """How often a frame comes."""

    _fields_ = (
        ("type", c_uint32),
        ("can", c_uint32),
        ("mode", c_uint32),
        ("numerator", c_uint32),  # seconds from one frame to the next
        ("denominator", c_uint32),
        ("rest", c_uint8 * 184),
    )


class BufferRequest(Structure):
    """How many buffers there shall be; 0 gives them back."""

    _fields_ = (
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint32),
    )


class MemoryPlane(Structure):
    """One piece of a buffer's memory."""

    _fields_ = (
        ("used", c_uint32),
        ("length", c_uint32),
        ("place", c_ulong),
        ("begin", c_uint32),
        ("reserved", c_uint32 * 11),
    )


class Place(Union):
    """Where a buffer's memory is."""

    _fields_ = (("offset", c_uint32), ("address", c_ulong), ("planes", POINTER(MemoryPlane)))


class Buffer(Structure):
    """A buffer, and the frame in it."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("used", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("seconds", c_long),
        ("microseconds", c_long),
        ("timecode", c_uint32 * 4),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("place", Place),
        ("length", c_uint32),
        ("reserved", c_uint32 * 2),
    )


def _number(number: int, kind: type, *, reads: bool = True, writes: bool = True) -> int:
    """Return what ``ioctl`` calls a request: its direction, the size of what it takes, a V, and its number."""
    return (reads << 1 | writes) << 30 | sizeof(kind) << 16 | ord("V") << 8 | number


class Request:
    """What can be asked of a driver."""

    CAPABILITY = _number(0, Capability, writes=False)
    FORMATS = _number(2, FormatDescription)
    GET_FORMAT = _number(4, Format)
    SET_FORMAT = _number(5, Format)
    BUFFERS = _number(8, BufferRequest)
    BUFFER = _number(9, Buffer)
    GIVE = _number(15, Buffer)
    TAKE = _number(17, Buffer)
    START = _number(18, c_int, reads=False)
    STOP = _number(19, c_int, reads=False)
    GET_PARAMETERS = _number(21, StreamParameters)
    SET_PARAMETERS = _number(22, StreamParameters)
    SIZES = _number(74, FrameSize)
    INTERVALS = _number(75, FrameInterval)

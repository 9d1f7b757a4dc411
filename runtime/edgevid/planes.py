"""A picture as video stores it: luma Y, and chroma U and V of the same size or smaller, in FFmpeg's memory.

Whoever needs a few of its pixels resizes the planes and converts what is left, instead of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from edgevid.arrays import Image, Matrix, Plane

__all__ = ["OrientationReader", "PlaneResizer", "Planes", "plane_arrays", "stated_aspect_ratio", "upright_picture"]

# What FFmpeg calls formats of three planes of 8 bits; those with a j span 0–255.
PLANAR = frozenset(f"yuv{full}{layout}p" for full in ("", "j") for layout in ("420", "422", "444"))
# By FFmpeg's numbers, which are those of ITU-T H.273.
MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
FINE_FORMAT = "yuv444p16le"
LOOKED_AT_EVERY = 25  # frames
T = TypeVar("T", np.uint8, np.uint16)
Number = TypeVar("Number", bound=np.generic)


class Orientation(NamedTuple):
    """How a picture lies: to be upright it is mirrored, if at all, and then turned.

    Attributes:
        quarter_turns: how often it is turned counter-clockwise, 0 to 3.
        mirrored: whether its top and its bottom change places before that.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether height and width change places."""
        return self.quarter_turns % 2 == 1

    def upright(self, image: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return an image that lies so, or one plane of it, upright; the same where nothing is to be done."""
        return image if self == UPRIGHT else TURNED[self](image)


UPRIGHT = Orientation()
TURNED: dict[Orientation, Callable[[Any], npt.NDArray[Any]]] = {
    Orientation(1): lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    Orientation(2): lambda image: cv2.rotate(image, cv2.ROTATE_180),
    Orientation(3): lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    Orientation(0, mirrored=True): lambda image: cv2.flip(image, 0),
    Orientation(1, mirrored=True): lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    Orientation(2, mirrored=True): lambda image: cv2.flip(image, 1),
    Orientation(3, mirrored=True): lambda image: cv2.transpose(image),
}


class Planes:
    """A decoded frame in one of the formats :data:`PLANAR`; it is not to be written to.

    Attributes:
        frame: FFmpeg's.
        orientation: how it lies.
        shape: height and width, upright.
        matrix: how RGB became YUV.
        full_range: whether luma spans 0–255 (JPEG) and not 16–235.
    """

    def __init__(self, frame: VideoFrame, orientation: Orientation = UPRIGHT) -> None:
        self.frame = frame
        self.orientation = orientation
        size = frame.height, frame.width
        self.shape = size[::-1] if orientation.swaps_sides else size
        self.matrix: Matrix = MATRICES.get(frame.colorspace, "unspecified")
        self.full_range = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG

    def arrays(self) -> tuple[Plane, Plane, Plane]:
        """Return Y, U and V, upright: uint8 of shape (height, width)."""
        y, u, v = (self.orientation.upright(plane) for plane in plane_arrays(self.frame))
        return y, u, v

    def luma(self) -> Plane:
        """Return Y as it lies, not turned: uint8 of shape (height, width), the frame's own memory."""
        return plane_arrays(self.frame)[0]

    def to_bgr(self) -> Image:
        """Return the whole picture as BGR, upright: uint8 of shape (height, width, 3)."""
        return self.orientation.upright(bgr(self.frame))


def upright_picture(
    frame: VideoFrame, orientation: Orientation = UPRIGHT, sample_aspect_ratio: Fraction | None = None
) -> tuple[Image | Planes, Fraction | None]:
    """Return a decoded frame turned as it was filmed, and the shape of its pixels, turned as well.

    Args:
        frame: FFmpeg's.
        orientation: how it lies.
        sample_aspect_ratio: how wide a pixel is by its height, as the frame lies; None where nobody says.

    Returns:
        Its planes where it has them in 8 bits, else BGR.
    """
    picture = Planes(frame, orientation) if frame.format.name in PLANAR else orientation.upright(bgr(frame))
    return picture, 1 / sample_aspect_ratio if sample_aspect_ratio and orientation.swaps_sides else sample_aspect_ratio


def stated_aspect_ratio(stream: VideoStream) -> Callable[[], Fraction | None]:
    """Return what tells how wide a pixel of the frame decoded last is by its height: 16/11, or None if nobody says.

    It is what the container says, if it has a word of its own; else what the codec says, which may change.
    """
    stated, codec = stream.sample_aspect_ratio, stream.codec_context

    def shape() -> Fraction | None:
        ratio = codec.sample_aspect_ratio if follows else stated
        return Fraction(ratio.numerator, ratio.denominator) if ratio else None

    follows = stated == codec.sample_aspect_ratio
    return shape


class OrientationReader:
    """Tells how the decoded frames of one stream lie, as its container or its codec says.

    Looking at a frame's side data ties the frame into a cycle, in PyAV, and it stays until Python collects garbage. So
    only the first is looked at, those whose rotation is another, and after that a key frame now and then.
    """

    def __init__(self) -> None:
        self._rotation: float | None = None
        self._orientation = UPRIGHT
        self._since = 0

    def __call__(self, frame: VideoFrame) -> Orientation:
        """Return how the next frame lies, to the nearest quarter turn."""
        self._since += 1
        if frame.rotation != self._rotation or (frame.key_frame and self._since > LOOKED_AT_EVERY):
            self._rotation, self._since, self._orientation = frame.rotation, 0, _stated_orientation(frame)
        return self._orientation


def _stated_orientation(frame: VideoFrame) -> Orientation:
    matrix = _display_matrix(frame)
    if matrix is None:
        return UPRIGHT
    (a, b, _), (c, d, _), _ = matrix.reshape(3, 3)
    area = a * d - b * c  # what a pixel becomes; negative if it is seen from behind
    return Orientation(round(frame.rotation / 90) % 4, bool(area < 0)) if area else UPRIGHT


def _display_matrix(frame: VideoFrame) -> npt.NDArray[np.float64] | None:
    """Return the nine numbers that come with a frame, if any."""
    while True:
        try:
            found: Any = frame.side_data.get("DISPLAYMATRIX")  # which is no more than motion vectors to its stubs
            return None if found is None else np.frombuffer(found, np.int32).astype(np.float64)
        except ValueError as error:  # of all side data, where PyAV has no name for one: "31 is not a valid Type"
            frame = _without(frame, str(error).partition(" ")[0])


def _without(frame: VideoFrame, kind: str) -> VideoFrame:
    """Return a frame without its side data of a kind, given by FFmpeg's number."""
    graph = Graph()
    buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(buffer, graph.add("sidedata", mode="delete", type=kind), graph.add("buffersink")).configure()
    graph.push(frame)
    cleaned = graph.pull()
    assert isinstance(cleaned, VideoFrame)
    return cleaned


class PlaneResizer:
    """Resizes planes bilinearly with half-pixel centres, without antialiasing and without rounding to 8 bits.

    By FFmpeg's "fast bilinear", which is just that, also where it shrinks. It keeps what FFmpeg has computed for frames
    of one size, so it is used by one thread at a time.

    Args:
        size: height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._converter = VideoReformatter()

    def __call__(self, planes: Planes, out: npt.NDArray[np.uint16]) -> None:
        """Write Y, U and V, resized and upright, into ``out``: (height, width, 3), in steps of 1/256 grey level."""
        height, width = self._size[::-1] if planes.orientation.swaps_sides else self._size
        resized = self._converter.reformat(
            planes.frame,
            width,
            height,
            format=FINE_FORMAT,
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        merged: npt.NDArray[Any] = cv2.merge([_rows(plane, np.uint16) for plane in resized.planes], out)
        if planes.orientation != UPRIGHT:
            np.copyto(out, planes.orientation.upright(merged).reshape(out.shape))


def plane_arrays(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Return Y, U and V of a planar picture of 8 bits: the picture's own memory, uint8 of shape (height, width)."""
    y, u, v = (_rows(plane, np.uint8) for plane in frame.planes)
    return y, u, v


def bgr(frame: VideoFrame) -> Image:
    """Return any picture of FFmpeg as BGR, as it lies."""
    # A converter of our own: by itself FFmpeg starts threads for every picture.
    image = VideoReformatter().reformat(frame, format="bgr24", threads=1).to_ndarray()
    return image.astype(np.uint8, copy=False)


def _rows(plane: VideoPlane, dtype: type[T]) -> npt.NDArray[T]:
    padded = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size)
    return padded.reshape(plane.height, plane.line_size).view(dtype)[:, : plane.width]

"""How a picture lies: the eight ways, as containers and codecs state them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import Frame, Smoother, open_source
from edgevid.arrays import Image
from edgevid.manifest import InputSpec, Preprocessing, Tensor
from edgevid.planes import Planes
from edgevid.preprocess import Preprocessor
from edgevid.sources.base import Mark
from edgevid.static import Skipping
from tests.conftest import Outcome

HEIGHT, WIDTH = 48, 80
Turn = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
# By where a step to the right leads, and where a step down does.
SHOWN: dict[tuple[int, int, int, int], Turn] = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: image[::-1, ::-1],
    (0, -1, 1, 0): lambda image: np.rot90(image),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].swapaxes(0, 1),
}
# What a matrix also does does not matter: move the picture, enlarge it, turn it by a few degrees more.
ANGLE = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
ALSO = {
    "nothing": (np.eye(2), (0, 0)),
    "moved": (np.eye(2), (WIDTH, -HEIGHT)),
    "wider": (np.diag([1.5, 0.75]), (0, 0)),
    "smaller": (np.eye(2) / 100, (0, 0)),
    "askew": (ANGLE, (0, 0)),
}


def blocks(seed: int = 0) -> Image:
    """Return a picture of which no part is like another."""
    colors = np.random.default_rng(seed).integers(30, 220, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return colors.repeat(8, 0).repeat(8, 1)


def write_blocks(path: Path, codec: str = "libx264", pix_fmt: str = "yuv420p", count: int = 2) -> bytes:
    """Write a clip of the same picture, and return what is in the file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "5", "bf": "0"} if codec == "libx264" else {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for _ in range(count):
            container.mux(stream.encode(VideoFrame.from_ndarray(blocks(), format="bgr24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def write_matrix(path: Path, data: bytes, rows: npt.NDArray[np.float64], moved: tuple[int, int] = (0, 0)) -> Path:
    """Write an MP4 or MOV whose picture is shown by a matrix of two rows, and moved."""
    (a, b), (c, d) = rows
    numbers = (round(number * 65536) for number in (a, b, 0, c, d, 0, *moved))
    at = data.index(b"tkhd") + 44  # version 0: the matrix follows 40 bytes of other facts
    path.write_bytes(data[:at] + struct.pack(">9i", *numbers, 1 << 30) + data[at + 36 :])
    return path


def first_frame(path: Path) -> Frame:
    with open_source(path) as source:
        return next(iter(source))


def resized(frame: Frame, height: int, width: int) -> Image:
    spec = InputSpec(height=height, width=width, channels=3, color="bgr")
    tensor = Tensor(shape=(1, height, width, 3), dtype="float32")
    return Preprocessor(spec, Preprocessing(mean=(0.0,), std=(1.0,)), tensor).pixels(frame.picture)


def planes_of(frame: Frame) -> Planes:
    assert isinstance(frame.picture, Planes)
    return frame.picture


@pytest.mark.parametrize("also", ALSO)
@pytest.mark.parametrize("rows", SHOWN)
def test_a_container_says_how_its_pictures_lie(tmp_path: Path, rows: tuple[int, int, int, int], also: str) -> None:
    shown, (more, moved) = SHOWN[rows], ALSO[also]
    data = write_blocks(tmp_path / "lying.mp4")
    lying = first_frame(tmp_path / "lying.mp4")
    matrix = np.reshape(rows, (2, 2)).astype(float) @ more
    frame = first_frame(write_matrix(tmp_path / "turned.mp4", data, matrix, moved))
    assert frame.picture.shape[:2] == shown(lying.image).shape[:2]
    np.testing.assert_array_equal(frame.image, shown(lying.image))
    for plane, flat in zip(planes_of(frame).arrays(), planes_of(lying).arrays(), strict=True):
        np.testing.assert_array_equal(plane, shown(flat))
    for height, width in ((20, 30), (24, 24)):
        size = (height, width) if rows[0] else (width, height)
        np.testing.assert_array_equal(resized(frame, height, width), shown(resized(lying, *size)))


@pytest.mark.parametrize("rows", SHOWN)
def test_so_do_pictures_that_have_no_planes(tmp_path: Path, rows: tuple[int, int, int, int]) -> None:
    data = write_blocks(tmp_path / "lying.mov", "png", "rgb24")
    frame = first_frame(write_matrix(tmp_path / "turned.mov", data, np.reshape(rows, (2, 2)).astype(float)))
    assert isinstance(frame.picture, np.ndarray)
    np.testing.assert_array_equal(frame.image, SHOWN[rows](blocks()))


@pytest.mark.parametrize("rows", [(0, 0, 0, 0), (1, 0, 1, 0), (0, 1, 0, 0)])
def test_a_matrix_that_shows_nothing_says_nothing(tmp_path: Path, rows: tuple[int, int, int, int]) -> None:
    data = write_blocks(tmp_path / "lying.mp4")
    frame = first_frame(write_matrix(tmp_path / "flat.mp4", data, np.reshape(rows, (2, 2)).astype(float)))
    np.testing.assert_array_equal(frame.image, first_frame(tmp_path / "lying.mp4").image)


# Of H.264: mirrored across, mirrored down, quarter turns counter-clockwise.
STATED = {
    "000": (1, 0, 0, 1),
    "001": (0, -1, 1, 0),
    "002": (-1, 0, 0, -1),
    "003": (0, 1, -1, 0),
    "010": (1, 0, 0, -1),
    "100": (-1, 0, 0, 1),
    "101": (0, 1, 1, 0),
    "011": (0, -1, -1, 0),
    "112": (1, 0, 0, 1),
}


def with_orientation(data: bytes, stated: str, first: int = 0) -> bytes:
    """Return an H.264 stream that states an orientation before each picture from one on, in a unit of its own."""
    bits = f"0{stated[:2]}{int(stated[2]) << 14:016b}" + "1" + "0" + "100"  # no cancelling, no repeating, no more
    unit = b"\0\0\0\1\x06" + bytes([47, 3]) + int(bits, 2).to_bytes(3, "big") + b"\x80"
    slices = [at.start() for at in re.finditer(rb"\x00\x00\x01[\x01\x05\x21\x25\x41\x45\x61\x65]", data)]
    for at in reversed(slices[first:]):
        data = data[:at] + unit + data[at:]
    return data


@pytest.mark.parametrize("stated", STATED)
def test_so_does_h264(tmp_path: Path, stated: str) -> None:
    data = write_blocks(tmp_path / "lying.h264")
    (tmp_path / "turned.h264").write_bytes(with_orientation(data, stated))
    lying, frame = first_frame(tmp_path / "lying.h264"), first_frame(tmp_path / "turned.h264")
    np.testing.assert_array_equal(frame.image, SHOWN[STATED[stated]](lying.image))


EXIF = {1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1)}
EXIF |= {5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0)}


@pytest.mark.parametrize("number", EXIF)
def test_so_does_motion_jpeg(tmp_path: Path, number: int) -> None:
    """Its frames come with EXIF, which PyAV has no name for."""
    data = write_blocks(tmp_path / "lying.mjpeg", "mjpeg", "yuvj420p", count=1)
    exif = b"Exif\0\0" + struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, number, 0, 0)
    (tmp_path / "turned.mjpeg").write_bytes(data[:2] + struct.pack(">HH", 0xFFE1, 2 + len(exif)) + exif + data[2:])
    lying, frame = first_frame(tmp_path / "lying.mjpeg"), first_frame(tmp_path / "turned.mjpeg")
    np.testing.assert_array_equal(frame.image, SHOWN[EXIF[number]](lying.image))


def test_a_picture_that_turns_is_not_static(tmp_path: Path) -> None:
    data = write_blocks(tmp_path / "lying.h264", count=6)
    (tmp_path / "turns.h264").write_bytes(with_orientation(data, "002", first=3))
    smoother = Smoother(("a", "b"))
    skipping = Skipping(4.0, smoother, lambda event: None)
    with open_source(tmp_path / "turns.h264") as source:
        marks = [skipping.marked(frame).mark for frame in source]
    assert [mark is Mark.CHANGED for mark in marks] == [True, False, False, True, False, False]


def test_saved_video_lies_upright(tmp_path: Path, bundle_path: Path, cli: Callable[..., Outcome]) -> None:
    data = write_blocks(tmp_path / "lying.mp4")
    source = write_matrix(tmp_path / "mirrored.mp4", data, np.array([[-1.0, 0], [0, 1]]))
    saved = tmp_path / "saved.mp4"
    assert cli("run", bundle_path, "--source", source, "--save", saved).status == 0
    above_the_bar = slice(0, HEIGHT // 2)
    expected = first_frame(tmp_path / "lying.mp4").image[above_the_bar, ::-1].astype(int)
    assert np.abs(first_frame(saved).image[above_the_bar] - expected).mean() < 8

"""Cameras of Linux, as far as a machine without one goes; tests/lab/camera has the rest, with real drivers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from ctypes import sizeof
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from edgevid import Event, Frame, Source, SourceError, SourceOptions, UsageError, open_camera, open_source
from edgevid.arrays import Image
from edgevid.sources import v4l2_camera
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.reconnect import Patience, ReconnectingSource
from edgevid.sources.v4l2 import Captured, Layout, users
from edgevid.sources.v4l2_camera import FORMATS, V4l2Camera, decoder, known_format
from edgevid.sources.v4l2_structs import Buffer, Format, MemoryPlane, Request
from tests.conftest import Outcome

Cli = Callable[..., Outcome]
BARS = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]) * 191
PADDING = 64  # bytes behind each row, as drivers have it
SIZE = 160, 96
QUICK = Patience(0.01, 0.01, 0.01)
PACKED = [name for name, pixels in FORMATS.items() if not pixels.ffmpeg.startswith(("bayer", "mjpeg", "gray"))]


def bars() -> Image:
    """Colour bars in BGR."""
    return np.repeat(BARS[None].astype(np.uint8), SIZE[0] // 8, axis=1).repeat(SIZE[1], axis=0)


def layout(fourcc: str, stride: int, colorspace: int = 8, encoding: int = 0, quantization: int = 0) -> Layout:
    return Layout(fourcc, *SIZE, stride, colorspace, encoding, quantization)


def as_captured(fourcc: str, colorspace: str = "ITU601", full_range: bool = False) -> tuple[bytes, int]:
    """The bars as a driver has them in memory, and the length of a row; FFmpeg writes them, not edgevid."""
    pixels = FORMATS[fourcc]
    frame = VideoFrame.from_ndarray(bars(), format="bgr24").reformat(
        format=pixels.ffmpeg, dst_colorspace=colorspace, dst_color_range="JPEG" if full_range else "MPEG"
    )
    data, stride = b"", 0
    for number in (0, 2, 1) if pixels.swapped else range(len(frame.planes)):
        plane = frame.planes[number]
        width = sum(part.width * -(-part.bits // 8) for part in frame.format.components if part.plane == number)
        if len(frame.planes) == 1:
            width = SIZE[0] * frame.format.padded_bits_per_pixel // 8
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, :width]
        padding = PADDING if not stride else PADDING * width // (stride - PADDING)
        stride = stride or width + padding
        data += np.pad(rows, ((0, 0), (0, padding))).tobytes()
    return data, stride


def seen(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The eight bars of a picture."""
    return image[SIZE[1] // 2, SIZE[0] // 16 :: SIZE[0] // 8].astype(int)


def read(fourcc: str, data: bytes, told: Layout, options: SourceOptions | None = None) -> Image | None:
    picture = decoder(told, options or SourceOptions())(data)
    return None if picture is None else Frame(0, 0.0, picture).image


@pytest.mark.parametrize("fourcc", PACKED)
def test_every_format_has_its_colours_with_rows_padded(fourcc: str) -> None:
    data, stride = as_captured(fourcc)
    image = read(fourcc, data, layout(fourcc, stride))
    assert image is not None
    assert np.abs(seen(image) - BARS).max() <= (8 if FORMATS[fourcc].ffmpeg.startswith("rgb5") else 4)
    assert read(fourcc, data[:-200], layout(fourcc, stride)) is None, "a frame that came in part is damaged"


@pytest.mark.parametrize("first", ["BA81", "GBRG", "GRBG", "RGGB"])
def test_a_bare_sensor(first: str) -> None:
    order = {"BA81": "bggr", "GBRG": "gbrg", "GRBG": "grbg", "RGGB": "rggb"}[first]
    mosaic = np.zeros(SIZE[::-1], np.uint8)
    for place, colour in enumerate(order):
        mosaic[place // 2 :: 2, place % 2 :: 2] = bars()[place // 2 :: 2, place % 2 :: 2, "bgr".index(colour)]
    image = read(first, mosaic.tobytes(), layout(first, SIZE[0]))
    assert image is not None
    assert np.abs(seen(image) - BARS).max() <= 1


@pytest.mark.parametrize(
    ("told", "unlike", "matrix", "full_range"),
    [
        ({"colorspace": 3}, {}, "ITU709", False),
        ({"colorspace": 8, "encoding": 2}, {}, "ITU709", False),
        ({"colorspace": 8, "quantization": 1}, {}, "ITU601", True),
        ({"colorspace": 7}, {}, "ITU601", True),
        ({"colorspace": 3, "encoding": 1}, {"colorspace": 3}, "ITU601", False),
    ],
    ids=["Rec. 709", "sRGB encoded as Rec. 709", "full range", "JPEG", "Rec. 709 encoded as BT.601"],
)
@pytest.mark.parametrize("fourcc", ["YUYV", "NV12", "YU12"])
def test_colours_are_read_as_the_driver_says(
    fourcc: str, told: dict[str, int], unlike: dict[str, int], matrix: str, full_range: bool
) -> None:
    data, stride = as_captured(fourcc, matrix, full_range)
    image, other = (read(fourcc, data, layout(fourcc, stride, **says)) for says in (told, unlike))
    assert image is not None
    assert other is not None
    assert np.abs(seen(image) - BARS).max() <= 4
    assert np.abs(seen(other) - BARS).max() > 8, "it matters"


def test_rgb_of_a_television_is_widened() -> None:
    narrow = (bars() / 255.0 * 219 + 16.5).astype(np.uint8)
    image = read("BGR3", narrow.tobytes(), layout("BGR3", SIZE[0] * 3, quantization=2))
    assert image is not None
    assert np.abs(seen(image) - BARS).max() <= 1


def test_a_damaged_jpeg_is_none() -> None:
    """FFmpeg would make a picture of half of it, and OpenCV give the one before again."""
    noisy = bars() + np.random.default_rng(0).integers(0, 60, bars().shape, np.uint8)
    data = cv2.imencode(".jpg", noisy)[1].tobytes()
    whole = read("MJPG", data, layout("MJPG", 0))
    assert whole is not None
    assert whole.shape == (*SIZE[::-1], 3)
    padded = read("MJPG", data + bytes(500), layout("MJPG", 0))
    assert np.array_equal(whole, padded), "drivers pad"  # type: ignore[arg-type]
    for damaged in (data[: len(data) // 2], data[: len(data) * 3 // 4], os.urandom(len(data)), b""):
        assert read("MJPG", damaged, layout("MJPG", 0)) is None
    decode = decoder(layout("MJPG", 0), SourceOptions())
    assert [decode(one) is not None for one in (data, b"", data, data[:900], data)] == [True, False, True, False, True]
    smaller = cv2.imencode(".jpg", noisy[:48, :80])[1].tobytes()
    assert read("MJPG", smaller, layout("MJPG", 0)) is None, "of the size before"
    as_they_are = SourceOptions(engine_options={"err_detect": "ignore_err"})
    assert read("MJPG", data[: len(data) // 2], layout("MJPG", 0), as_they_are) is not None


def test_an_option_for_ffmpeg_that_nothing_would_read_is_refused() -> None:
    with pytest.raises(UsageError, match="--source-option: there is nothing to decode in YUYV"):
        decoder(layout("YUYV", 320), SourceOptions(engine_options={"err_detect": "ignore_err"}))


def test_formats_by_their_names() -> None:
    assert (known_format("yuyv"), known_format("mjpg"), known_format("Y16"), known_format("NV12")) == (
        "YUYV",
        "MJPG",
        "Y16 ",
        "NV12",
    )


@pytest.mark.parametrize("fourcc", ["NV99", "HSV3", "H264", "bgr24"])
def test_a_format_that_cannot_be_read_is_wrong_usage_at_once(cli: Cli, bundle_path: Path, fourcc: str) -> None:
    outcome = cli("run", bundle_path, "--camera", "63", "--format", fourcc, "--wait")
    assert outcome.status == 2
    assert f"--format {fourcc}: no format that can be read; expected one of YUYV, UYVY," in outcome.error


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--camera", "63"], 1, "camera 63: it cannot be opened; there is no /dev/video63; "),
        (["--camera", "/dev/video63"], 1, "camera /dev/video63: it cannot be opened; there is no /dev/video63; "),
        (["--camera", "/dev/v4l/by-id/usb-x"], 1, "there is no /dev/v4l/by-id/usb-x; "),
        (["--camera", "/dev/null"], 1, "camera /dev/null: it cannot be opened; /dev/null is no video device; "),
        (
            ["--camera", "/dev"],
            2,
            "expected a number such as 0, or a device such as /dev/video0; for a file use --source",
        ),
        (["--source", "/dev/video0"], 2, "source '/dev/video0': for a camera use --camera /dev/video0"),
        (["--source", "0"], 2, "source '0': for a camera use --camera 0"),
    ],
)
def test_each_reason_has_its_own_message(
    cli: Cli, bundle_path: Path, arguments: list[str], status: int, message: str
) -> None:
    outcome = cli("run", bundle_path, *arguments)
    assert (outcome.status, message in outcome.error) == (status, True), outcome.error


def test_a_node_whose_driver_is_gone(tmp_path: Path) -> None:
    node = tmp_path / "video77"
    try:
        os.mknod(node, 0o20600, os.makedev(81, 77))
        os.close(os.open(node, os.O_RDWR))
    except PermissionError:
        pytest.skip("needs to make device nodes, as root")
    except OSError:
        pass
    with pytest.raises(SourceError, match=r"it cannot be opened; nothing is behind .*: was it unplugged"):
        open_camera(str(node))


def test_who_has_a_device_open() -> None:
    with Path("/dev/full").open("w"):
        assert os.getpid() in users("/dev/full")
    assert os.getpid() not in users("/dev/full")


@pytest.mark.skipif(sizeof(MemoryPlane) != 64, reason="needs a system of 64 bits")
def test_structures_are_those_of_the_kernel() -> None:
    """By the numbers that a C program of 64 bits prints."""
    assert (sizeof(Format), sizeof(Buffer)) == (208, 88)
    assert Request.CAPABILITY == 0x80685600
    assert (Request.FORMATS, Request.SIZES, Request.INTERVALS) == (0xC0405602, 0xC02C564A, 0xC034564B)
    assert (Request.GET_FORMAT, Request.SET_FORMAT) == (0xC0D05604, 0xC0D05605)
    assert (Request.GET_PARAMETERS, Request.SET_PARAMETERS) == (0xC0CC5615, 0xC0CC5616)
    assert (Request.BUFFERS, Request.BUFFER, Request.GIVE, Request.TAKE) == (
        0xC0145608,
        0xC0585609,
        0xC058560F,
        0xC0585611,
    )
    assert (Request.START, Request.STOP) == (0x40045612, 0x40045613)


class Scripted(Source):
    """Gives some frames, and then none."""

    live = exclusive = True
    time_base, rate = Fraction(1, 1_000_000), Fraction(30)

    def __init__(self, count: int, closing_s: float = 0.0) -> None:
        self.name, self.freed = "camera 0", False
        self._count, self._closing_s, self._over = count, closing_s, False

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            self.dropped += 2
            yield Frame(self.first_index + index, float(index), bars())
        while not self._over:
            time.sleep(0.01)

    def interrupt(self) -> None:
        self._over = True

    def close(self) -> None:
        time.sleep(self._closing_s)
        self.freed = True


def test_the_first_frame_decides_whether_it_is_tried_again() -> None:
    source = ReconnectingSource("camera 0", lambda: Scripted(0), SourceOptions(stall_after=0.1), patience=QUICK)
    with pytest.raises(SourceError, match=r"camera 0: no answer for 0.1 s; it was opened, and never gave a picture"):
        next(iter(source))
    options = SourceOptions(stall_after=0.1, wait=True)
    scripts = iter([Scripted(0), Scripted(0), Scripted(1)])
    waiting = ReconnectingSource("camera 0", lambda: next(scripts), options, patience=QUICK)
    told: list[Event] = []
    waiting.tell = told.append
    assert next(iter(waiting)).index == 0
    assert [event.kind for event in told] == ["lost", "back"]
    waiting.close()


def test_a_camera_is_free_when_it_is_closed() -> None:
    script = Scripted(1, closing_s=0.3)
    with Feed(ReconnectingSource("camera 0", lambda: script, SourceOptions())) as feed:
        next(iter(feed))
    assert script.freed


def test_frames_that_were_passed_over_are_counted_over_all_connections() -> None:
    options = SourceOptions(stall_after=0.1)
    with Feed(ReconnectingSource("camera 0", lambda: Scripted(3), options, patience=QUICK)) as feed:
        for _ in feed:
            if feed.source.gaps == 2:
                break
        replaced = feed.dropped - feed.source.dropped
        assert 2 * 7 <= feed.source.dropped <= 2 * 9
        assert replaced >= 0


def test_an_absent_camera_is_waited_for_by_its_path() -> None:
    options = SourceOptions(wait=True, reconnect_for=0.1)
    with pytest.raises(SourceError, match=r"not back within 0.1 s"):
        open_camera("/dev/video63", options)
    with pytest.raises(UsageError, match="for a camera use --camera"):
        open_source("/dev/video63")


class ScriptedDevice:
    """A driver: what it has is a table of sizes and rates by format, and its frames come in the order of a script.

    The script has a list for each time that frames are asked for: their numbers, negative where they are damaged.
    """

    has: ClassVar[dict[str, dict[tuple[int, int], int]]] = {}
    script: ClassVar[list[list[int]]] = []
    began = 0.0
    captures = True
    buffers = 4

    def __init__(self, path: str) -> None:
        self._left, self.given_back = iter(self.script), 0

    def formats(self) -> list[str]:
        return list(self.has)

    def sizes(self, fourcc: str) -> list[str]:
        return [f"{width}x{height}" for width, height in self.has[fourcc]]

    def fastest(self, fourcc: str) -> Fraction:
        return Fraction(max(self.has[fourcc].values()))

    def set_format(self, fourcc: str, size: tuple[int, int]) -> Layout:
        sizes = self.has[fourcc]
        size = size if size in sizes else max(sizes)
        self._most = sizes[size]
        return Layout(fourcc, *size, size[0] * 3, 8, 0, 0)

    def set_rate(self, rate: Fraction) -> Fraction:
        return min(rate, Fraction(self._most))

    def start(self) -> None: ...

    def wait(self, timeout_s: float) -> None: ...

    def waiting(self) -> list[Captured]:
        numbers = next(self._left, None)
        if numbers is None:
            raise OSError(19, "No such device")
        return [Captured(0, 0, 1, abs(number), self.began + abs(number) / 30, number < 0) for number in numbers]

    def copied(self, frame: Captured) -> bytes:
        return bars().tobytes()

    def give_back(self, frames: list[Captured]) -> None:
        self.given_back += len(frames)

    def close(self) -> None: ...


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedDevice]:
    """A camera that has BGR of 160x96 and gives what a test has it give."""

    class Device(ScriptedDevice):
        has: ClassVar = {"BGR3": {SIZE: 30}}
        began = time.monotonic() - 5

    monkeypatch.setattr(v4l2_camera, "VideoDevice", Device)
    return Device


def frames_until_gone(camera: V4l2Camera) -> list[Frame]:
    frames: list[Frame] = []
    with pytest.raises(SourceError, match="camera 0: it is gone: was it unplugged"):
        frames.extend(camera)
    return frames


@pytest.mark.parametrize(
    ("script", "indices", "dropped", "broken"),
    [
        ([[10], [], [11], [12]], [0, 1, 2], 0, 0),
        ([[10], [11, 12, 13], [14]], [0, 3, 4], 2, 0),
        ([[10], [13], [14]], [0, 3, 4], 2, 0),
        ([[10], [11, 12, 13, 14], [20]], [0, 10], 9, 0),
        ([[5, 6, 7], [8]], [0, 1], 0, 0),
        ([[2, 3, 4, 5], [90], [91]], [0, 1], 0, 0),
        ([[10], [-11], [12, -13], [14]], [0, 4], 1, 2),
        ([[10], [11], [3], [4]], [0, 1, 2, 3], 0, 0),
    ],
    ids=["in time", "late", "no room", "all old", "before reading", "old before reading", "damaged", "counted anew"],
)
def test_the_newest_frame_is_given_and_the_others_are_counted(
    device: type[ScriptedDevice], script: list[list[int]], indices: list[int], dropped: int, broken: int
) -> None:
    device.script = script
    camera = V4l2Camera(0)
    frames = frames_until_gone(camera)
    assert [frame.index for frame in frames] == indices
    assert (camera.dropped, camera.broken) == (dropped, broken)
    assert camera._device.given_back == sum(map(len, script)), "the driver has its buffers again"  # type: ignore[attr-defined]


def test_a_frame_is_as_old_as_the_driver_says(device: type[ScriptedDevice]) -> None:
    device.script = [[3], [6], [7]]
    frames = frames_until_gone(V4l2Camera(0))
    assert [frame.arrived - device.began for frame in frames] == pytest.approx([3 / 30, 6 / 30, 7 / 30])
    assert [frame.time for frame in frames] == pytest.approx([0, 3 / 30, 4 / 30])


def test_only_frames_that_are_wanted_are_decoded_and_counted(device: type[ScriptedDevice]) -> None:
    device.script = [[number] for number in range(7)] + [[7, 8], [9, 10, 11]]
    camera = V4l2Camera(0)
    camera.pick = Pick(stride=3)
    assert [frame.index for frame in frames_until_gone(camera)] == [0, 3, 6, 9]
    assert camera.dropped == 0


def test_a_camera_whose_pictures_are_all_damaged_is_lost(device: type[ScriptedDevice]) -> None:
    device.script = [[1]] + [[-number] for number in range(2, 200)]
    camera = V4l2Camera(0, SourceOptions(stall_after=2))
    with pytest.raises(SourceError, match="every picture of the last 2 s is damaged; try --format YUYV"):
        list(camera)
    assert camera.broken == 62


@pytest.fixture
def two_formats(device: type[ScriptedDevice]) -> None:
    """As many cameras have them: large pictures are JPEG, or slow."""
    device.has = {"HSV3": {(640, 480): 90}, "MJPG": {(800, 600): 30, (1280, 720): 30}}
    device.has["YUYV"] = {(640, 480): 30, (800, 600): 10}


@pytest.mark.usefixtures("two_formats")
@pytest.mark.parametrize(
    ("asked", "fourcc", "size"),
    [
        ({}, "YUYV", (640, 480)),
        ({"size": (1280, 720)}, "MJPG", (1280, 720)),
        ({"size": (800, 600)}, "MJPG", (800, 600)),
        ({"size": (800, 600), "fps": 10}, "YUYV", (800, 600)),
        ({"size": (800, 600), "format": "yuyv"}, "YUYV", (800, 600)),
        ({"fps": 5}, "YUYV", (640, 480)),
    ],
)
def test_a_format_is_chosen_that_has_what_was_asked_for(
    asked: dict[str, Any], fourcc: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Layout] = []
    monkeypatch.setattr(v4l2_camera, "decoder", lambda layout, options: chosen.append(layout))
    V4l2Camera(0, SourceOptions(**asked))
    assert [(layout.fourcc, (layout.width, layout.height)) for layout in chosen] == [(fourcc, size)]


@pytest.mark.usefixtures("two_formats")
@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"size": (1280, 720), "format": "YUYV"}, "YUYV 1280x720"),
        ({"fps": 60}, "60 fps"),
        ({"format": "NV12"}, "NV12"),
        ({"size": (800, 600), "format": "YUYV", "fps": 30}, "YUYV 800x600 30 fps"),
    ],
)
def test_what_a_camera_does_not_have_is_an_error_that_says_what_it_has(asked: dict[str, Any], what: str) -> None:
    has = "YUYV: 640x480, 800x600, up to 30 fps; MJPG: 800x600, 1280x720, up to 30 fps"
    with pytest.raises(SourceError, match=f"camera 0: {what} is not to be had; it has {has}$"):
        V4l2Camera(0, SourceOptions(**asked))


def test_a_device_without_a_format_that_can_be_read(device: type[ScriptedDevice]) -> None:
    device.has = {"H264": {(640, 480): 30}, "HSV3": {(640, 480): 30}}
    with pytest.raises(SourceError, match="a picture that can be read is not to be had; it has H264, HSV3, none of"):
        V4l2Camera(0)

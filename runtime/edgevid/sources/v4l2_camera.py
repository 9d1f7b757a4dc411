"""A camera of Linux: the newest of its frames, as the driver delivers them, decoded by FFmpeg."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple, TypeAlias

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from edgevid.errors import RefusedError, SourceError, UsageError
from edgevid.hardware import Camera, read_text
from edgevid.picture import Picture
from edgevid.planes import upright_picture
from edgevid.sources.base import Frame, Source
from edgevid.sources.options import DEFAULTS, SourceOptions
from edgevid.sources.v4l2 import Captured, Layout, VideoDevice, nodes, reported_name, users
from edgevid.sources.v4l2_structs import Capabilities

__all__ = ["FORMATS", "V4l2Camera", "cameras_here", "known_format"]

DEFAULT_SIZE, DEFAULT_RATE = (640, 480), Fraction(30)
RATE_TOLERANCE = Fraction(1, 2)
POLL_S = 0.1
LONGEST_STEP = 1000  # between the numbers of two frames; more is a driver that counts in another way
OLDEST_S = 10.0  # a stamp of longer ago is by another clock than ours


class PixelFormat(NamedTuple):
    """How FFmpeg calls a format, and as which planes it can be read without loss; others are read as BGR."""

    ffmpeg: str
    planes: str = ""
    swapped: bool = False  # V before U


JPEG = PixelFormat("mjpeg")
# By FourCC, what is taken first where nothing is asked for. Each was compared with the driver's own colour bars.
FORMATS = {
    "YUYV": PixelFormat("yuyv422", "yuv422p"),
    "UYVY": PixelFormat("uyvy422", "yuv422p"),
    "YVYU": PixelFormat("yvyu422", "yuv422p"),
    "NV12": PixelFormat("nv12", "yuv420p"),
    "NV21": PixelFormat("nv21", "yuv420p"),
    "NV16": PixelFormat("nv16", "yuv422p"),
    "NV24": PixelFormat("nv24", "yuv444p"),
    "NV42": PixelFormat("nv42", "yuv444p"),
    "YU12": PixelFormat("yuv420p", "yuv420p"),
    "YV12": PixelFormat("yuv420p", "yuv420p", swapped=True),
    "422P": PixelFormat("yuv422p", "yuv422p"),
    "BGR3": PixelFormat("bgr24"),
    "RGB3": PixelFormat("rgb24"),
    "BGR4": PixelFormat("bgr0"),
    "XR24": PixelFormat("bgr0"),
    "AR24": PixelFormat("bgr0"),
    "RGB4": PixelFormat("0rgb"),
    "BX24": PixelFormat("0rgb"),
    "BA24": PixelFormat("0rgb"),
    "XB24": PixelFormat("rgb0"),
    "AB24": PixelFormat("rgb0"),
    "RX24": PixelFormat("0bgr"),
    "RA24": PixelFormat("0bgr"),
    "RGBP": PixelFormat("rgb565le"),
    "RGBO": PixelFormat("rgb555le"),
    "XR15": PixelFormat("rgb555le"),
    "AR15": PixelFormat("rgb555le"),
    "AYUV": PixelFormat("ayuv"),
    "VUYA": PixelFormat("vuya"),
    "VUYX": PixelFormat("vuyx"),
    "MJPG": JPEG,
    "JPEG": JPEG,
    "GREY": PixelFormat("gray"),
    "Y10 ": PixelFormat("gray10le"),
    "Y12 ": PixelFormat("gray12le"),
    "Y16 ": PixelFormat("gray16le"),
    "BA81": PixelFormat("bayer_bggr8"),
    "GBRG": PixelFormat("bayer_gbrg8"),
    "GRBG": PixelFormat("bayer_grbg8"),
    "RGGB": PixelFormat("bayer_rggb8"),
}
# From V4L2's numbers to those of FFmpeg and H.273: 1 is BT.709, 5 BT.601, 9 BT.2020.
# SMPTE 240M is read as BT.709, from which it differs by a few grey levels.
MATRICES = {1: 5, 2: 1, 3: 5, 4: 1, 5: 5, 6: 9, 7: 9, 8: 1}
MATRIX_OF_COLORSPACE = {2: 1, 3: 1, 10: 9, 12: 1}  # by SMPTE 240M, Rec. 709, BT.2020, DCI-P3; of others BT.601
BT601, JPEG_COLORSPACE, FULL_RANGE, LIMITED_RANGE = 5, 7, 1, 2
# Why it cannot be opened, by the number of the system's error.
NO_DEVICE = "nothing is behind {path}: was it unplugged? {cameras}"
REASONS = {
    errno.ENOENT: "there is no {path}; {cameras}",
    errno.ENODEV: NO_DEVICE,
    errno.ENXIO: NO_DEVICE,
    errno.ENOTTY: "{path} is no video device; {cameras}",
    errno.EINVAL: "{path} is no video device; {cameras}",
    errno.ENOSPC: "its USB bus has no room for it beside other cameras: try --format MJPG, a smaller --size or --fps, "
    "or another port",
}
MEMBERSHIP = "run  sudo usermod -aG video $USER  and log in again"
NO_CAMERAS = {
    Capabilities.CODEC | Capabilities.CODEC_PLANES: "it is a codec, which takes pictures and gives others",
    Capabilities.METADATA: "it gives a camera's metadata, and no pictures",
    Capabilities.OUTPUT | Capabilities.OUTPUT_PLANES: "it is an output: it takes pictures, and gives none",
}
DAMAGED = "damaged; try --format YUYV, or see them as they are with --source-option err_detect=ignore_err"
STUDIO_RGB = np.clip((np.arange(256) - 16) * 255 / 219 + 0.5, 0, 255).astype(np.uint8)


Decode: TypeAlias = Callable[[bytes], "Picture | None"]


@dataclass(frozen=True)
class Numbered:
    """A frame with its number and time in the stream.

    Attributes:
        stamp: when it was taken, on the monotonic clock.
        sequence: the driver's number of it.
        data: a copy of it, so that the driver has room for the next while it is decoded; empty if it is damaged or
            passed over.
    """

    index: int
    time: float
    stamp: float
    sequence: int
    data: bytes = b""


class V4l2Camera(Source):
    """The newest frame of a camera whenever one is asked for, until it stops; those passed over are counted.

    Times are those at which the driver says that frames were taken, in seconds since the first.

    Args:
        device: the camera's number, or its path.
        options: size, rate and pixel format to ask it for.

    Raises:
        UsageError: the pixel format is none that is known here.
        RefusedError: this user may not open it.
        SourceError: it is not there, is used by another program, or does not deliver what was asked for.
    """

    live = exclusive = True
    time_base = Fraction(1, 1_000_000)

    def __init__(self, device: int | str, options: SourceOptions = DEFAULTS) -> None:
        self.name = f"camera {device}"
        self._path = f"/dev/video{device}" if isinstance(device, int) else device
        self._options, self._interrupted = options, False
        self._last: Numbered | None = None
        wanted = options.format and known_format(options.format)
        try:
            self._device = VideoDevice(self._path)
        except OSError as error:
            raise self._refusal(error) from error
        try:
            if not self._device.captures:
                raise SourceError(
                    f"{self.name}: it cannot be opened; {_no_camera(self._device.able)}; {_cameras_text()}"
                )
            layout, rate = self._agreed(wanted)
            self._decode = decoder(layout, options)
            self._device.start()
        except OSError as error:
            self.close()
            raise self._refusal(error) from error
        except BaseException:
            self.close()
            raise
        self.rate = rate or DEFAULT_RATE

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frames until the camera stops, which raises SourceError."""
        damaged_since = None
        while not self._interrupted:
            try:
                newest = self._newest()
            except OSError as error:
                raise SourceError(f"{self.name}: {_why_it_stopped(error)}") from error
            if newest is None:
                continue
            if newest.time >= self.pick.end:
                return
            picture = self._decode(newest.data) if newest.data else None
            if picture is not None:
                damaged_since = None
                yield Frame(newest.index, newest.time, picture, newest.stamp)
                continue
            self.broken += 1
            damaged_since = damaged_since or newest.stamp
            if newest.stamp - damaged_since > self._options.stall_after:
                raise SourceError(
                    f"{self.name}: every picture of the last {self._options.stall_after:g} s is {DAMAGED}"
                )

    def interrupt(self) -> None:
        """End within a tenth of a second; may be called on any thread."""
        self._interrupted = True

    def close(self) -> None:
        """Let others have the camera."""
        self._device.close()

    def _newest(self) -> Numbered | None:
        """Return the newest frame that is wanted; those before it are counted."""
        self._device.wait(POLL_S)
        waiting = self._device.waiting()
        if not waiting:
            return None
        self.heard = monotonic()
        too_old = len(waiting) == self._device.buffers > 1  # there was no room for newer ones
        if self._last is None:  # what came while nobody read is none of the stream
            frames = [] if too_old else [(self._numbered(waiting[-1]), waiting[-1])]
        else:
            frames = [(self._numbered(captured), captured) for captured in waiting]
        wanted = [(frame, captured) for frame, captured in frames if self.pick.wants(frame.index, frame.time)]
        newest = None
        if wanted and not too_old:
            frame, captured = wanted[-1]
            newest = frame if captured.damaged else replace(frame, data=self._device.copied(captured))
        self.dropped += len(wanted) - (newest is not None)
        self._device.give_back(waiting)
        return newest

    def _numbered(self, captured: Captured) -> Numbered:
        """Return a frame's number and time; those that the driver had no room for are counted."""
        now = monotonic()
        stamp = captured.time if captured.time is not None and now - captured.time < OLDEST_S else now
        stamp = min(stamp, now)
        last = self._last
        if last is None:
            self._last = Numbered(self.first_index, 0.0, stamp, captured.sequence)
            return self._last
        step = captured.sequence - last.sequence
        step = step if 0 < step < LONGEST_STEP else 1
        time = last.time + max(0.0, stamp - last.stamp)
        missed = range(last.index + 1, last.index + step)
        self.dropped += sum(self.pick.wants(index, time) for index in missed)
        self._last = Numbered(last.index + step, time, stamp, captured.sequence)
        return self._last

    def _agreed(self, wanted: str | None) -> tuple[Layout, Fraction]:
        """Agree with the driver on format, size and rate: those asked for, else the first format that is fast enough.

        Sizes and rates depend on the format: many cameras have the large ones as JPEG only.
        """
        options, had = self._options, self._device.formats()
        rate = Fraction(options.fps).limit_denominator(1001) if options.fps else DEFAULT_RATE
        best: tuple[Fraction, Layout] | None = None
        for fourcc in [one for one in FORMATS if one in had and wanted in (None, one)]:
            layout = self._device.set_format(fourcc, options.size or DEFAULT_SIZE)
            given = self._device.set_rate(rate)
            fits = layout.fourcc == fourcc and options.size in (None, (layout.width, layout.height))
            if not fits or (options.fps and abs(given - rate) > RATE_TOLERANCE):
                continue
            if not given or given >= rate - RATE_TOLERANCE:
                return layout, given
            if best is None or given > best[0]:
                best = given, layout
        if best is None:
            raise SourceError(f"{self.name}: {self._asked_for()} is not to be had; it has {self._had()}")
        layout = self._device.set_format(best[1].fourcc, (best[1].width, best[1].height))
        return layout, self._device.set_rate(rate)

    def _asked_for(self) -> str:
        options = self._options
        size = "x".join(map(str, options.size)) if options.size else ""
        rate = f"{options.fps:g} fps" if options.fps else ""
        return " ".join(part for part in (options.format, size, rate) if part) or "a picture that can be read"

    def _had(self) -> str:
        return "; ".join(described(self._device)) or f"{', '.join(self._device.formats())}, none of which can be read"

    def _refusal(self, error: OSError) -> SourceError:
        """Return why it cannot be opened, and what to do."""
        path, number = self._path, error.errno
        text = f"{self.name}: it cannot be opened; "
        if number == errno.EACCES:
            return RefusedError(text + f"this user may not; {MEMBERSHIP}")
        if number == errno.EPERM:
            return RefusedError(text + f"this container may not; start it with  --device {path}")
        if number == errno.EBUSY:
            return SourceError(text + _who_uses(path))
        reason = REASONS.get(number or 0, f"its driver says: {error.strerror}")
        return SourceError(text + reason.format(path=path, cameras=_cameras_text()))


def known_format(name: str) -> str:
    """Return the FourCC of a pixel format, in whatever case it was given.

    Raises:
        UsageError: it is none that can be read.
    """
    fourcc = name.upper().ljust(4)
    if fourcc not in FORMATS:
        names = ", ".join(one.strip() for one in FORMATS)
        raise UsageError(f"--format {name}: no format that can be read; expected one of {names}")
    return fourcc


def decoder(layout: Layout, options: SourceOptions) -> Decode:
    """Return a function that makes a picture of a frame's bytes, and None of one that is damaged."""
    pixels = FORMATS[layout.fourcc]
    if pixels is JPEG:
        return _jpeg_decoder(layout, options)
    if options.engine_options:
        raise UsageError(f"--source-option: there is nothing to decode in {layout.fourcc}; it is for --format MJPG")
    return partial(_raw_picture, layout, pixels)


def _jpeg_decoder(layout: Layout, options: SourceOptions) -> Decode:
    # By itself FFmpeg makes a picture of what it finds, and fills the rest with grey.
    context = av.CodecContext.create("mjpeg", "r")
    context.thread_count = 1  # the other cores are the engines'
    context.options = {"err_detect": "explode", **options.engine_options}

    def decode(data: bytes) -> Picture | None:
        try:  # an empty packet would end the stream
            frames = context.decode(av.Packet(data)) if data else []
        except av.error.FFmpegError:
            return None
        sizes = [(frame.width, frame.height) for frame in frames]
        # One of another size was on its way when the size was changed.
        return upright_picture(frames[0])[0] if sizes == [(layout.width, layout.height)] else None

    return decode


def _raw_picture(layout: Layout, pixels: PixelFormat, data: bytes) -> Picture | None:
    frame = VideoFrame(layout.width, layout.height, pixels.ffmpeg)
    if not _fill(frame, layout.stride, pixels.swapped, np.frombuffer(data, np.uint8)):
        return None
    frame.colorspace, frame.color_range = colours(layout)
    if pixels.planes not in ("", pixels.ffmpeg):
        frame = VideoReformatter().reformat(frame, format=pixels.planes, threads=1)
    picture, _ = upright_picture(frame)
    if frame.format.is_rgb and layout.quantization == LIMITED_RANGE and isinstance(picture, np.ndarray):
        return cv2.LUT(picture, STUDIO_RGB).astype(np.uint8, copy=False)
    return picture


def _fill(frame: VideoFrame, stride: int, swapped: bool, data: npt.NDArray[np.uint8]) -> bool:
    """Copy the rows of a picture into a frame, and return whether all of them are there."""
    widths = [0] * len(frame.planes)
    for component in frame.format.components:
        widths[component.plane] += component.width
    begin = 0
    for number in (0, 2, 1) if swapped else range(len(widths)):
        plane, step = frame.planes[number], stride * widths[number] // widths[0]
        end = begin + step * plane.height
        if end > len(data):
            return False
        rows = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size).reshape(plane.height, -1)
        common = min(step, plane.line_size)
        rows[:, :common] = data[begin:end].reshape(plane.height, step)[:, :common]
        begin = end
    return True


def colours(layout: Layout) -> tuple[int, int]:
    """Return how RGB became YUV, and in what range, in FFmpeg's numbers; what is not told follows from the rest."""
    matrix = MATRICES.get(layout.encoding) or MATRIX_OF_COLORSPACE.get(layout.colorspace, BT601)
    full = layout.quantization == FULL_RANGE or (not layout.quantization and layout.colorspace == JPEG_COLORSPACE)
    return matrix, ColorRange.JPEG if full else ColorRange.MPEG


def cameras_here(*, formats: bool) -> list[Camera]:
    """Return the cameras of this machine, with those that this user may not open; neither outputs nor codecs.

    Args:
        formats: whether each is asked for its formats, which are many questions.
    """
    found = []
    for path in nodes():
        try:
            with closing(VideoDevice(path)) as device:
                if device.captures:
                    found.append(Camera(path, device.card, True, tuple(described(device)) if formats else ()))
        except PermissionError:
            found.append(Camera(path, reported_name(path), False))
        except OSError:  # nothing is behind it
            continue
    return found


def described(device: VideoDevice) -> list[str]:
    """Return the formats of a device that can be read, with sizes and the highest rate, a line for equal ones."""
    names: dict[str, list[str]] = {}
    had = device.formats()
    for fourcc in (one for one in FORMATS if one in had):
        fastest = device.fastest(fourcc)
        rate = f", up to {float(fastest):g} fps" if fastest else ""
        names.setdefault(", ".join(device.sizes(fourcc)) + rate, []).append(fourcc.strip())
    return [f"{' '.join(fourccs)}: {sizes}" for sizes, fourccs in names.items()]


def _cameras_text() -> str:
    here = ", ".join(f"{camera.path} ({camera.name})" for camera in cameras_here(formats=False))
    return f"there are {here}" if here else "no camera on this machine: plug one in, or load its driver"


def _no_camera(able: Capabilities) -> str:
    return next((what for which, what in NO_CAMERAS.items() if able & which), "no pictures come from it")


def _who_uses(path: str) -> str:
    processes = users(path)
    if os.getpid() in processes:
        return "this process has it open already"
    names = [f"{read_text(Path(f'/proc/{process}/comm'))} (process {process})" for process in processes]
    return f"it is used by {' and '.join(names) or f'another program, which  sudo fuser -v {path}  names'}"


def _why_it_stopped(error: OSError) -> str:
    gone = error.errno in (errno.ENODEV, errno.ENXIO)
    return "it is gone: was it unplugged?" if gone else f"it stopped delivering: {error.strerror}"

"""One contract for every source, and what each says about input that it cannot read."""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame

from edgevid import Frame, Source, SourceError, open_camera, open_source
from edgevid.manifest import InputSpec, Preprocessing, Tensor
from edgevid.preprocess import Preprocessor
from edgevid.sources.camera import CameraSource
from tests.conftest import write_clip

Opener = Callable[[], Source]


@pytest.fixture(params=["video", "images", "camera"])
def opener(request: pytest.FixtureRequest, clip: Path, images: Path) -> Opener:
    """Every source there is; the camera is read through OpenCV from a file, since no machine of CI has one."""
    return {
        "video": lambda: open_source(clip),
        "images": lambda: open_source(images),
        "camera": lambda: CameraSource(str(clip)),
    }[request.param]


def frames_of(source: Source) -> list[Frame]:
    """All frames; a camera that stops is an error, after its last frame."""
    frames = []
    with pytest.raises(SourceError, match="stopped delivering") if source.live else nullcontext():
        for frame in source:
            frames.append(frame)
    return frames


def test_frames_come_in_order_with_rising_times(opener: Opener) -> None:
    with opener() as source:
        frames = frames_of(source)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.time for frame in frames]
    assert times[0] == 0
    assert all(later > earlier for earlier, later in pairwise(times))


def test_frames_are_bgr_uint8(opener: Opener) -> None:
    with opener() as source:
        frame = frames_of(source)[0]
    assert frame.image.dtype == np.uint8
    assert frame.image.shape == (72, 96, 3)
    blue, _, red = frame.image.reshape(-1, 3).mean(axis=0)
    assert red > blue + 100  # every one of them begins red


def test_a_source_says_what_it_is(opener: Opener) -> None:
    with opener() as source:
        assert source.rate > 0
        assert isinstance(source.rate, Fraction)
        assert isinstance(source.time_base, Fraction)
        frames = frames_of(source)
        assert source.frame_count in (None, len(frames))
        assert source.broken == 0
        assert source.name


def test_closing_twice_is_safe(opener: Opener) -> None:
    source = opener()
    source.close()
    source.close()


def test_video_keeps_the_files_own_timestamps(clip: Path) -> None:
    with open_source(clip) as source:
        assert source.rate == Fraction(30000, 1001)
        for frame in source:
            assert frame.time == pytest.approx(frame.index * 1001 / 30000, abs=1e-6)
        assert frame.index == 59


def test_frames_are_gone_once_nobody_has_them(clip: Path) -> None:
    """Without Python's collector of garbage: a frame of 4K is 12 MB."""
    gc.collect()
    gc.disable()
    try:
        with open_source(clip) as source:
            for _ in source:
                pass
            left = sum(isinstance(each, VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert left < 10


def test_images_come_in_natural_order(images: Path) -> None:
    with open_source(images) as source:
        reds = [int(frame.image[..., 2].mean() > 150 and frame.image[..., 0].mean() < 100) for frame in source]
    assert reds == [1, 1, 1] + [0] * 9  # img10 and img11 are no red ones between img1 and img2


def test_a_clip_broken_in_the_middle_goes_on(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "broken.mp4", ["red", "green"] * 60, g="12")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 6000] = np.random.default_rng(0).bytes(6000)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.broken > 0
    assert 60 < len(frames) < 120
    for frame in frames[-10:]:  # the number is that in the source, the broken ones counted
        assert abs(frame.index - frame.time * 25) <= 2
    assert frames[-1].time > 4.5  # it went on to the end


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_clip_is_shown_as_the_camera_was_held(tmp_path: Path, degrees: int) -> None:
    import cv2

    path = write_clip(tmp_path / "rotated.mp4", ["red"] * 3, height=64, width=96)
    data = path.read_bytes()
    header = data.index(b"tkhd")
    sine, cosine = {90: (1, 0), 180: (0, -1), 270: (-1, 0)}[degrees]
    matrix = struct.pack(">9i", *(value << 16 for value in (cosine, sine, 0, -sine, cosine, 0)), 0, 0, 1 << 30)
    start = header + 4 + 40  # version 0: the matrix follows 40 bytes of other facts
    path.write_bytes(data[:start] + matrix + data[start + 36 :])
    expected = cv2.VideoCapture(str(path)).read()[1]
    with open_source(path) as source:
        frame = next(iter(source))
        image = frame.image
    assert image.shape == expected.shape == ((64, 96, 3) if degrees == 180 else (96, 64, 3))
    assert np.abs(image.astype(int) - expected).mean() < 3
    grey_levels = Preprocessing(mean=(0.0,), std=(1.0,))
    spec = InputSpec(height=50, width=40, channels=3, color="bgr")
    preprocess = Preprocessor(spec, grey_levels, Tensor(shape=(1, 50, 40, 3), dtype="float32"))
    turned = preprocess.pixels(frame.picture).astype(int)
    assert np.abs(turned - preprocess.pixels(image)).mean() < 4
    assert np.abs(turned - preprocess.pixels(image)[::-1, ::-1]).mean() > 6, "noise tells the ways round apart"


def test_a_broken_image_is_counted(tmp_path: Path, images: Path) -> None:
    for image in list(images.iterdir())[:3]:
        (tmp_path / image.name).write_bytes(image.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with open_source(tmp_path) as source:
        assert len(list(source)) == 3
        assert source.broken == 2
        assert source.frame_count == 5


def _audio_only(folder: Path) -> Path:
    import wave

    path = folder / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return path


def _with(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.mp4", "no such file or folder; expected a video"),
        (lambda folder: _with(folder, "empty.mp4", b""), "the file is empty; expected a video"),
        (lambda folder: _with(folder, "text.mp4", b"not a video at all\n" * 50), "cannot be read as a video"),
        (lambda folder: _with(folder, "labels.txt", b"cat\ndog\n" * 2000), "it is text; expected a video file"),
        (_audio_only, "no video stream"),
        (lambda folder: folder, "no images in it"),
    ],
)
def test_what_is_no_source_is_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=message) as error:
        open_source(path)
    assert str(path) in str(error.value)


def test_a_video_of_a_codec_that_is_not_known(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(SourceError, match=r"unknown\.mp4: there is no decoder for its video; expected a video file"):
        open_source(path)


def test_a_folder_of_broken_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with open_source(tmp_path) as source, pytest.raises(SourceError, match="none of its 1 images can be decoded"):
        list(source)


def test_a_clip_without_a_frame_that_can_be_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "rubble.mp4", ["red"] * 10)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(SourceError, match="no frame of it can be decoded"):
        list(source)


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="camera 63: it cannot be opened; "):
        open_camera(63)
    assert capfd.readouterr().err == ""  # OpenCV's own warnings are kept from the user


@pytest.mark.needs_camera
def test_a_real_camera() -> None:
    with open_camera(0) as source:
        first = next(iter(source))
    assert first.image.ndim == 3

"""What ``--save`` writes: as long as predictions say, frame by frame, in the shape of the source."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import Frame, Prediction, open_source
from edgevid.arrays import Image
from edgevid.sinks import open_video
from tests.conftest import Outcome, picture, write_clip
from tests.test_orientation import write_matrix

Cli = Callable[..., Outcome]


def write_timed(path: Path, times: Sequence[float], unit: Fraction) -> Path:
    """Write a clip of frames at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        stream.codec_context.time_base = unit
        for index, time in enumerate(times):
            frame = VideoFrame.from_ndarray(picture("red", seed=index), format="bgr24")
            frame.pts, frame.time_base = round(time / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_shaped(path: Path, ratio: Fraction | None, height: int = 72, width: int = 96, count: int = 2) -> Path:
    """Write a clip of a white picture whose pixels have that shape."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if ratio:
            stream.codec_context.sample_aspect_ratio = ratio
        white = np.full((height, width, 3), 255, np.uint8)
        for _ in range(count):
            container.mux(stream.encode(VideoFrame.from_ndarray(white, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def mixed_rates(folder: Path) -> str:
    for name, rate, width in (("a", 10, 96), ("b", 30, 96), ("c", Fraction(24000, 1001), 80), ("d", 50, 96)):
        write_clip(folder / f"{name}.mp4", ["red"] * 10, rate=Fraction(rate), width=width)
    return f"{folder}/*.mp4"


def uneven(folder: Path) -> str:
    return str(write_timed(folder / "uneven.mkv", (0, 0.033, 0.5, 0.51, 0.517, 2.1, 2.2), Fraction(1, 1000)))


def images(folder: Path) -> str:
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), picture("blue", 40 + index, 60 - index))
    return str(folder)


def times_of(saved: Path, predictions: Path) -> tuple[list[float], list[float], float]:
    """Return the times of the frames saved, those of the predictions, and how long the last part's file is."""
    shown: list[float] = []
    for part in sorted(saved.parent.glob(f"{saved.stem}*{saved.suffix}")):
        with av.open(str(part)) as container:
            shown += [frame.time for frame in container.decode(video=0) if frame.time is not None]
            stream = container.streams.video[0]
            length = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / 1e6
    lines = [
        json.loads(line)
        for part in sorted(predictions.parent.glob(f"{predictions.stem}*.jsonl"))
        for line in part.read_text(encoding="utf-8").splitlines()
    ]
    return shown, [line["time"] for line in lines], length


@pytest.mark.parametrize(
    ("make", "options", "suffix", "last_s"),
    [
        (mixed_rates, (), ".mp4", 0.02),
        (mixed_rates, (), ".mov", 0.02),
        (mixed_rates, (), ".mkv", 0.02),
        (mixed_rates, ("--stride", 3), ".mp4", 0.06),
        (mixed_rates, ("--segment", "1s"), ".mp4", None),
        (mixed_rates, ("--realtime",), ".mp4", 0.02),
        (uneven, (), ".mp4", 0.1),
        (uneven, ("--start", "0.5"), ".mp4", None),
        (images, (), ".mp4", 0.04),
    ],
)
def test_saved_video_lasts_as_long_as_its_predictions(
    tmp_path: Path,
    bundle_path: Path,
    cli: Cli,
    make: Callable[[Path], str],
    options: tuple[object, ...],
    suffix: str,
    last_s: float | None,
) -> None:
    (tmp_path / "in").mkdir()
    saved, predictions = tmp_path / f"saved{suffix}", tmp_path / "predictions.jsonl"
    source = make(tmp_path / "in")
    outcome = cli("run", bundle_path, "--source", source, "--save", saved, "--predictions", predictions, *options)
    assert outcome.status == 0, outcome.err
    shown, told, length = times_of(saved, predictions)
    assert len(told) >= 5
    assert shown == pytest.approx(told, abs=6e-4 if suffix == ".mkv" else 2e-5)  # Matroska counts milliseconds
    if last_s:
        assert length == pytest.approx(told[-1] + last_s, abs=2e-3)


def test_times_before_zero_are_written_from_zero_on(tmp_path: Path, clip: Path) -> None:
    saved = tmp_path / "saved.mp4"
    with open_source(clip) as source, open_video(saved, source) as sink:
        for index in range(5):
            time = index / 10 - 0.25
            sink.write(Frame(index, time, picture("red")), Prediction(index, time, "red", 0.9, "red", 0.9))
    with av.open(str(saved)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)


def shape_of(path: Path) -> tuple[int, int, Fraction | None]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height, stream.sample_aspect_ratio


@pytest.mark.parametrize("ratio", [Fraction(64, 45), Fraction(3, 4), Fraction(1), None])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_saved_video_has_the_shape_of_its_source(
    tmp_path: Path, bundle_path: Path, cli: Cli, suffix: str, ratio: Fraction | None
) -> None:
    source, saved = write_shaped(tmp_path / f"in{suffix}", ratio), tmp_path / f"saved{suffix}"
    assert cli("run", bundle_path, "--source", source, "--save", saved).status == 0
    assert shape_of(saved) == shape_of(source)


def test_a_picture_on_its_side_has_its_pixels_on_their_side(tmp_path: Path, bundle_path: Path, cli: Cli) -> None:
    data = write_shaped(tmp_path / "lying.mp4", Fraction(4, 3)).read_bytes()
    source = write_matrix(tmp_path / "turned.mp4", data, np.array([[0.0, 1], [-1, 0]]))
    assert cli("run", bundle_path, "--source", source, "--save", tmp_path / "saved.mp4").status == 0
    assert shape_of(tmp_path / "saved.mp4") == (72, 96, Fraction(3, 4))


def test_the_shape_of_pixels_may_change_in_mid_stream(tmp_path: Path) -> None:
    parts = [write_shaped(tmp_path / f"{ratio}.h264", Fraction(ratio), count=20) for ratio in (3, 1)]
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(tmp_path / "both.h264") as source:
        ratios = [frame.sample_aspect_ratio for frame in source]
    assert (ratios[0], ratios[-1]) == (Fraction(3), Fraction(1))


def last_image(path: Path) -> Image:
    frames: list[Frame] = []
    with open_source(path) as source:
        frames.extend(source)
    return frames[-1].image


@pytest.mark.parametrize(
    ("ratio", "size", "white"),
    [
        (Fraction(3, 2), (72, 96), (72, 96)),
        (None, (72, 144), (72, 96)),  # as wide on the screen
        (None, (72, 96), (72, 64)),
        (Fraction(3), (72, 96), (36, 96)),
    ],
)
def test_clips_of_other_pixels_are_fitted_as_they_look(
    tmp_path: Path,
    bundle_path: Path,
    cli: Cli,
    ratio: Fraction | None,
    size: tuple[int, int],
    white: tuple[int, int],
) -> None:
    write_shaped(tmp_path / "a.mp4", Fraction(3, 2))
    write_shaped(tmp_path / "b.mp4", ratio, *size)
    saved = tmp_path / "saved.mkv"
    assert cli("run", bundle_path, "--source", f"{tmp_path}/?.mp4", "--save", saved).status == 0
    assert shape_of(saved) == (96, 72, Fraction(3, 2))
    bright = last_image(saved)[:48, :, 1] > 200  # what is above the bar with the label
    assert bright[:30].sum(axis=1).tolist() == pytest.approx([white[1]] * 30, abs=3)
    assert bright[:, 10].sum() == pytest.approx(min(48, white[0]), abs=2)


@pytest.mark.parametrize(("height", "width"), [(2, 16386), (16386, 2)])
def test_pictures_too_large_for_h264(tmp_path: Path, bundle_path: Path, cli: Cli, height: int, width: int) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((height, width, 3), np.uint8))
    outcome = cli("run", bundle_path, "--source", tmp_path / "in", "--save", tmp_path / "saved.mp4")
    assert outcome.status == 1
    assert f"{width}×{height}" in outcome.error
    assert "16384" in outcome.error
    assert not (tmp_path / "saved.mp4").exists()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (3, 3), (2, 16384)])
def test_pictures_of_any_other_size_are_written(
    tmp_path: Path, bundle_path: Path, cli: Cli, height: int, width: int
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((height, width, 3), np.uint8))
    assert cli("run", bundle_path, "--source", tmp_path / "in", "--save", tmp_path / "saved.mp4").status == 0
    assert shape_of(tmp_path / "saved.mp4")[:2] == (width + width % 2, height + height % 2)

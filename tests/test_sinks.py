"""One contract for every sink, and what a user finds in the files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgevid import Frame, Prediction, SinkError, Source, UsageError, open_source
from edgevid.draw import annotate
from edgevid.sinks import PREDICTION_SUFFIXES, VIDEO_SUFFIXES, Sink, open_predictions, open_video
from edgevid.sinks.background import BackgroundSink
from tests.conftest import picture, write_tagged_clip

SUFFIXES = (*PREDICTION_SUFFIXES, *VIDEO_SUFFIXES)


def prediction(index: int, label: str = "mountain bike", top: bool = False) -> Prediction:
    best = ((label, 0.61), ('tricycle, "three"', 0.2)) if top else ()
    return Prediction(index, index * 1001 / 30000, label, 0.61, "tricycle", 0.33333, best)


def frame(index: int, height: int = 72, width: int = 96) -> Frame:
    return Frame(index, index * 1001 / 30000, picture("blue", height, width, index))


@pytest.fixture
def source(clip: Path) -> Source:
    return open_source(clip)


def opened(path: Path, source: Source, force: bool = False) -> Sink:
    if path.suffix in VIDEO_SUFFIXES:
        return open_video(path, source, force=force)
    return open_predictions(str(path), force=force)


def write_many(sink: Sink, count: int) -> None:
    """Write frames and close the sink, whatever happens."""
    with sink:
        for index in range(count):
            sink.write(frame(index), prediction(index))


def written(path: Path) -> int:
    """How many frames a file tells of."""
    if path.suffix in VIDEO_SUFFIXES:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    lines = path.read_text(encoding="utf-8").splitlines()
    return len(lines) - (path.suffix == ".csv")


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_arrives(tmp_path: Path, source: Source, suffix: str, background: bool) -> None:
    path = tmp_path / f"out{suffix}"
    sink = opened(path, source)
    with BackgroundSink(sink, depth=25) if background else sink as outer:
        for index in range(25):
            outer.write(frame(index), prediction(index))
    assert written(path) == 25


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_closing_twice_is_safe(tmp_path: Path, source: Source, suffix: str) -> None:
    sink = opened(tmp_path / f"out{suffix}", source)
    sink.write(frame(0), prediction(0))
    sink.close()
    sink.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, source: Source, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("precious")
    with pytest.raises(SinkError, match=r"exists already; .* use --force"):
        opened(path, source)
    assert path.read_text() == "precious"
    with opened(path, source, force=True) as sink:
        sink.write(frame(0), prediction(0))
    assert written(path) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_not_there(tmp_path: Path, source: Source, suffix: str) -> None:
    with pytest.raises(SinkError, match=r"the folder .*absent does not exist; create it first"):
        opened(tmp_path / "absent" / f"out{suffix}", source)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs_dev_full: no /dev/full on this system")
def test_a_full_disk_is_an_error(tmp_path: Path, source: Source, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.symlink_to("/dev/full")
    with pytest.raises(SinkError, match=r"cannot be written \(No space left on device\)"):
        write_many(opened(path, source, force=True), 400)


@pytest.mark.parametrize("opener", [lambda: open_predictions("out.txt"), lambda: open_video("out.gif", None)])  # type: ignore[arg-type]
def test_an_unknown_suffix_names_the_known_ones(opener: Callable[[], Any]) -> None:
    with pytest.raises(UsageError, match="expected a name ending in"):
        opener()


def test_json_lines_are_the_documented_ones(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_predictions(str(path)) as sink:
        sink.write(frame(12), prediction(12))
        sink.write(frame(13), prediction(13, "Bär 熊", top=True))
        assert len(path.read_text().splitlines()) == 2  # whole lines, before it is closed
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first == {
        "frame": 12,
        "time": 0.4004,
        "label": "mountain bike",
        "score": 0.61,
        "raw_label": "tricycle",
        "raw_score": 0.3333,
    }
    assert list(second) == [*first, "top"]
    assert second["top"] == [["Bär 熊", 0.61], ['tricycle, "three"', 0.2]]


def test_csv_has_the_same_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_predictions(str(path)) as sink:
        sink.write(frame(0), prediction(0, 'a, "quoted" label', top=True))
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["frame", "time", "label", "score", "raw_label", "raw_score", "top"]
    assert row["label"] == 'a, "quoted" label'
    assert json.loads(row["top"])[0] == ['a, "quoted" label', 0.61]


def test_json_lines_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with open_predictions("-") as sink:
        sink.write(frame(0), prediction(0))
    assert json.loads(capfd.readouterr().out)["frame"] == 0


def test_video_is_h264_with_the_sources_rate_and_timestamps(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "out.mp4"
    with open_video(path, source) as sink:
        for item in source:
            sink.write(item, prediction(item.index))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == Fraction(30000, 1001)
        times = [picture.time for picture in container.decode(stream)]
    assert times == pytest.approx([index * 1001 / 30000 for index in range(60)], abs=1e-4)


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_video_begins_when_the_source_does(tmp_path: Path, source: Source, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with open_video(path, source) as sink:
        for index in range(5):
            sink.write(Frame(index, 10 + index / 25, frame(index).image), prediction(index))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(10, abs=0.001)


@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("numbers", [(1, 1), (6, 2), (9, 1)], ids=["709", "601 full", "2020"])
def test_video_keeps_the_colours_and_how_they_are_coded(tmp_path: Path, numbers: tuple[int, int], layout: str) -> None:
    write_tagged_clip(tmp_path / "in.mp4", *numbers, layout)
    with open_source(tmp_path / "in.mp4") as original, open_video(tmp_path / "out.mp4", original) as sink:
        for item in original:
            sink.write(item, prediction(item.index))
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == numbers
    with open_source(tmp_path / "in.mp4") as original, open_source(tmp_path / "out.mp4") as annotated:
        for before, after in zip(original, annotated, strict=True):
            upper = slice(0, 40)  # above the bar
            colors = [shown.image[upper].mean(axis=(0, 1)) for shown in (before, after)]
            assert np.abs(colors[0] - colors[1]).max() < 3
            assert after.image[50:].max() > 200, "white text"


def test_video_takes_odd_and_changing_sizes(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "out.mp4"
    with open_video(path, source) as sink:
        for index, (height, width) in enumerate([(71, 95), (71, 95), (144, 176), (30, 200)]):
            sink.write(frame(index, height, width), prediction(index))
    with av.open(str(path)) as container:
        assert [(p.height, p.width) for p in container.decode(video=0)] == [(72, 96)] * 4


def test_two_frames_of_one_time_still_make_a_valid_video(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "out.mp4"
    with open_video(path, source) as sink:
        for _ in range(3):
            sink.write(frame(5), prediction(5))
    assert written(path) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_written_to_a_sink_that_is_closed(tmp_path: Path, source: Source, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    sink = opened(path, source)
    write_many(sink, 5)
    with pytest.raises(SinkError, match="closed"):
        sink.write(frame(5), prediction(5))
    assert written(path) == 5


def test_a_video_without_a_frame_leaves_no_file(tmp_path: Path, source: Source) -> None:
    open_video(tmp_path / "out.mp4", source).close()
    assert not (tmp_path / "out.mp4").exists()


class Failing(Sink):
    """Fails at the third frame."""

    def __init__(self) -> None:
        self.count, self.closed = 0, False

    def write(self, frame: Frame, prediction: Prediction) -> None:
        self.count += 1
        if self.count == 3:
            raise SinkError("it broke")

    def close(self) -> None:
        self.closed = True


def test_a_failure_in_the_background_reaches_the_writer() -> None:
    inner = Failing()
    outer = BackgroundSink(inner)
    with pytest.raises(SinkError, match="it broke"):
        write_many(outer, 1000)
    assert inner.closed
    assert inner.count == 3


@pytest.mark.parametrize(("height", "width"), [(144, 176), (272, 640), (720, 1280)])
def test_the_label_is_drawn_in_a_bar_along_the_bottom(height: int, width: int) -> None:
    image = np.full((height, width, 3), 128, np.uint8)
    drawn = annotate(image, prediction(0))
    assert (image == 128).all()  # the frame itself is left alone
    changed = np.flatnonzero((drawn != 128).any(axis=(1, 2)))
    assert changed[-1] == height - 1
    assert 13 <= len(changed) <= height // 5
    assert (drawn[changed] > 220).any()  # white text


def test_a_long_label_is_cut_before_the_score() -> None:
    image = np.full((144, 176, 3), 128, np.uint8)
    long = annotate(image, prediction(0, "a label that is far too long for so small a frame"))
    short = annotate(image, prediction(0, "a"))
    np.testing.assert_array_equal(long[:, -34:], short[:, -34:])  # where the score stands

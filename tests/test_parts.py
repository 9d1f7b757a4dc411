"""Outputs in parts: where one ends, what they are called, and which are deleted."""

from __future__ import annotations

import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import pytest

from edgevid import Frame, Prediction, SinkError, open_source
from edgevid.events import Event
from edgevid.sinks import Sink, open_output, open_predictions, open_video
from edgevid.sinks.parts import Split
from edgevid.sinks.retention import Keep, Parts
from edgevid.sinks.retrying import RetryingSink
from edgevid.sources.realtime import RealtimeSource
from tests.conftest import Outcome, picture, read_jsonl

Cli = Callable[..., Outcome]
DAY = 86400.0


def write(sink: Sink, times: Sequence[float]) -> None:
    for index, at in enumerate(times):
        sink.write(Frame(index, at, picture("blue")), Prediction(index, at, "blue", 0.9, "blue", 0.9))


def no_event(event: Event) -> None:
    raise AssertionError(event)


def opened(path: Path, split: Split) -> Sink:
    return open_output(
        str(path), lambda part, force: open_predictions(part, force=force), no_event, live=False, split=split
    )


def parts(folder: Path, suffix: str = ".jsonl") -> list[Path]:
    return sorted(folder.glob(f"out-*{suffix}"))


def numbers(folder: Path) -> list[int]:
    return [int(part.name.split("-")[1]) for part in parts(folder)]


def part(folder: Path, number: int, age_s: float = 0.0, size: int = 10) -> Path:
    """Leave a part as of an earlier run."""
    path = folder / f"out-{number:06d}-20200101T000000Z.jsonl"
    path.write_bytes(b" " * size)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_run_in_parts(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    outputs = ["--save", tmp_path / "out.mp4", "--predictions", tmp_path / "out.jsonl"]
    outcome = cli("run", bundle_path, "--source", clip, *outputs, "--segment", "800ms")
    assert outcome.status == 0, outcome.err
    assert all(re.fullmatch(r"out-00000[123]-\d{8}T\d{6}Z\.(mp4|jsonl)", path.name) for path in tmp_path.iterdir())
    lines = [read_jsonl(path.read_text()) for path in parts(tmp_path)]
    assert [line["frame"] for part_lines in lines for line in part_lines] == list(range(60))
    assert [part_lines[0]["time"] for part_lines in lines] == pytest.approx([0.0, 0.8008, 1.6016])
    for path, part_lines in zip(parts(tmp_path, ".mp4"), lines, strict=True):
        with av.open(str(path)) as container:
            times = [picture.time for picture in container.decode(video=0)]
        assert times == pytest.approx([line["time"] for line in part_lines], abs=1e-3)
    assert re.search(r"wrote .*out\.mp4, 3 parts, the last .*out-000003-", outcome.out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "24h"], "--keep: it deletes parts of outputs; give --segment"),
        (["--segment", "10"], "--segment 10: expected a time such as 10m"),
        (["--segment", "10m"], "--segment: it is for files"),
        (["--segment", "10m", "--predictions", "-"], "--segment: it is for files"),
        (["--segment", "10m", "--predictions", "out.jsonl", "--keep", "lots"], "--keep lots: expected a time"),
        (
            ["--segment", "10m", "--predictions", "out.jsonl", "--keep", "1h", "--keep", "2h"],
            "--keep 1h 2h: expected a time such as 24h, a size such as 10GB, or one of each",
        ),
    ],
)
def test_parts_that_cannot_be_meant(
    cli: Cli, bundle_path: Path, clip: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_path.parent)
    outcome = cli("run", bundle_path, "--source", clip, *arguments)
    assert outcome.status == 2
    assert message in outcome.error


def test_numbers_go_on_and_what_is_there_stays(tmp_path: Path) -> None:
    older = [part(tmp_path, 3), part(tmp_path, 1_000_000)]
    (tmp_path / "out.jsonl").write_text("precious")
    with opened(tmp_path / "out.jsonl", Split(1.0)) as sink:
        write(sink, [0.0, 1.5])
    assert numbers(tmp_path) == [3, 1_000_000, 1_000_001, 1_000_002]
    assert all(path.read_bytes() == b" " * 10 for path in older)
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_a_part_ends_by_the_sources_time_counted_from_its_first_frame(tmp_path: Path) -> None:
    with opened(tmp_path / "out.jsonl", Split(10.0)) as sink:
        write(sink, [7.0, 16.9, 17.0, 26.0, 70.0, 5.0])  # the last: a source that begins anew
    starts = [[line["time"] for line in read_jsonl(path.read_text())] for path in parts(tmp_path)]
    assert starts == [[7.0, 16.9], [17.0, 26.0], [70.0], [5.0]]


def test_no_part_without_a_frame(tmp_path: Path) -> None:
    opened(tmp_path / "out.jsonl", Split(1.0)).close()
    assert parts(tmp_path) == []


def test_the_oldest_parts_beyond_the_size_are_deleted(tmp_path: Path) -> None:
    kept = [part(tmp_path, number, size=400) for number in (1, 2, 10)]
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(size=1000))) as sink:
        write(sink, [0.0])
    assert not kept[0].exists()
    assert kept[1].exists()
    assert numbers(tmp_path) == [2, 10, 11]


def test_the_part_that_is_written_stays_however_big(tmp_path: Path) -> None:
    part(tmp_path, 1)
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(size=1))) as sink:
        write(sink, [0.0, 0.1])
        assert numbers(tmp_path) == [2]


@pytest.mark.parametrize(("age_s", "stays"), [(DAY - 60, True), (DAY + 60, False), (-400 * DAY, True)])
def test_old_parts_are_deleted_by_age(tmp_path: Path, age_s: float, stays: bool) -> None:
    """A part from the future, of a clock that was set back, counts as new."""
    old = part(tmp_path, 1, age_s)
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(seconds=DAY))) as sink:
        write(sink, [0.0])
    assert old.exists() is stays


def test_a_clock_that_jumps_while_running_deletes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(seconds=DAY))) as sink:
        write(sink, [0.0, 1.0, 2.0])
        for path in parts(tmp_path):
            os.utime(path, (0, 0))  # as if the clock had gone on by decades
        time.sleep(1.1)  # it looks once a second
        write(sink, [3.0])
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_parts_closed_long_enough_ago_are_deleted_while_running(tmp_path: Path) -> None:
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(seconds=0.5))) as sink:
        write(sink, [0.0, 1.0, 2.0])
        time.sleep(1.1)
        write(sink, [2.5])
        assert numbers(tmp_path) == [3]


def test_only_parts_of_this_output_are_deleted_and_never_the_source(tmp_path: Path) -> None:
    source, old = part(tmp_path, 1, 9 * DAY), part(tmp_path, 2, 9 * DAY)
    others = [
        tmp_path / name
        for name in (
            "out.jsonl",
            "out-000001.jsonl",
            "out-000001-20200101T000000Z.mp4",
            "out-000001-20200101T000000Z.jsonl.bak",
            "out-night-000001-20200101T000000Z.jsonl",
            "my-out-000001-20200101T000000Z.jsonl",
        )
    ]
    for path in others:
        path.write_text("precious")
        os.utime(path, (0, 0))
    with opened(tmp_path / "out.jsonl", Split(1.0, Keep(DAY, 1), [source])) as sink:
        write(sink, [0.0])
    assert not old.exists()
    assert source.exists()
    assert all(path.read_text() == "precious" for path in others)


class Failing(Sink):
    """Fails with an error number where it is told to."""

    def __init__(self, failures: Iterator[int | None], needs_picture: bool) -> None:
        self.name, self.needs_picture, self.goes_on = "out", needs_picture, True
        self.failures = failures
        self.taken: list[float] = []

    def write(self, frame: Frame, prediction: Prediction) -> None:
        number = next(self.failures)
        if number:
            raise SinkError("it cannot be written") from OSError(number, os.strerror(number))
        self.taken.append(frame.time)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_live_recording_resumes_and_tells_what_is_missing(tmp_path: Path, number: int) -> None:
    events: list[Event] = []
    inner = Failing(iter([None, number, None, None]), needs_picture=True)
    with RetryingSink(inner, tmp_path / "out.mp4", events.append) as sink:
        write(sink, [0.0, 1.0, 2.0])
        time.sleep(1.1)  # it tries once a second
        write(sink, [3.0, 4.0])
    assert inner.taken == [0.0, 3.0, 4.0]
    assert [(event.kind, event.time) for event in events] == [("stopped", 1.0), ("resumed", 3.0)]
    assert events[0].text == f"out: recording stopped ({os.strerror(number)})"
    assert events[1].data["missing"] == sink.missing == 2


def test_predictions_wait_for_the_disk(tmp_path: Path) -> None:
    events: list[Event] = []
    inner = Failing(iter([None, errno.ENOSPC, *[None] * 9]), needs_picture=False)
    with RetryingSink(inner, tmp_path / "out.jsonl", events.append) as sink:
        write(sink, [0.0, 1.0, 2.0, 3.0])
        assert inner.taken == [0.0]
    assert inner.taken == [0.0, 1.0, 2.0, 3.0]  # closing tries once more
    assert events[-1].data["missing"] == sink.missing == 0


def test_predictions_that_found_no_room_to_the_end_are_an_error(tmp_path: Path) -> None:
    sink = RetryingSink(Failing(iter([errno.ENOSPC] * 3), needs_picture=False), tmp_path / "out.jsonl", lambda _: None)
    write(sink, [0.0, 1.0])
    with pytest.raises(SinkError, match=r"out\.jsonl: the last 2 lines are not in it: it cannot be written"):
        sink.close()


def test_what_waiting_does_not_cure_is_an_error_at_once(tmp_path: Path) -> None:
    sink = RetryingSink(Failing(iter([errno.EACCES]), needs_picture=False), tmp_path / "out.jsonl", lambda _: None)
    with pytest.raises(SinkError):
        write(sink, [0.0])


def test_a_recording_in_a_folder_that_goes_away_and_comes_back(tmp_path: Path, clip: Path) -> None:
    """As of a network drive: parts need the folder when they begin."""
    folder, away = tmp_path / "drive", tmp_path / "away"
    folder.mkdir()
    events: list[Event] = []
    with RealtimeSource(open_source(clip)) as source:
        sink = open_output(
            str(folder / "out.mp4"),
            lambda part, force: open_video(part, source, force=force),
            events.append,
            live=True,
            split=Split(1.0),
        )
    with sink:
        write(sink, [0.0, 0.5])
        time.sleep(0.3)  # for its thread
        folder.rename(away)
        write(sink, [1.0, 1.5])
        time.sleep(1.2)
        away.rename(folder)
        write(sink, [2.0, 2.5, 3.0])
    assert [event.kind for event in events] == ["stopped", "resumed"]
    assert math.isclose(events[0].time, 1.0)
    assert [len(list(folder.glob(f"out-00000{number}-*.mp4"))) for number in (1, 2, 3)] == [1, 1, 1]


def test_no_frame_waits_until_the_part_before_is_complete(tmp_path: Path) -> None:
    """A disk that takes half a second to complete a file, in parts of a fifth of a second."""

    class Slow(Sink):
        name, wrote = "slow", "a part"

        def write(self, frame: Frame, prediction: Prediction) -> None:
            pass

        def close(self) -> None:
            time.sleep(0.5)

    sink = open_output(
        str(tmp_path / "out.mp4"), lambda path, force: Slow(), lambda event: None, live=True, split=Split(0.2)
    )
    with sink:
        for index in range(15):
            write(sink, [index / 30])
            time.sleep(1 / 30)
        assert sink.dropped == 0


def test_what_a_board_without_a_clock_has_written_is_not_old(tmp_path: Path) -> None:
    for number in range(3):
        part = tmp_path / f"out-{number + 1:06d}-19700101T000000Z.mp4"
        part.touch()
        os.utime(part, (60, 60))
    parts = Parts(tmp_path / "out.mp4", Keep(seconds=3600))
    parts.prune(None)
    assert len(list(tmp_path.iterdir())) == 3


def test_parts_that_could_not_be_deleted_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    for number in range(3):
        (folder / f"out-{number + 1:06d}-20261126T000000Z.mp4").write_bytes(bytes(100))
    parts = Parts(folder / "out.mp4", Keep(size=150))
    folder.rename(tmp_path / "away")
    parts.prune(None)
    (tmp_path / "away").rename(folder)
    monkeypatch.setattr("edgevid.sinks.retention.LOOK_EVERY_S", 0)
    time.sleep(1.1)
    parts.prune(None)
    assert [part.name[:10] for part in folder.iterdir()] == ["out-000003"]

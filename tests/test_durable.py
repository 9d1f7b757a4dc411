"""What reaches the disk, and when."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgevid import Frame, Prediction, open_source
from edgevid.sinks import VIDEO_SUFFIXES, Sink, open_predictions, open_video
from edgevid.sources.realtime import RealtimeSource
from tests.conftest import picture


def write(sink: Sink, index: int, at: float) -> None:
    sink.write(Frame(index, at, picture("blue", seed=index)), Prediction(index, at, "blue", 0.9, "blue", 0.9))


def live_video(path: Path, clip: Path) -> Sink:
    with RealtimeSource(open_source(clip)) as source:
        return open_video(path, source)


class SlowDisk:
    """A disk that takes until it is let go, and who waits for it."""

    def __init__(self) -> None:
        self.waiting: list[threading.Thread] = []
        self.let_go = threading.Event()

    def sync(self, descriptor: int) -> None:
        os.fstat(descriptor)  # it is open
        self.waiting.append(threading.current_thread())
        self.let_go.wait()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(os, "fdatasync", disk.sync)
    yield disk
    disk.let_go.set()


@pytest.mark.parametrize("suffix", [".mp4", ".jsonl", ".csv"])
def test_no_frame_waits_for_a_slow_disk(slow_disk: SlowDisk, clip: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with live_video(path, clip) if suffix == ".mp4" else open_predictions(path, live=True) as sink:
        write(sink, 0, 0.0)
        deadline = time.monotonic() + 10
        while not slow_disk.waiting and time.monotonic() < deadline:
            time.sleep(0.05)
        for index in range(1, 20):
            write(sink, index, index / 25)
        assert slow_disk.waiting
        assert threading.current_thread() not in slow_disk.waiting
        assert path.stat().st_size
        slow_disk.let_go.set()


def test_an_index_is_on_the_disk_before_the_header_says_that_there_is_one(
    monkeypatch: pytest.MonkeyPatch, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.mp4"
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(path.read_bytes()))
    with live_video(path, clip) as sink:
        for index in range(20):
            write(sink, index, index / 25)
    complete = path.read_bytes()
    assert any(len(before) == len(complete) and before != complete for before in synced)


def test_a_file_is_synced_twice_a_second_and_at_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    path = tmp_path / "out.jsonl"
    with open_predictions(path, live=True) as sink:
        for index in range(4):
            write(sink, index, index / 4)
            time.sleep(0.4)
    deadline = time.monotonic() + 10
    while sizes[-1:] != [path.stat().st_size] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sizes[-1] == path.stat().st_size
    assert len(sizes) >= 3


def test_a_disk_that_failed_after_a_write_is_told_of_at_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    sink = open_predictions(tmp_path / "out.jsonl", live=True)
    write(sink, 0, 0.0)
    time.sleep(1)
    with pytest.raises(Exception, match=r"cannot be written \(Input/output error\)"):
        write(sink, 1, 0.1)
    write(sink, 1, 0.1)  # in a file opened again
    sink.close()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_live_video_lacks_a_third_of_a_second_at_any_moment(clip: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with live_video(path, clip) as sink:
        for index in range(40):
            write(sink, index, index / 25)
            if index > 12:
                with av.open(str(path)) as container:  # as a kill would leave it
                    *_, last = container.decode(video=0)
                assert last.time is not None
                assert last.time >= index / 25 - 0.34


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_kill_in_the_middle_of_writing_leaves_what_can_be_played(
    monkeypatch: pytest.MonkeyPatch, clip: Path, tmp_path: Path, suffix: str
) -> None:
    path, write_all = tmp_path / f"out{suffix}", os.write
    states: list[bytes] = []

    def write_in_steps(descriptor: int, data: bytes) -> int:
        step = max(1, len(data) // 20)
        written = write_all(descriptor, data[:step])
        states.append(path.read_bytes())
        return written

    monkeypatch.setattr(os, "write", write_in_steps)
    with live_video(path, clip) as sink:
        for index in range(30):
            write(sink, index, index / 25)
    monkeypatch.undo()
    counts: list[int] = []
    for state in states:
        path.write_bytes(state)
        try:
            with av.open(str(path)) as container:
                counts.append(sum(1 for _ in container.decode(video=0)))
        except av.error.FFmpegError:
            assert not any(counts), "it could be played before"
    playable = [count for count in counts if count]
    assert playable == sorted(playable)
    assert len(playable) > 60
    assert playable[-1] > 20


def test_key_frames_go_by_time_however_few_frames_there_are(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with live_video(path, clip) as sink:
        for index in range(40):
            write(sink, index, index / 4)  # of 30 a second that the source states
    with av.open(str(path)) as container:
        times = [
            packet.pts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe and packet.pts
        ]
    assert all(b - a <= Fraction(101, 100) for a, b in zip([Fraction(0), *times], times, strict=False))
    assert times[-1] >= 8

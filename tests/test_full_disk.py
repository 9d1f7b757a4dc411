"""Live runs whose outputs cannot be written for a while, or are not read, or that are killed, by the command line."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import av
import pytest

from edgevid import Prediction, SinkError, Source, open_source
from edgevid.sinks import VIDEO_SUFFIXES, Sink, open_video
from edgevid.sources.realtime import RealtimeSource
from tests.conftest import read_jsonl
from tests.endurance.kills import killed

PATIENCE_S = 40.0


def live_run(bundle: Path, clip: Path, *options: object) -> list[str]:
    """Return the command line of a live run."""
    arguments = ["run", bundle, "--source", clip, "--realtime", *options]
    return [sys.executable, "-m", "edgevid", *(str(argument) for argument in arguments)]


class Started:
    """A run in a process of its own, what it says on stderr as it comes, and its end."""

    def __init__(self, command: list[str], stdout: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()

    def wait_for(self, text: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: any(text in line for line in self.lines), PATIENCE_S), self.lines

    def interrupt(self) -> float:
        """Send SIGINT and return the seconds until the end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_S)
        return time.monotonic() - began

    def __enter__(self) -> Started:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stderr
        self.process.stderr.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b" " * 4096)


def write_all(sink: Sink, source: Source) -> None:
    for frame in source:
        sink.write(frame, Prediction(frame.index, frame.time, "red", 0.9, "red", 0.9))


def frame_times(video: Path) -> list[float]:
    with av.open(str(video)) as container:
        return [frame.time for frame in container.decode(video=0) if frame.time is not None]


@pytest.mark.needs_tmpfs
def test_a_full_disk_stops_the_recording_and_loses_no_label(
    bundle_path: Path, long_clip: Path, small_disk: Path, tmp_path: Path
) -> None:
    video, predictions, filler = small_disk / "out.mp4", small_disk / "out.jsonl", small_disk / "filler"
    filler.write_bytes(b" " * 3_500_000)
    outputs = ["--save", video, "--predictions", predictions]
    with Started(live_run(bundle_path, long_clip, *outputs)) as run:
        run.wait_for("out.mp4: recording stopped (No space left on device)")
        fill(filler)
        run.wait_for("out.jsonl: recording stopped (No space left on device)")
        assert all(read_jsonl(predictions.read_text()))  # whole lines, also now
        filler.unlink()
        run.wait_for("out.jsonl: recording resumed, 0 frames are missing in it")
        run.wait_for("out.mp4: recording resumed")
        time.sleep(0.5)
        run.interrupt()
    assert run.process.returncode == 130, run.lines
    records = read_jsonl(predictions.read_text())
    events = [record for record in records if "event" in record]
    frames = [record["frame"] for record in records if "frame" in record]
    assert {event["event"] for event in events} == {"stopped", "resumed"}
    assert frames == sorted(set(frames))
    assert frames[-1] - frames[0] + 1 - len(frames) <= 5  # a busy machine may leave out some before they are classified
    (missing,) = (event["missing"] for event in events if event["output"] == "out.mp4" and event["event"] == "resumed")
    times = [time for part in (video, *small_disk.glob("out-000001-*.mp4")) for time in frame_times(part)]
    assert 0 < missing == len(frames) - len(times)
    assert frame_times(video)


@pytest.mark.needs_tmpfs
def test_parts_that_need_not_be_kept_make_room(bundle_path: Path, long_clip: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b" " * 3_300_000)
    options = ["--save", small_disk / "out.mp4", "--segment", "1s", "--keep", "3s"]
    with Started(live_run(bundle_path, long_clip, *options)) as run:
        run.wait_for("out.mp4: recording stopped (No space left on device)")
        run.wait_for("out.mp4: recording resumed")
        run.interrupt()
    assert run.process.returncode == 130, run.lines
    parts = sorted(small_disk.glob("out-*.mp4"))
    assert parts
    assert not small_disk.joinpath("out.mp4").exists()
    assert "out-000001-" not in parts[0].name
    assert all(frame_times(part) for part in parts)


def test_a_reader_that_does_not_read_stops_nothing(bundle_path: Path, long_clip: Path, tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)  # some thirty lines
    try:
        with Started(live_run(bundle_path, long_clip, "--predictions", "-", "--save", video), stdout=writing) as run:
            run.wait_for("frame")  # what runs: it begins
            time.sleep(4)
            taken = run.interrupt()
    finally:
        os.close(reading)
        os.close(writing)
    assert run.process.returncode == 1
    assert any(line.startswith("edgevid: stdout: given up after") for line in run.lines), run.lines
    found = re.search(r"(\d+) frames in", "".join(run.lines))
    assert found
    assert int(found[1]) > 60
    assert len(frame_times(video)) > 60
    assert taken < 4  # two seconds, and some for a busy machine


def test_what_a_killed_run_leaves_can_be_played_but_for_its_last_second(
    bundle_path: Path, long_clip: Path, tmp_path: Path
) -> None:
    command = live_run(bundle_path, long_clip, "--quiet")
    for number, after_s in enumerate((0.6, 1.13, 1.71)):
        folder = tmp_path / str(number)
        folder.mkdir()
        remains = killed(command, folder, after_s)
        assert remains.broken_lines == 0
        assert remains.predictions > 5
        assert remains.video_frames > 0
        assert remains.lost_s < 1


def test_frames_far_apart_are_in_the_file_when_the_next_one_is(
    bundle_path: Path, long_clip: Path, tmp_path: Path
) -> None:
    remains = killed(live_run(bundle_path, long_clip, "--quiet", "--max-fps", 2), tmp_path, 2.75)
    assert remains.lost_s < 1
    assert 4 <= remains.video_frames >= remains.predictions - 1


@pytest.mark.needs_tmpfs
@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_video_that_met_a_full_disk_ends_with_its_last_whole_piece(
    long_clip: Path, small_disk: Path, suffix: str
) -> None:
    """Also where there is room again when it is closed: what follows a gap could not be played."""
    filler, path = small_disk / "filler", small_disk / f"out{suffix}"
    filler.write_bytes(b" " * 3_500_000)
    with open_source(long_clip) as source, open_video(path, RealtimeSource(source)) as sink:
        with pytest.raises(SinkError, match="No space left on device"):
            write_all(sink, source)
        before = path.read_bytes()
        filler.unlink()
    assert path.read_bytes() == before
    assert len(frame_times(path)) > 10

"""Cameras and streams that fail, fall silent and come back: real servers, real links, and what the user is told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgevid import (
    Event,
    Frame,
    RefusedError,
    Source,
    SourceError,
    SourceOptions,
    VideoClassifier,
    open_camera,
    open_source,
)
from edgevid.sources import camera as camera_module
from edgevid.sources import network as network_module
from edgevid.sources.camera import CameraSource
from edgevid.sources.clock import Clock
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.reconnect import Patience, ReconnectingSource
from tests.conftest import Outcome, picture, read_jsonl
from tests.servers import Camera, Link, files_of, free_port, http_server, live_playlist, rtsp_server

Cli = Callable[..., Outcome]
QUICK = Patience(first_s=0.02, longest_s=0.02, refused_s=0.02)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``edgevid run`` as a process of its own; it is killed in the end, if it still runs."""
    command = [sys.executable, "-m", "edgevid", "run", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Lines:
    """The lines of a file that grows, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[dict[str, Any]]:
        """Return those that are whole."""
        return read_jsonl(self._path.read_text().rpartition("\n")[0]) if self._path.exists() else []

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], within_s: float, after: int = 0) -> int:
        """Wait until a line after that number is as wanted; return its number."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for number, line in enumerate(self.all()):
                if number >= after and wanted(line):
                    return number
            time.sleep(0.05)
        raise AssertionError(f"not within {within_s} s; the last lines are {self.all()[-3:]}")


def is_event(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("event") == kind


def is_label(label: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("label") == label


@pytest.mark.needs_rtsp_server
def test_a_stream_that_dies_and_comes_back(bundle_path: Path, tmp_path: Path) -> None:
    port, lines = free_port(), Lines(tmp_path / "out.jsonl")
    url = f"rtsp://127.0.0.1:{port}/live"
    options = ("--source", url, "--wait", "--predictions", tmp_path / "out.jsonl", "--window", 500)
    with running(bundle_path, *options) as run:
        time.sleep(2)  # there is nothing yet: it waits
        with rtsp_server(port, "green"):
            lines.wait_for(is_label("green"), 10)
        lost = lines.wait_for(is_event("lost"), 5)
        with rtsp_server(port, "blue"):
            back = lines.wait_for(is_event("back"), 6, after=lost)
            lines.wait_for(is_label("blue"), 2, after=back)
        run.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = run.communicate(timeout=10)
        assert time.monotonic() - started < 2
    assert run.returncode == 130
    records = lines.all()
    labelled = [record for record in records if "label" in record]
    assert [record["time"] for record in labelled] == sorted(record["time"] for record in labelled)
    assert [record["frame"] for record in labelled] == sorted({record["frame"] for record in labelled})
    first = next(record for record in records[back:] if "label" in record)
    assert first["label"] == "blue"  # of 500 predictions in the window none is green any more
    assert records[back]["gap_s"] == pytest.approx(first["time"] - labelled[labelled.index(first) - 1]["time"], abs=1)
    assert f"{url}: it cannot be opened (Connection refused); trying again" in err
    assert f"{url}: back after" in err


@pytest.mark.slow
@pytest.mark.needs_rtsp_server
def test_a_server_that_falls_silent(bundle_path: Path, tmp_path: Path) -> None:
    port, lines = free_port(), Lines(tmp_path / "out.jsonl")
    options = ("--source", f"rtsp://127.0.0.1:{port}/live", "--predictions", tmp_path / "out.jsonl")
    with rtsp_server(port) as server, running(bundle_path, *options) as run:
        lines.wait_for(is_label("green"), 10)
        server.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        lost = lines.wait_for(is_event("lost"), 6)
        assert time.monotonic() - stopped < 5.2
        time.sleep(9)  # it tries again, and is not answered
        server.send_signal(signal.SIGCONT)
        lines.wait_for(is_label("green"), 3, after=lost)
        server.send_signal(signal.SIGSTOP)
        lines.wait_for(is_event("lost"), 6, after=lost + 1)
        run.send_signal(signal.SIGTERM)
        started = time.monotonic()
        run.communicate(timeout=10)
        assert time.monotonic() - started < 2
        assert run.returncode == 143


@pytest.mark.needs_rtsp_server
def test_a_link_that_is_cut_and_one_that_stalls() -> None:
    port, events = free_port(), list[Event]()
    with rtsp_server(port):
        link = Link(port)
        source = open_source(f"rtsp://127.0.0.1:{link.port}/live", SourceOptions(stall_after=1))
        seen: list[Frame] = []
        with Feed(source, tell=events.append) as feed:
            for frame in feed:
                seen.append(frame)
                if len(seen) == 20:
                    link.cut()
                elif source.gaps == 1 and len(seen) == 60:
                    link.flow.clear()
                    threading.Timer(2, link.flow.set).start()
                elif source.gaps == 2:
                    break
        link.close()
    assert [event.kind for event in events] == ["lost", "back"] * 2
    assert "no answer for 1 s" in events[2].text
    gaps = [frame for frame in seen if frame.gap_s]
    assert len(gaps) == 2
    assert gaps[1].gap_s > 1
    assert all(later.index > earlier.index and later.time >= earlier.time for earlier, later in pairwise(seen))
    assert seen[-1].time == pytest.approx(seen[-1].arrived - seen[0].arrived, abs=1)


def test_a_stream_of_jpegs_that_stalls(bundle_path: Path, cli: Cli) -> None:
    Camera.flow.set()
    events: list[Event] = []
    labels = set()
    with http_server(Camera) as url, VideoClassifier(bundle_path) as classifier:
        source = open_source(f"{url}/video", SourceOptions(stall_after=1))
        assert source.live
        for number, prediction in enumerate(classifier.stream(source, tell=events.append)):
            labels.add(prediction.label)
            if number == 10:
                Camera.flow.clear()
                threading.Timer(2, Camera.flow.set).start()
            if source.gaps:
                break
    assert labels == {"green"}
    assert [event.kind for event in events] == ["lost", "back"]
    assert prediction.time == pytest.approx(events[-1].time, abs=0.1)


@pytest.mark.needs_rtsp_server
def test_a_picture_that_has_stopped_is_reported() -> None:
    port, events = free_port(), list[Event]()
    with rtsp_server(port, "still"):
        source = open_source(f"rtsp://127.0.0.1:{port}/live", SourceOptions(frozen_after=1))
        with Feed(source, tell=events.append) as feed:
            for frame in feed:
                if frame.time > 2:
                    break
    assert [event.kind for event in events] == ["frozen"]
    assert "the picture has not changed for 1 s" in events[0].text


@pytest.mark.needs_rtsp_server
def test_a_picture_that_moves_is_not_reported() -> None:
    port, events = free_port(), list[Event]()
    with rtsp_server(port):
        source = open_source(f"rtsp://127.0.0.1:{port}/live", SourceOptions(frozen_after=0.5))
        with Feed(source, tell=events.append) as feed:
            assert next(frame for frame in feed if frame.time > 2)
    assert not events


@pytest.mark.needs_rtsp_server
def test_a_password_lets_in_and_is_shown_nowhere(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    port = free_port()
    with rtsp_server(port, "green", "viewer", "p@ss:w/rd"):
        right = cli("run", bundle_path, "--source", f"rtsp://viewer:p%40ss%3Aw%2Frd@127.0.0.1:{port}/live",
                    "--max-frames", 5, "--predictions", tmp_path / "out.jsonl", "--debug")  # fmt: skip
        wrong = cli("run", bundle_path, "--source", f"rtsp://viewer:topsecret@127.0.0.1:{port}/live", "--debug")
        with pytest.raises(RefusedError) as refused:
            open_source(f"rtsp://viewer:topsecret@127.0.0.1:{port}/live")
    assert refused.value.__cause__ is refused.value.__context__ is None  # FFmpeg's own error has the password
    assert right.status == 0
    assert wrong.status == 1
    assert f"rtsp://***@127.0.0.1:{port}/live: it cannot be opened (Server returned 401" in wrong.err
    for text in (right.out, right.err, wrong.out, wrong.err, (tmp_path / "out.jsonl").read_text()):
        assert not re.search("viewer|secret|p%40ss|p@ss", text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtsp://127.0.0.1:1/live", "rtsp://127.0.0.1:1/live: it cannot be opened (Connection refused)"),
        ("http://u:secret@127.0.0.1:1/x", "http://***@127.0.0.1:1/x: it cannot be opened (Connection refused)"),
        ("gopher://u:secret@host/x", "source 'gopher://***@host/x': expected one of http, https, rtsp"),
        ("http://no-such-host.invalid/x", "(no such host)"),
        ("rtsp://u:p/secret@host/x", "in a user or password write / as %2F"),
        ("rtsp://host:55a/x", "expected a host, and behind a colon the number of its port"),
        ("rtsp:///x", "expected a host"),
        ("clips/*.mp4", "clips/*.mp4: no file has such a name"),
        ("gst:videotestsrc ! appsink", "a GStreamer pipeline needs"),
    ],
)
def test_what_cannot_be_opened_is_told_at_once(cli: Cli, bundle_path: Path, name: str, message: str) -> None:
    outcome = cli("run", bundle_path, "--source", name)
    assert outcome.status in (1, 2)
    assert message in outcome.error
    assert "secret" not in outcome.err


def test_it_gives_up_when_told_to(cli: Cli, bundle_path: Path) -> None:
    outcome = cli("run", bundle_path, "--source", "rtsp://127.0.0.1:1/live", "--wait", "--reconnect-for", "1s")
    assert outcome.status == 1
    assert "not back within 1 s; given up, as --reconnect-for says" in outcome.err


class Script(Source):
    """Does what a test says: so many frames, then what comes."""

    live = True
    rate = Fraction(100)
    time_base = Fraction(1, 100)
    closed = 0

    def __init__(self, count: int, then: Callable[[], object] = lambda: None) -> None:
        self.name, self._count, self._then = "camera", count, then

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            time.sleep(0.002)
            yield Frame(self.first_index + index, index / 100, picture("red", 8, 8, self.first_index + index))
        self._then()

    def close(self) -> None:
        Script.closed += 1


def test_a_driver_that_never_returns_is_left_behind() -> None:
    events: list[Event] = []
    hang = threading.Event()
    opened = iter([Script(3, threading.Event().wait)])

    def open_again() -> Source:
        script = next(opened, None)
        if script is None and not hang.is_set():
            hang.set()
            threading.Event().wait(30)  # nor does opening it, once
        return script or Script(3)

    source = ReconnectingSource("camera", open_again, SourceOptions(stall_after=0.3), patience=QUICK)
    with Feed(source, tell=events.append) as feed:
        seen = [frame for frame, _ in zip(feed, range(5), strict=False)]
    assert [event.kind for event in events][:2] == ["lost", "back"]
    assert "no answer for 0.3 s" in events[0].text
    assert seen[-1].index > 2


def test_hundreds_of_interruptions_leave_nothing_behind() -> None:
    Script.closed = 0
    events: list[Event] = []
    source = ReconnectingSource("camera", lambda: Script(2), SourceOptions(), patience=Patience(1e-4, 1e-4, 1e-4))
    with Feed(source, tell=events.append) as feed:
        for _ in feed:
            if source.gaps == 50:
                before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
            if source.gaps == 300:
                break
        assert threading.active_count() <= before[0] + 1  # one may be about to end
        assert len(list(Path("/proc/self/fd").iterdir())) <= before[1]
    assert Script.closed >= 300


class Grabbing(Script):
    """Delivers what is wanted of what it hears, as a camera does."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            self.heard = time.monotonic()
            if self.pick.wants(frame.index, frame.time):
                yield frame


def test_what_is_wanted_is_wanted_after_an_interruption_too() -> None:
    """At most 20 a second of the 100, over three connections of two seconds of the source's time each."""
    source = ReconnectingSource("camera", lambda: Grabbing(200), SourceOptions(), patience=QUICK)
    seen = []
    with Feed(source, Pick(max_fps=20)) as feed:
        for frame in feed:
            seen.append(frame)
            if source.gaps == 2:
                break
    per_connection = [sum(frame.index // 200 == number for frame in seen) for number in (0, 1)]
    assert all(30 <= count <= 42 for count in per_connection), per_connection


def test_a_source_of_which_little_is_wanted_is_not_lost() -> None:
    events: list[Event] = []
    source = ReconnectingSource("camera", lambda: Grabbing(10**6), SourceOptions(stall_after=0.2), patience=QUICK)
    with Feed(source, Pick(stride=200), tell=events.append) as feed:
        assert [frame.index for frame, _ in zip(feed, range(3), strict=False)] == [0, 200, 400]
    assert not events


def test_a_library_that_raises_what_it_likes_is_no_end() -> None:
    def burst() -> None:
        raise OSError(24, "Too many open files")

    events: list[Event] = []
    source = ReconnectingSource("camera", lambda: Script(3, burst), SourceOptions(), patience=QUICK)
    with Feed(source, tell=events.append) as feed:
        seen = [frame for frame, _ in zip(feed, range(8), strict=False)]
    assert seen[-1].index >= 6
    assert "unexpected OSError: [Errno 24] Too many open files" in events[0].text


def test_what_comes_without_a_picture_is_given_up_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MOST_WITHOUT_PICTURE_S", 1.0)
    Camera.flow.set()
    events: list[Event] = []
    with http_server(Camera) as url:
        before = threads()
        with Feed(open_source(f"{url}/video"), tell=events.append) as feed:
            for number, _ in enumerate(feed):
                if number == 5:
                    Camera.spoiled.set()
                    threading.Timer(3, Camera.spoiled.clear).start()
                if feed.source.gaps:
                    break
        until = time.monotonic() + 5
        while threads() > before and time.monotonic() < until:
            time.sleep(0.05)
        assert threads() == before
    assert [event.kind for event in events] == ["lost", "back"]
    assert "no picture can be decoded for 1 s" in events[0].text


def threads() -> int:
    """How many threads of ours there are."""
    return sum(thread.name.startswith("edgevid") for thread in threading.enumerate())


@pytest.mark.slow
def test_a_live_playlist_is_shown_at_its_own_speed_and_comes_back(tmp_path: Path) -> None:
    """Its link stalls, and then it ends: that is no failure of ours, but the loss of a stream."""
    events: list[Event] = []
    with live_playlist(tmp_path, "green") as over, http_server(files_of(tmp_path)) as url:
        time.sleep(2)
        link = Link(int(url.rpartition(":")[2]))
        options = SourceOptions(stall_after=2, reconnect_for=4)
        source = open_source(f"http://127.0.0.1:{link.port}/live.m3u8", options)
        assert source.live
        seen: list[Frame] = []

        def watch(frame: Frame) -> None:
            seen.append(frame)
            if frame.arrived - seen[0].arrived > 4 and not events and link.flow.is_set():
                link.flow.clear()
                threading.Timer(5, link.flow.set).start()
            if source.gaps:
                over.set()

        with Feed(source, tell=events.append) as feed, pytest.raises(SourceError, match="given up"):
            deque(map(watch, feed), maxlen=0)
        link.close()
    steady = [frame for frame in seen if frame.arrived - seen[0].arrived < 3.5]
    assert 60 < len(steady) < 110  # 25 a second, though they come a segment at a time
    assert steady[-1].time == pytest.approx(steady[-1].arrived - seen[0].arrived, abs=0.5)
    assert [event.kind for event in events] == ["lost", "back", "lost"]


def test_a_picture_that_goes_on_is_told_too() -> None:
    class Halting(Script):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                still = 20 <= frame.index < 120
                yield replace(frame, picture=picture("red", 8, 8, 0 if still else frame.index))

    events: list[Event] = []
    options = SourceOptions(frozen_after=0.1, reconnect_for=0.01)
    source = ReconnectingSource("camera", lambda: Halting(150), options, patience=QUICK)
    with Feed(source, tell=events.append) as feed, pytest.raises(SourceError, match="given up"):
        deque(feed, maxlen=0)
    assert [event.kind for event in events] == ["frozen", "moving", "lost"]


def test_who_refuses_is_left_in_peace() -> None:
    """Pauses that grow up to five seconds, while others are tried each twentieth of a second."""
    attempts: list[float] = []

    def refuse() -> Source:
        attempts.append(time.monotonic())
        raise RefusedError("the password is wrong")

    options = SourceOptions(wait=True, reconnect_for=1.5)
    with pytest.raises(SourceError, match="given up"):
        ReconnectingSource("camera", refuse, options, patience=Patience(0.05, 0.05, 5))
    assert 3 < len(attempts) < 11


def test_time_neither_stops_nor_steps_back() -> None:
    """Ten seconds at once, then as time goes by; then a clock that is set back, and one that stands still."""
    clock, now, times = Clock(), 1000.0, []
    media = [number * 0.04 for number in range(250)]
    times += [clock.time(time, now, begins=number == 0) for number, time in enumerate(media)]
    for number in range(2000):
        now += 0.04
        times.append(clock.time(10 + number * 0.04, now, begins=False))
    assert times[-1] == pytest.approx(now - 1000, abs=5.1)
    for number in range(100):
        now += 0.04
        times.append(clock.time(number * 0.04, now, begins=False))
    assert all(later > earlier for earlier, later in pairwise(times[:2250]))
    assert all(later >= earlier for earlier, later in pairwise(times))
    assert len(set(times)) >= len(times) - 1
    now += 60
    assert clock.time(4.04, now, begins=False) == pytest.approx(now - 1000)


def test_pauses_grow_and_vary_and_are_longer_where_we_are_refused() -> None:
    patience = Patience()
    assert all(patience.pause_s(0, refused=False) <= 1 for _ in range(50))
    late = [patience.pause_s(30, refused=False) for _ in range(50)]
    refused = [patience.pause_s(30, refused=True) for _ in range(50)]
    assert len(set(late)) > 10
    assert 1 < min(late) < max(late) <= 2
    assert 5 < min(refused) < max(refused) <= 10


def test_a_camera_is_opened_again_and_goes_on(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the device itself: OpenCV reads a file, whose end is a camera that was unplugged."""
    monkeypatch.setattr(camera_module, "_open", lambda device: cv2.VideoCapture(str(clip)))
    events: list[Event] = []
    with Feed(open_camera(0), tell=events.append) as feed:
        indices = []
        for frame in feed:
            indices.append(frame.index)
            if feed.source.gaps == 1:
                break
    assert "camera 0: it stopped delivering after 60 frames; is it still plugged in?; trying again" in events[0].text
    assert indices == sorted(set(indices))
    assert 60 <= indices[-1] < 70  # the newest one is taken


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SourceOptions(size=(640, 480)), "width 640 is not to be had with these settings, it gives 96"),
        (SourceOptions(fps=60), "fps 60 is not to be had with these settings, it gives 29.97"),
        (SourceOptions(format="MJPG"), "format MJPG is not to be had with these settings, it gives "),
    ],
)
def test_a_camera_delivers_what_was_asked_for_or_is_an_error(clip: Path, options: SourceOptions, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        CameraSource(str(clip), options)
    CameraSource(str(clip), SourceOptions(size=(96, 72), fps=30)).close()


@pytest.mark.parametrize(("gap", "first_after"), [("reset", "blue"), ("decay", "red")])
def test_what_a_gap_does_to_the_window(bundle_path: Path, gap: str, first_after: str) -> None:
    """A short gap in a long window: emptied, the new picture counts alone; decayed, most of the old ones stay."""

    class Gap(Script):
        def __iter__(self) -> Iterator[Frame]:
            for index in range(30):
                yield Frame(index, index / 100, picture("red", seed=index))
            yield Frame(30, 0.4, picture("blue"), gap_s=0.1)

    with VideoClassifier(bundle_path, window=30, gap=gap) as classifier:
        source = Gap(0)
        source.live = False  # every frame, in order
        labels = [prediction.label for prediction in classifier.stream(source)]
    assert labels[29] == "red"
    assert labels[30] == first_after


def test_a_gap_decays_as_if_its_frames_had_come(bundle_path: Path) -> None:
    from edgevid.smoothing import Smoother

    smoother = Smoother(("a", "b"), window=10, gap="decay")
    for frame in range(10):
        smoother.update(np.array([1, 0], np.float32), frame, frame / 10)
    prediction = smoother.update(np.array([0, 1], np.float32), 10, 1.6, gap_s=0.6)
    assert prediction.score == pytest.approx(0.8)  # four of ten are left, and one new
    assert prediction.label == "a"
    far = smoother.update(np.array([0, 1], np.float32), 11, 60, gap_s=58)
    assert far.score == 1

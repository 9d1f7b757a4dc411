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
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgevid import (
    Event,
    Frame,
    RefusedError,
    SourceError,
    SourceOptions,
    VideoClassifier,
    open_source,
)
from edgevid.sources import network as network_module
from edgevid.sources.feed import Feed
from tests.conftest import Outcome, read_jsonl
from tests.servers import Camera, Link, files_of, free_port, http_server, live_playlist, rtsp_server

Cli = Callable[..., Outcome]


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

"""What is kept, counted and told over the interruptions of a source that does what a test says."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

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
    UsageError,
    VideoClassifier,
    open_source,
)
from edgevid.sources import camera as camera_module
from edgevid.sources.camera import CameraSource
from edgevid.sources.clock import Clock
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.reconnect import Patience, ReconnectingSource
from tests.conftest import picture

QUICK = Patience(first_s=0.02, longest_s=0.02, refused_s=0.02)


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


def test_a_pipeline_is_opened_again_and_goes_on(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the pipeline itself: OpenCV reads a file, whose end is a camera that was unplugged."""
    monkeypatch.setattr(camera_module, "_open", lambda device: cv2.VideoCapture(str(clip)))
    events: list[Event] = []
    with Feed(open_source("gst:camera"), tell=events.append) as feed:
        indices = []
        for frame in feed:
            indices.append(frame.index)
            if feed.source.gaps == 1:
                break
    assert "gst:camera: it stopped delivering after 60 frames; is it still plugged in?; trying again" in events[0].text
    assert indices == sorted(set(indices))
    assert 60 <= indices[-1] < 70  # the newest one is taken


def test_an_option_for_ffmpeg_is_refused_where_opencv_reads() -> None:
    with pytest.raises(UsageError, match="--source-option: it is for FFmpeg, which does not read gst:x"):
        open_source("gst:x", SourceOptions(engine_options={"rtsp_transport": "udp"}))


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
    from edgevid import Smoother, Smoothing

    smoother = Smoother(("a", "b"), Smoothing(window=10), gap="decay")
    for frame in range(10):
        smoother.update(np.array([1, 0], np.float32), frame, frame / 10)
    prediction = smoother.update(np.array([0, 1], np.float32), 10, 1.6, gap_s=0.6)
    assert prediction.score == pytest.approx(0.8)  # four of ten are left, and one new
    assert prediction.label == "a"
    far = smoother.update(np.array([0, 1], np.float32), 11, 60, gap_s=58)
    assert far.score == 1

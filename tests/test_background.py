"""A live source's frames never wait for an output, and a run ends although one never returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgevid import Frame, Prediction, SinkError, VideoClassifier, open_source
from edgevid.cli.run_lines import summary_lines
from edgevid.events import Event
from edgevid.pipeline import run_pipeline
from edgevid.sinks import Sink
from edgevid.sinks.background import BackgroundSink
from edgevid.sources.feed import Feed
from edgevid.sources.realtime import RealtimeSource
from tests.conftest import picture


def frame(index: int) -> Frame:
    return Frame(index, index / 25, picture("blue", seed=index))


def prediction(index: int) -> Prediction:
    return Prediction(index, index / 25, "blue", 0.9, "blue", 0.9)


class Stuck(Sink):
    """Takes nothing until it is let go."""

    def __init__(self, name: str = "stuck.mp4", needs_picture: bool = True) -> None:
        self.name, self.needs_picture = name, needs_picture
        self.let_go = threading.Event()
        self.busy = threading.Event()
        self.taken: list[object] = []
        self.pictures: list[tuple[int, ...]] = []
        self.closed = False

    def write(self, frame: Frame, prediction: Prediction) -> None:
        self.busy.set()
        self.let_go.wait()
        self.taken.append(frame.index)
        self.pictures.append(np.shape(frame.picture))

    def write_event(self, event: Event) -> None:
        self.let_go.wait()
        self.taken.append(event.kind)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stuck() -> Iterator[Callable[..., Stuck]]:
    """Make sinks that are let go when the test is over: none keeps a thread."""
    made: list[Stuck] = []

    def make(name: str = "stuck.mp4", needs_picture: bool = True) -> Stuck:
        made.append(Stuck(name, needs_picture))
        return made[-1]

    yield make
    for sink in made:
        sink.let_go.set()


def test_frames_that_come_while_too_many_wait_are_left_out_and_counted(stuck: Callable[..., Stuck]) -> None:
    inner = stuck()
    outer = BackgroundSink(inner, depth=3)
    outer.write(frame(0), prediction(0))
    assert inner.busy.wait(10)
    for index in range(1, 50):
        outer.write(frame(index), prediction(index))
    assert outer.dropped == 46
    inner.let_go.set()
    outer.close()
    assert inner.closed
    assert inner.taken == [0, 1, 2, 3]


def test_events_keep_their_place_and_are_never_left_out(stuck: Callable[..., Stuck]) -> None:
    inner = stuck()
    outer = BackgroundSink(inner, depth=2)
    outer.write(frame(0), prediction(0))
    outer.write_event(Event("lost", 0.0, "the camera is lost"))
    outer.write(frame(1), prediction(1))
    for number in range(20):
        outer.write_event(Event(f"event {number}", 0.1, "more"))
    inner.let_go.set()
    outer.close()
    assert inner.taken == [0, "lost", 1, *(f"event {number}" for number in range(20))]


def test_thousands_of_predictions_wait_without_their_pictures(stuck: Callable[..., Stuck]) -> None:
    inner = stuck("out.jsonl", needs_picture=False)
    outer = BackgroundSink(inner)
    for index in range(3000):
        outer.write(Frame(index, index / 25, np.zeros((72, 96, 3), np.uint8)), prediction(index))
    inner.let_go.set()
    outer.close()
    assert inner.taken == list(range(3000))
    assert outer.dropped == 0
    assert set(inner.pictures) == {(0, 0, 3)}


def test_sinks_that_never_return_are_given_up_together(
    stuck: Callable[..., Stuck], bundle_path: Path, clip: Path
) -> None:
    sinks = [BackgroundSink(stuck(f"stuck{number}.mp4")) for number in range(4)]
    with VideoClassifier(bundle_path) as classifier:
        feed = Feed(RealtimeSource(open_source(clip)))
        began = time.monotonic()
        with pytest.raises(SinkError, match=r"stuck\d\.mp4: given up after .* frames waiting"):
            run_pipeline(feed, classifier, sinks, max_frames=5)
    assert time.monotonic() - began < 4.5  # one after the other: six seconds


def test_a_sink_that_was_given_up_says_so_once(stuck: Callable[..., Stuck]) -> None:
    outer = BackgroundSink(stuck())
    outer.write(frame(0), prediction(0))
    with pytest.raises(SinkError, match="given up"):
        outer.close()
    outer.close()


class Slow(Sink):
    """Takes a tenth of a second for each frame."""

    name = "slow.mp4"

    def write(self, frame: Frame, prediction: Prediction) -> None:
        time.sleep(0.1)

    def close(self) -> None:
        pass


def test_a_run_tells_what_was_left_out_of_which_output(bundle_path: Path, clip: Path) -> None:
    with VideoClassifier(bundle_path) as classifier:
        feed = Feed(RealtimeSource(open_source(clip)))
        summary = run_pipeline(feed, classifier, [BackgroundSink(Slow(), depth=1)], max_frames=30)
    (loss,) = summary.losses
    assert 10 <= loss.dropped < summary.frames == 30
    assert f"left out of slow.mp4, which could not keep up: {loss.dropped}" in summary_lines("clip", summary)


def test_every_frame_of_a_file_is_written_however_slow_the_output(bundle_path: Path, clip: Path) -> None:
    slow = Slow()
    with VideoClassifier(bundle_path) as classifier:
        summary = run_pipeline(Feed(open_source(clip)), classifier, [slow], max_frames=10)
    assert summary.elapsed_s > 0.9
    assert summary.losses[0].dropped == 0

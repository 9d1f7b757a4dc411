"""``--skip-static``: what is skipped, what is not, and the audit that turns it off."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgevid import Event, Frame, Prediction, UsageError, VideoClassifier
from edgevid.arrays import Image
from tests.conftest import COLORS, Outcome, picture, read_jsonl, write_pictures

Cli = Callable[..., Outcome]
# BGR, the same luma to half a grey level: the model tells them apart, and luma does not.
RED, GREEN = (60, 60, 250), (34, 175, 34)


def noisy(color: tuple[int, int, int], seed: int, sigma: float = 3.0, height: int = 72, width: int = 96) -> Image:
    """A picture of one colour as a still camera sees it, with the sensor's noise."""
    noise = np.random.default_rng(seed).normal(0, sigma, (height, width, 3))
    return np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)


def frames_of(pictures: Iterable[Image], step: float = 0.04) -> list[Frame]:
    return [Frame(index, index * step, shown) for index, shown in enumerate(pictures)]


def classified(classifier: VideoClassifier, frames: list[Frame]) -> tuple[list[int], list[Prediction]]:
    """The numbers of those frames that really pass the engine, and all predictions."""
    numbers = {id(frame.picture): frame.index for frame in frames}
    passed: list[int] = []
    classify = classifier.engine.classify

    def record(pictures: list[Image], out: np.typing.NDArray[np.float32]) -> None:
        passed.extend(numbers[id(shown)] for shown in pictures)
        classify(pictures, out)

    classifier.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier.engine, "classify", record)
        return passed, [prediction for _, prediction in classifier.classify_frames(frames)]


@pytest.fixture(scope="module")
def skipping(bundle_path: Path) -> Iterable[VideoClassifier]:
    with VideoClassifier(bundle_path, skip_static=True, window=5) as classifier:
        yield classifier


@pytest.fixture(scope="module")
def flipping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 100 seconds in which the label changes every 0.6 seconds, and the luma does not."""
    pictures = (noisy(RED if index // 3 % 2 == 0 else GREEN, index) for index in range(500))
    return write_pictures(tmp_path_factory.mktemp("clips") / "flips.mp4", pictures, Fraction(5))


def test_a_still_picture_is_mostly_skipped_and_classified_once_a_second(skipping: VideoClassifier) -> None:
    frames = frames_of(noisy(COLORS["red"], index) for index in range(200))
    passed, predictions = classified(skipping, frames)
    assert skipping.skipping
    assert len(passed) == 200 - skipping.skipping.counts.frames
    assert 8 <= len(passed) <= 40
    times = [frames[number].time for number in passed] + [frames[-1].time]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 1.0 + 1e-9
    for number, prediction in enumerate(predictions):  # a skipped one has the raw score of the last classified one
        last = predictions[max(other for other in passed if other <= number)]
        assert (prediction.raw_label, prediction.raw_score) == (last.raw_label, last.raw_score)
        assert prediction.frame == number


def test_a_small_thing_that_moves_is_seen(skipping: VideoClassifier) -> None:
    pictures = [noisy(COLORS["grey"], index, height=240, width=320) for index in range(20)]
    for index, shown in enumerate(pictures[10:]):
        shown[100:106, 50 + 10 * index : 56 + 10 * index] = 255  # 0.05 % of the picture: its mean changes by 0.06
    passed, _ = classified(skipping, frames_of(pictures))
    assert set(range(10, 20)) <= set(passed)
    assert len(passed) < 15


def test_a_slow_fade_adds_up(skipping: VideoClassifier) -> None:
    levels = [100 + index // 4 for index in range(120)]  # a quarter of a grey level a frame, 100 frames a second
    frames = frames_of((np.full((72, 96, 3), level, np.uint8) for level in levels), step=0.01)
    passed, _ = classified(skipping, frames)
    for number, level in enumerate(levels):
        last = max(other for other in passed if other <= number)
        assert level - levels[last] <= 4


def test_a_gap_another_size_and_another_beginning_force_it(skipping: VideoClassifier) -> None:
    still = [noisy(COLORS["blue"], 1) for _ in range(9)]
    still[6] = noisy(COLORS["blue"], 1, height=36, width=48)
    frames = frames_of(still)
    frames[3] = Frame(3, 3 * 0.04, still[3], gap_s=2.0)
    frames[8] = Frame(8, 0.0, still[8])
    passed, _ = classified(skipping, frames)
    assert {0, 3, 6, 7, 8} <= set(passed)
    assert skipping.skipping
    assert skipping.skipping.counts.frames == 9 - len(passed) > 0


def test_unseen_changes_turn_it_off_and_it_is_tried_again(bundle_path: Path) -> None:
    colors = [RED if index // 3 % 2 == 0 else GREEN for index in range(1500)]
    frames = frames_of((noisy(color, index) for index, color in enumerate(colors)), step=0.1)
    events: list[Event] = []
    with VideoClassifier(bundle_path, window=3, skip_static=True) as classifier:
        classifier.tell = events.append
        predictions = [prediction for _, prediction in classifier.classify_frames(frames)]
        assert classifier.skipping
        counts = classifier.skipping.counts
    assert [event.kind for event in events] == ["skipping-off", "skipping-on", "skipping-off"]
    off, on, off_again = (event.time for event in events)
    assert off < 15
    assert on == pytest.approx(off + 60, abs=0.11)
    assert on < off_again < on + 15
    assert re.fullmatch(
        r"skipping static frames is off for 60 s: \d of the last \d audits found .* unchanged, expected 99%",
        events[0].text,
    )
    assert events[2].data["pause_s"] == 120
    assert counts.turned_off == 2
    assert counts.agreed < counts.audited
    right = ["red" if color is RED else "green" for color in colors]
    while_off = [index for index in range(1500) if off < index / 10 < on]
    assert [predictions[index].raw_label for index in while_off] == [right[index] for index in while_off]
    assert [prediction.raw_label for prediction in predictions] != right


def test_toss_ups_of_single_frames_do_not_turn_it_off(bundle_path: Path) -> None:
    frames = frames_of(noisy(RED if index % 20 else GREEN, index) for index in range(1500))
    with VideoClassifier(bundle_path, window=64, skip_static=True) as classifier:
        predictions = [prediction for _, prediction in classifier.classify_frames(frames[1:])]
        assert classifier.skipping
        counts = classifier.skipping.counts
    assert {prediction.raw_label for prediction in predictions} == {"red", "green"}
    assert {prediction.label for prediction in predictions[64:]} == {"red"}
    assert counts.audited >= 20
    assert counts.turned_off == 0


@pytest.mark.parametrize(
    "options", [["--workers", "4", "--threads", "1"], ["--workers", "2", "--threads", "1", "--batch", "3"]]
)
def test_it_does_not_depend_on_workers(cli: Cli, bundle_path: Path, flipping: Path, options: list[str]) -> None:
    command = ["run", bundle_path, "--source", flipping, "--predictions", "-", "--skip-static", "--window", "4"]
    expected = cli(*command, "--workers", 1, "--threads", 1)
    outcome = cli(*command, *options)
    assert outcome.out == expected.out
    assert outcome.out != cli(*command[:-3], *command[-2:]).out
    for text in (
        r"\d+ of 500 frames skipped, audit .*",
        r"skipping static frames is off .*",
        r"static frames are skipped again",
    ):
        lines = [re.findall(text, each.err) for each in (outcome, expected)]
        assert lines[0] == lines[1] != []


def test_the_summary_tells_it_apart(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    still = write_pictures(tmp_path / "still.mp4", [noisy(COLORS["green"], index) for index in range(100)])
    plain = cli("run", bundle_path, "--source", still)
    assert re.search(r"100 frames in [\d.]+ s, [\d.]+ frames per second\n", plain.out)
    assert "skip" not in plain.out
    skipped = cli("run", bundle_path, "--source", still, "--skip-static", "--health", tmp_path / "health.json")
    assert re.search(r"100 frames in [\d.]+ s\n", skipped.out)
    rates = re.search(r"\nwith skipping ([\d.]+) frames per second, ([\d.]+) of them classified\n", skipped.out)
    counts = re.search(r"\n(\d+) of 100 frames skipped, audit (\d+) of (\d+) agree\n", skipped.out)
    assert rates
    assert counts
    frames, agreed, audited = map(int, counts.groups())
    assert frames > 60
    assert agreed == audited > 0
    assert float(rates[2]) / float(rates[1]) == pytest.approx(1 - frames / 100, abs=0.02)
    health = json.loads((tmp_path / "health.json").read_text())
    assert (health["frames"], health["skipped"]) == (100, frames)


def test_a_live_source(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    still = write_pictures(tmp_path / "still.mp4", [noisy(COLORS["green"], index) for index in range(30)])
    outcome = cli("run", bundle_path, "--source", still, "--realtime", "--skip-static", "--predictions", "-")
    assert {record["raw_label"] for record in read_jsonl(outcome.out)} == {"green"}
    assert int(re.findall(r"(\d+) of \d+ frames skipped", outcome.err)[0]) > 5


def test_ones_own_loop_skips_as_a_stream_does(skipping: VideoClassifier) -> None:
    frames = frames_of([*(noisy(COLORS["red"], index) for index in range(60)), *(picture("blue"), picture("blue"))])
    skipping.reset()
    expected = [prediction for _, prediction in skipping.classify_frames(frames)]
    skipping.reset()
    assert [skipping.classify(frame.image, frame.time) for frame in frames] == expected
    with pytest.raises(UsageError, match="frame: NoneType; expected BGR uint8"):
        skipping.classify(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--static-threshold", "2"], "--static-threshold 2: it is for --skip-static; give both or none"),
        (["--skip-static", "--static-threshold", "-1"], "static-threshold -1: expected 0 to 255 grey levels"),
        (["--skip-static", "--static-threshold", "nan"], "static-threshold nan: expected 0 to 255 grey levels"),
    ],
)
def test_wrong_options(cli: Cli, bundle_path: Path, clip: Path, options: list[str], message: str) -> None:
    outcome = cli("run", bundle_path, "--source", clip, *options)
    assert outcome.status == 2
    assert message in outcome.error

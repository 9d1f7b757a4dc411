"""Every smoothing method against its definition, written down in plain NumPy over all frames so far."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevid import Bundle, Smoother, Smoothing, UsageError, VideoClassifier
from edgevid.methods import METHODS, new_method

Rows: TypeAlias = npt.NDArray[np.float64]
FLOOR = 1e-3  # for all classes together


def softmax(x: Rows) -> Rows:
    exps = np.exp(x - x.max())
    return np.asarray(exps / exps.sum())


def intervals(rows: Rows, times: Rows) -> tuple[Rows, Rows]:
    """Return the mean of each two neighbours, and how many seconds lie between them; the first stands alone."""
    return np.concatenate((rows[:1], (rows[1:] + rows[:-1]) / 2)), np.concatenate(([1e-9], np.diff(times)))


def mean(rows: Rows, weights: Rows) -> Rows:
    return np.asarray(weights @ rows / weights.sum())


def hmm(rows: Rows, stay: float) -> Rows:
    """Filter with the whole transition matrix."""
    classes = rows.shape[1]
    turn = np.full((classes, classes), (1 - stay) / (classes - 1))
    np.fill_diagonal(turn, stay)
    belief = np.full(classes, 1 / classes)
    for row in np.maximum(rows, FLOOR / classes):
        belief = (turn @ belief) * row
        belief /= belief.sum()
    return belief


def hmm_each(rows: Rows, stay: float) -> Rows:
    return np.array([hmm(np.stack((p, 1 - p), 1), stay)[0] for p in np.clip(rows, FLOOR / 2, 1 - FLOOR / 2).T])


def log(p: Rows) -> Rows:
    return np.asarray(np.log(np.maximum(p, FLOOR / p.shape[1])))


def logit(p: Rows) -> Rows:
    p = np.clip(p, FLOOR / 2, 1 - FLOOR / 2)
    return np.asarray(np.log(p / (1 - p)))


def pooled(form: Callable[[Rows], Rows], rows: Rows, times: Rows, how: Smoothing) -> Rows:
    """Return the mean of the window's frames in some form; of a window in seconds, over time."""
    if how.window == 7:
        return np.asarray(form(rows)[-7:].mean(axis=0))
    values, seconds = intervals(form(rows), times)
    inside = times > times[-1] - 1 + 1e-6
    return mean(values[inside], seconds[inside])


def exponential(rows: Rows, times: Rows, how: Smoothing) -> Rows:
    """Integrate straight lines between the frames, weighted by age, by Gauss's rule with eight places a step."""
    if len(rows) == 1:
        return np.asarray(rows[0])
    places, weights = np.polynomial.legendre.leggauss(8)
    share = (places[:, None] + 1) / 2
    steps = np.diff(times)
    at = times[:-1] + share * steps
    weight = weights[:, None] * steps * 0.5 ** ((times[-1] - at) / how.half_life_s)
    values = rows[:-1] + share[..., None] * np.diff(rows, axis=0)
    return np.asarray((weight[..., None] * values).sum(axis=(0, 1)) / weight.sum())


def highest(rows: Rows, times: Rows, how: Smoothing) -> Rows:
    return np.asarray((rows[-7:] if how.window == 7 else rows[times > times[-1] - 1 + 1e-6]).max(axis=0))


Reference: TypeAlias = Callable[[Rows, Rows, Smoothing], Rows]  # of all frames so far, the last one's scores
SOFTMAX: dict[str, Reference] = {
    "mean": lambda rows, times, how: pooled(lambda p: p, rows, times, how),
    "vote": lambda rows, times, how: pooled(lambda p: np.eye(p.shape[1])[p.argmax(axis=1)], rows, times, how),
    "max": highest,
    "log-mean": lambda rows, times, how: softmax(pooled(log, rows, times, how)),
    "exponential": exponential,
    "hmm": lambda rows, times, how: hmm(rows, how.stay),
}
SIGMOID: dict[str, Reference] = SOFTMAX | {
    "vote": lambda rows, times, how: pooled(lambda p: (p >= 0.5).astype(float), rows, times, how),
    "log-mean": lambda rows, times, how: 1 / (1 + np.exp(-pooled(logit, rows, times, how))),
    "hmm": lambda rows, times, how: hmm_each(rows, how.stay),
}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 6),
    frames=st.integers(1, 50),
    sharpness=st.sampled_from([0.3, 1.0, 20.0]),
    seconds=st.booleans(),
    how=st.builds(dict, half_life_s=st.floats(0.05, 3), stay=st.floats(0.5, 0.999)),
)
@pytest.mark.parametrize("multi_label", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_its_definition(
    method: Any, multi_label: bool, seed: int, classes: int, frames: int, sharpness: float, seconds: bool, how: Any
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, sharpness, (frames, classes))
    probabilities = 1 / (1 + np.exp(-logits)) if multi_label else np.array([softmax(row) for row in logits])
    rows = probabilities.astype(np.float32)  # at 20 many are 0 or 1
    times = np.cumsum(random.uniform(0.01, 0.2, frames))
    smoothing = Smoothing(method=method, window="1s" if seconds else 7, **how)
    steady = new_method(smoothing, classes, multi_label)
    wide = rows.astype(np.float64)
    for now in range(frames):
        expected = (SIGMOID if multi_label else SOFTMAX)[method](wide[: now + 1], times[: now + 1], smoothing)
        np.testing.assert_allclose(steady.update(rows[now], times[now]), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_of_what_came_before_a_reset(method: Any) -> None:
    rows = np.random.default_rng(1).dirichlet(np.ones(4), 30).astype(np.float32)
    used, new = (new_method(Smoothing(method=method, window=5), 4) for _ in range(2))
    for index, row in enumerate(rows):
        used.update(row, index / 25)
    used.reset()
    for index, row in enumerate(rows[::-1]):
        np.testing.assert_array_equal(used.update(row, index / 25), new.update(row, index / 25))


@pytest.mark.parametrize(("method", "delay_s"), [("mean", 1.0), ("vote", 1.0), ("log-mean", 1.0), ("exponential", 0.5)])
def test_the_delay_at_a_cut_is_the_one_stated(method: Any, delay_s: float) -> None:
    """Half the window, or the half-life, where the model is equally sure before and after."""
    smoother = Smoother("ab", Smoothing(method=method, window="2s", half_life_s=0.5))
    for index in range(200):
        row = [0.9, 0.1] if index < 100 else [0.1, 0.9]
        prediction = smoother.update(np.array(row, np.float32), index, index / 25)
        if prediction.label == "b":
            break
    assert prediction.time - 4.0 == pytest.approx(delay_s, abs=0.041)


@pytest.mark.parametrize("method", ["mean", "vote", "log-mean", "exponential"])
def test_of_frames_that_are_farther_apart_than_it_looks_back_the_last_one_counts(method: Any) -> None:
    """As with --max-fps 0.1, or where a file has no frames for a while."""
    smoother = Smoother("ab", Smoothing(method=method, window="2s", half_life_s=1.0))
    for index, (row, label) in enumerate([([0.9, 0.1], "a"), ([0.1, 0.9], "b"), ([0.9, 0.1], "a")]):
        assert smoother.update(np.array(row, np.float32), index, index * 10.0).label == label


@pytest.mark.parametrize("method", METHODS)
def test_frames_at_the_same_time(method: Any) -> None:
    """A timestamp twice, and all the same: no division by nothing, and the scores stay probabilities."""
    for times in ([5.0] * 6, [0.0, 0.0, 0.04, 0.04, 0.08, 0.08]):
        steady = new_method(Smoothing(method=method, window="1s"), 3)
        for row, time in zip(np.random.default_rng(0).dirichlet(np.ones(3), 6), times, strict=True):
            scores = steady.update(row.astype(np.float32), time)
            assert np.isfinite(scores).all()
            assert scores.sum() == pytest.approx(1.0, abs=1e-6) or method == "max"


def test_a_gap_turns_the_label_of_an_hmm_as_often_as_frames_are_missing() -> None:
    """Also the second gap after a single frame, and where the stream does not begin at 0."""
    rows = np.random.default_rng(4).dirichlet(np.ones(3), 5)
    steady = new_method(Smoothing(method="hmm", stay=0.9), 3)
    turn = np.full((3, 3), 0.05) + np.eye(3) * 0.85
    expected, time = np.full(3, 1 / 3), 50.0
    for row, missing in zip(rows, (0, 0, 0, 5, 5), strict=True):
        if missing:
            steady.pass_over(missing / 10)
        expected = (np.linalg.matrix_power(turn, missing + 1) @ expected) * row
        expected /= expected.sum()
        time += 0.1 * (missing + 1)
        np.testing.assert_allclose(steady.update(row.astype(np.float32), time), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_gap_lets_go_of_as_much_as_it_is_long(method: Any) -> None:
    """After a long gap the label is that of the first frame; after one of no length, that of those before."""
    for gap_s, expected in ((1000.0, "b"), (1e-9, "a")):
        smoother = Smoother("ab", Smoothing(method=method, window=50, half_life_s=1.0), gap="decay")
        for index in range(50):
            smoother.update(np.array([0.7, 0.3], np.float32), index, index / 25)
        prediction = smoother.update(np.array([0.31, 0.69], np.float32), 50, 2.0 + gap_s, gap_s)
        assert prediction.label == expected


@pytest.mark.parametrize("method", ["mean", "exponential"])
def test_of_a_gap_itself_nothing_is_known(method: Any) -> None:
    """It is no time of the label after it, as it would be if the frames on both sides were joined by a line."""
    smoother = Smoother("ab", Smoothing(method=method, window="2s", half_life_s=1.0), gap="decay")
    for index in range(50):
        smoother.update(np.array([0.7, 0.3], np.float32), index, index / 25)
    prediction = smoother.update(np.array([0.1, 0.9], np.float32), 50, 3.0, 1.0)
    assert prediction.label == "a"
    assert prediction.score == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "median"}, "method 'median': expected one of mean, "),
        ({"half_life_s": 0}, "half-life 0: expected seconds above 0"),
        ({"stay": 1.0}, "stay 1: expected a probability from 0.5"),
        ({"window": "2 parsecs"}, "window '2 parsecs': expected a whole number of predictions"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Smoothing(**settings)


@pytest.mark.parametrize(
    ("method", "steps"), [("mean", 3), ("log-mean", 3), ("exponential", 3), ("vote", 5)], ids=lambda value: str(value)
)
def test_in_seconds_decisions_do_not_depend_on_the_frame_rate(method: Any, steps: int) -> None:
    """Three scenes that flicker, at 25 frames a second, at half of that, and with 30 % dropped at random."""
    random = np.random.default_rng(3)
    scenes = np.repeat([0, 1, 2], 150)
    rows = np.repeat(random.dirichlet(np.ones(3) * 0.5, 75), 6, axis=0) * 0.5 + np.eye(3)[scenes] * 0.5
    times = np.arange(450) / 25

    def decisions(kept: npt.NDArray[np.intp]) -> list[tuple[float, str]]:
        smoother = Smoother("abc", Smoothing(method=method, window="2s", half_life_s=1.0))
        shown = [smoother.update(rows[index].astype(np.float32), int(index), times[index]) for index in kept]
        return [(b.time, b.label) for a, b in itertools.pairwise(shown) if a.label != b.label]

    everything = np.arange(450)
    expected = decisions(everything)
    assert [label for _, label in expected] == ["b", "c"]
    for kept in [everything[::2], *(everything[random.random(450) > 0.3] for _ in range(10))]:
        got = decisions(kept)
        assert [label for _, label in got] == ["b", "c"]
        for (time, _), (other, _) in zip(expected, got, strict=True):
            assert abs(time - other) < steps * 0.04 + 1e-6


def test_a_window_of_1_is_no_smoothing_whatever_the_bundles_method(bundle: Bundle, clip: Path) -> None:
    with VideoClassifier(bundle, window=1, smoothing=Smoothing(method="hmm")) as classifier:
        assert all(prediction.label == prediction.raw_label for prediction in classifier.stream(clip))
    with pytest.raises(UsageError, match="window 16: the method hmm, the default here, has stay instead"):
        VideoClassifier(bundle, window=16, smoothing=Smoothing(method="hmm"))

"""Every smoothing method against its definition, written down in plain NumPy over all frames so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevid import Smoother, Smoothing, UsageError
from edgevid.methods import METHODS, new_method

Rows: TypeAlias = npt.NDArray[np.float64]
FLOOR = 1e-4


def softmax(x: Rows) -> Rows:
    exps = np.exp(x - x.max())
    return np.asarray(exps / exps.sum())


def exponential(rows: Rows, ages: Rows, half_life: float) -> Rows:
    weights = 0.5 ** (ages / half_life)
    return np.asarray(weights @ rows / weights.sum())


def hmm(rows: Rows, stay: float) -> Rows:
    """Filter with the whole transition matrix."""
    classes = rows.shape[1]
    turn = np.full((classes, classes), (1 - stay) / (classes - 1))
    np.fill_diagonal(turn, stay)
    belief = np.full(classes, 1 / classes)
    for row in np.maximum(rows, FLOOR):
        belief = (turn @ belief) * row
        belief /= belief.sum()
    return belief


def hmm_each(rows: Rows, stay: float) -> Rows:
    return np.array([hmm(np.stack((p, 1 - p), 1), stay)[0] for p in np.clip(rows, FLOOR, 1 - FLOOR).T])


def logit(p: Rows) -> Rows:
    p = np.clip(p, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(p / (1 - p)))


Reference: TypeAlias = Callable[[Rows, Rows, Rows, Smoothing], Rows]  # rows of the window, all rows, ages of all
SOFTMAX: dict[str, Reference] = {
    "mean": lambda window, rows, ages, how: window.mean(axis=0),
    "vote": lambda window, rows, ages, how: np.eye(rows.shape[1])[window.argmax(axis=1)].mean(axis=0),
    "max": lambda window, rows, ages, how: window.max(axis=0),
    "log-mean": lambda window, rows, ages, how: softmax(np.log(np.maximum(window, FLOOR)).mean(axis=0)),
    "exponential": lambda window, rows, ages, how: exponential(rows, ages, how.half_life_s),
    "hmm": lambda window, rows, ages, how: hmm(rows, how.stay),
}
SIGMOID: dict[str, Reference] = SOFTMAX | {
    "vote": lambda window, rows, ages, how: (window >= 0.5).mean(axis=0),
    "log-mean": lambda window, rows, ages, how: 1 / (1 + np.exp(-logit(window).mean(axis=0))),
    "hmm": lambda window, rows, ages, how: hmm_each(rows, how.stay),
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
        first = int(np.argmax(times > times[now] - 1 + 1e-6)) if seconds else max(0, now - 6)
        reference = (SIGMOID if multi_label else SOFTMAX)[method]
        expected = reference(wide[first : now + 1], wide[: now + 1], times[now] - times[: now + 1], smoothing)
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


@pytest.mark.parametrize("method", METHODS)
def test_a_gap_lets_go_of_as_much_as_it_is_long(method: Any) -> None:
    """After a long gap the label is that of the first frame; after one of no length, that of those before."""
    for gap_s, expected in ((1000.0, "b"), (1e-9, "a")):
        smoother = Smoother("ab", Smoothing(method=method, window=50, half_life_s=1.0), gap="decay")
        for index in range(50):
            smoother.update(np.array([0.7, 0.3], np.float32), index, index / 25)
        prediction = smoother.update(np.array([0.31, 0.69], np.float32), 50, 2.0 + gap_s, gap_s)
        assert prediction.label == expected


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

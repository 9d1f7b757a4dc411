"""The ring buffer: its total is that of the window's rows, for ever, at constant cost."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevid import RingBuffer, UsageError


@given(
    window=st.integers(1, 12),
    rows=st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=60),
    combine=st.sampled_from([np.add, np.maximum]),
)
def test_the_total_is_that_of_the_last_k(window: int, rows: list[list[float]], combine: np.ufunc) -> None:
    ring = RingBuffer(window, 3, combine)
    for count in range(1, len(rows) + 1):
        total = ring.push(np.array(rows[count - 1], np.float32))
        expected = combine.reduce(np.array(rows[max(0, count - window) : count], np.float32).astype(np.float64), axis=0)
        np.testing.assert_allclose(total, expected, atol=1e-9)
        assert len(ring) == min(count, window)


@given(
    steps=st.lists(st.floats(0.001, 0.7), min_size=1, max_size=300),
    seconds=st.sampled_from(["2s", "500ms", "7s"]),
)
def test_a_window_in_seconds_holds_what_is_younger(steps: list[float], seconds: str) -> None:
    ring = RingBuffer(seconds, 1)
    span = {"2s": 2.0, "500ms": 0.5, "7s": 7.0}[seconds]
    times = np.cumsum(steps)
    for index, time in enumerate(times):
        total = ring.push(np.array([index], np.float32), time)
        inside = np.flatnonzero(times[: index + 1] > time - span + 1e-6)
        assert len(ring) == len(inside)
        assert total[0] == inside.sum()


def test_two_seconds_are_50_frames_at_25_a_second() -> None:
    ring = RingBuffer("2s", 1)
    for index in range(100_000):  # where the times of a day at 25 frames a second are rounded
        ring.push(np.array([1], np.float32), index * 0.04)
        assert len(ring) == min(index + 1, 50)


def test_the_total_after_a_million_updates() -> None:
    window, classes, updates = 64, 4, 1_000_000
    # Large and small values in turn: what makes a running sum drift.
    rows = (np.random.default_rng(0).random((updates, classes)) ** 20).astype(np.float32)
    ring = RingBuffer(window, classes)
    for row in rows:
        total = ring.push(row)
    np.testing.assert_allclose(total, rows[-window:].sum(axis=0, dtype=np.float64), atol=1e-9)


def test_a_nan_leaves_with_its_row() -> None:
    ring = RingBuffer(4, 2)
    ring.push(np.array([np.nan, 1], np.float32))
    for _ in range(8):
        total = ring.push(np.array([0.25, 0.75], np.float32))
    np.testing.assert_array_equal(total, [1, 3])


@pytest.mark.parametrize("window", [64, "2s"])
def test_no_allocation_in_steady_state(window: int | str) -> None:
    ring, row = RingBuffer(window, 1000), np.full(1000, 0.001, np.float32)
    for index in range(200):
        ring.push(row, index / 25)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for index in range(200, 1200):
        ring.push(row, index / 25)
    grown = sum(stat.size_diff for stat in tracemalloc.take_snapshot().compare_to(before, "filename"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 4096
    assert peak < 1000 * row.nbytes  # nothing per update was ever held


def test_clear_forgets() -> None:
    ring = RingBuffer(3, 2)
    ring.push(np.array([1, 0], np.float32))
    ring.clear()
    assert len(ring) == 0
    np.testing.assert_array_equal(ring.push(np.array([0, 1], np.float32)), [0, 1])


def test_a_gap_costs_as_many_rows_as_would_have_come_whatever_gaps_came_before() -> None:
    ring, time, held = RingBuffer(100, 1), 0.0, []
    for _ in range(4):
        for _ in range(30):
            ring.push(np.array([1], np.float32), time)
            time += 0.125
        ring.pass_over(1.0)
        held.append(len(ring))
        time += 1.0
    assert held == [22, 44, 66, 88], "eight a second"


def test_of_a_row_without_a_rate_nothing_is_left_after_a_gap() -> None:
    ring = RingBuffer(4, 1)
    ring.push(np.array([1], np.float32))
    ring.pass_over(60.0)
    assert len(ring) == 0


@pytest.mark.parametrize("window", [0, -1, "64 frames", "", 1.5, None, 10**9, "0s", "-2s", "61m", "1e3d"])
def test_a_window_that_cannot_be_meant(window: object) -> None:
    with pytest.raises(UsageError, match=r"expected a whole number of predictions from 1 .* or a time"):
        RingBuffer(window, 2)  # type: ignore[arg-type]

"""The ring buffer: its mean is the plain mean of the last K, for ever, at constant cost."""

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
)
def test_mean_is_the_plain_mean_of_the_last_k(window: int, rows: list[list[float]]) -> None:
    ring = RingBuffer(window, 3)
    for count in range(1, len(rows) + 1):
        mean = ring.push(np.array(rows[count - 1], np.float32))
        expected = np.mean(np.array(rows[max(0, count - window) : count], np.float32), axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean, expected, atol=1e-9)
        assert len(ring) == min(count, window)


def test_mean_after_a_million_updates() -> None:
    window, classes, updates = 64, 4, 1_000_000
    # Large and small values in turn: what makes a running sum drift.
    rows = (np.random.default_rng(0).random((updates, classes)) ** 20).astype(np.float32)
    ring = RingBuffer(window, classes)
    for row in rows:
        mean = ring.push(row)
    np.testing.assert_allclose(mean, rows[-window:].mean(axis=0, dtype=np.float64), atol=1e-6)


def test_a_nan_leaves_with_its_row() -> None:
    ring = RingBuffer(4, 2)
    ring.push(np.array([np.nan, 1], np.float32))
    for _ in range(8):
        mean = ring.push(np.array([0.25, 0.75], np.float32))
    np.testing.assert_array_equal(mean, [0.25, 0.75])


def test_no_allocation_in_steady_state() -> None:
    ring, row = RingBuffer(64, 1000), np.full(1000, 0.001, np.float32)
    for _ in range(200):
        ring.push(row)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for _ in range(1000):
        ring.push(row)
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


@pytest.mark.parametrize("window", [0, -1, "64 frames", "", 1.5, None, 10**9])
def test_a_window_that_cannot_be_meant(window: object) -> None:
    with pytest.raises(UsageError, match="expected a whole number of frames"):
        RingBuffer(window, 2)  # type: ignore[arg-type]

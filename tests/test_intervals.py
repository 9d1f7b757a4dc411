"""The statistics of the bench, on samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgevid_bench.intervals import latency, overlap, ranks, rates

GENERATOR = np.random.default_rng(1)


def test_the_interval_of_the_median_covers_it() -> None:
    covered = 0
    for _ in range(40):
        low, high = latency([GENERATOR.exponential(1.0, 400) for _ in range(2)]).ci95["p50"]
        covered += low <= np.log(2) <= high
    assert covered >= 34


def test_the_interval_of_a_median_knows_that_processes_differ() -> None:
    def rounds(spread: float) -> list[np.typing.NDArray[np.float64]]:
        return [GENERATOR.normal(10 + spread * number, 0.1, 200) for number in range(-2, 3)]

    (low, high), (wide_low, wide_high) = (latency(rounds(spread)).ci95["p50"] for spread in (0.0, 0.5))
    assert wide_high - wide_low > 5 * (high - low)


@pytest.mark.parametrize(("count", "names"), [(20, {"p50"}), (100, {"p50", "p90"}), (400, {"p50", "p90", "p99"})])
def test_a_percentile_needs_samples_that_carry_it(count: int, names: set[str]) -> None:
    found = latency([GENERATOR.exponential(1.0, count)])
    assert set(found.ci95) == names
    assert (found.p90 is None) == ("p90" not in names)
    assert (found.p99 is None) == ("p99" not in names)
    assert found.count == count


def noisy(
    rounds: int, rows: int, slower: float = 1.0, drift: float = 0.1, noise: float = 0.02
) -> dict[int, dict[int, float]]:
    """Return rates of rows that are equally fast, but for the last, on a machine that drifts."""
    machine = np.exp(GENERATOR.normal(0, drift, rounds))
    return {
        row: {
            number: 100 * machine[number] * np.exp(GENERATOR.normal(0, noise)) * (slower if row == rows - 1 else 1)
            for number in range(rounds)
        }
        for row in range(rows)
    }


@pytest.mark.parametrize("rows", [2, 5])
def test_equal_rows_are_called_equal_and_a_slower_one_is_told_apart_however_the_machine_drifts(rows: int) -> None:
    runs, equal, apart = 200, 0, 0
    for _ in range(runs):
        one, *_, last = rates(noisy(8, rows)).values()
        equal += overlap(one.ci95, last.ci95)
        one, *_, last = rates(noisy(8, rows, slower=0.9)).values()
        apart += not overlap(one.ci95, last.ci95) and last.value < one.value
    assert equal >= 0.95 * runs
    assert apart >= 0.9 * runs


def test_the_interval_across_benches_covers_the_rate_however_the_machine_drifts() -> None:
    covered, within = 0, 0
    for _ in range(100):
        rate, *_ = rates(noisy(5, 6)).values()
        assert rate.across_ci95
        assert rate.ci95
        covered += rate.across_ci95[0] <= 100 <= rate.across_ci95[1]
        within += rate.ci95[0] <= 100 <= rate.ci95[1]
    assert covered >= 88
    assert within < 88, "the interval within a bench leaves the drift out"


def test_a_row_that_is_noisier_than_the_others_has_a_wider_interval() -> None:
    measured = noisy(6, 20, drift=0.0)
    measured[20] = {number: 100 * (1.1 if number % 2 else 0.9) for number in range(6)}
    usual, *_, noisier = rates(measured).values()
    assert usual.ci95
    assert noisier.ci95
    assert noisier.ci95[1] - noisier.ci95[0] > 4 * (usual.ci95[1] - usual.ci95[0])


def test_a_row_measured_once_and_alone_is_not_known() -> None:
    (rate,) = rates({"row": {0: 100.0}}).values()
    assert rate.value == pytest.approx(100)
    assert rate.ci95 is rate.across_ci95 is None
    assert overlap(rate.ci95, (1.0, 2.0)), "it is told apart from nothing"


def test_rounds_that_a_row_did_not_take_part_in_do_not_shift_it() -> None:
    fast_round = {row: {0: 100.0, 1: 100.0, 2: 100.0, 3: 200.0, 4: 200.0} for row in range(2)}
    fast_round[2] = {0: 50.0, 1: 50.0, 2: 50.0}
    found = rates(fast_round)
    assert found[0].value / found[2].value == pytest.approx(2.0)


def test_ranks_count_what_is_faster_beyond_doubt() -> None:
    assert ranks([(90, 110), (100, 120), (115, 130), (10, 20)]) == [2, 1, 1, 4]

"""Work side by side, results in order: whatever fails, and whoever is slow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edgevid.crew import each_in_order, in_order

Slot = list[int]
Work = Callable[[int, Slot], None]


def squares(pause_s: float = 0.0) -> Work:
    def work(item: int, slot: Slot) -> None:
        time.sleep(random.Random(item).random() * pause_s)
        slot[0] = item * item

    return work


def slots(count: int = 4) -> list[Slot]:
    return [[0] for _ in range(count)]


def collected(items: Iterator[int] | range, work: Work, threads: int) -> list[list[tuple[int, int]]]:
    """What both functions hand over, each until it ends or fails."""
    pulled = [(item, slot[0]) for item, slot in in_order(items, work, slots(), threads)]
    pushed: list[tuple[int, int]] = []
    each_in_order(range(len(pulled)), work, lambda item, slot: pushed.append((item, slot[0])), slots(), threads)
    return [pulled, pushed]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_however_long_each_takes(threads: int) -> None:
    expected = [(item, item * item) for item in range(200)]
    assert collected(range(200), squares(0.002), threads) == [expected, expected]
    assert collected(range(0), squares(), threads) == [[], []]


def test_items_are_taken_by_one_thread_at_a_time_and_no_more_than_there_are_slots() -> None:
    taking, taken, delivered, most = threading.Lock(), [0], [0], [0]

    def items() -> Iterator[int]:
        for item in range(100):
            assert taking.acquire(blocking=False), "two threads take at once"
            taken[0] += 1
            most[0] = max(most[0], taken[0] - delivered[0])
            time.sleep(0.0005)
            taking.release()
            yield item

    def deliver(item: int, slot: Slot) -> None:
        assert item == delivered[0]
        time.sleep(0.001)
        delivered[0] += 1

    each_in_order(items(), squares(), deliver, slots(4), 3)
    assert delivered[0] == 100
    assert most[0] <= 4


@pytest.mark.parametrize("where", ["items", "work", "deliver"])
def test_what_came_before_a_failure_is_handed_over(where: str) -> None:
    def items() -> Iterator[int]:
        for item in range(50):
            if where == "items" and item == 20:
                raise ValueError("broken")
            yield item

    def work(item: int, slot: Slot) -> None:
        if where == "work" and item == 20:
            raise ValueError("broken")

    seen: list[int] = []

    def deliver(item: int, slot: Slot) -> None:
        if where == "deliver" and item == 20:
            raise ValueError("broken")
        seen.append(item)

    with pytest.raises(ValueError, match="broken"):
        each_in_order(items(), work, deliver, slots(), 3)
    assert seen == list(range(20))
    seen.clear()
    with pytest.raises(ValueError, match="broken"):
        list(map(lambda result: deliver(*result), in_order(items(), work, slots(), 3)))  # noqa: C417 - as it comes
    assert seen == list(range(20))


def test_nothing_is_delivered_after_a_delivery_that_failed() -> None:
    seen: list[int] = []

    def slow_items() -> Iterator[int]:
        for item in range(20):
            time.sleep(0.005)
            yield item

    def deliver(item: int, slot: Slot) -> None:
        seen.append(item)
        raise ValueError("disk full")

    with pytest.raises(ValueError, match="disk full"):
        each_in_order(slow_items(), squares(), deliver, slots(), 3)
    time.sleep(0.05)
    assert seen == [0]


def test_a_caller_who_has_seen_enough_leaves_no_threads() -> None:
    before = threading.active_count()
    results = in_order(iter(int, 1), squares(), slots(), 3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before

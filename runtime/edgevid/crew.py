"""Work on the items of a stream side by side, the results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["each_in_order", "in_order"]

PATIENCE_S = 1.0  # a source that never returns must not keep the process alive
Item = TypeVar("Item")
Slot = TypeVar("Slot")


def in_order(
    items: Iterable[Item], work: Callable[[Item, Slot], None], slots: Iterable[Slot], threads: int
) -> Iterator[tuple[Item, Slot]]:
    """Yield every item with a slot that ``work`` has filled for it, in the order of ``items``.

    Each thread takes an item, works on it, and takes the next: what it takes was made on its own core, and is still
    in that core's caches. One thread at a time takes. A slot is used again once the caller asks for the next result,
    and no more items are under way than there are slots.

    Where ``items`` or ``work`` fails, the results of what came before are yielded first.

    Args:
        items: asked for by the threads.
        work: called on several threads at once, each time with another slot.
        slots: memory for results.
        threads: how many.
    """
    crew = Crew(iter(items), work, deque(slots))
    with crew.at_work(threads):
        while (result := crew.next_result()) is not None:
            yield result.item, result.slot
            crew.give_back(result)


def each_in_order(
    items: Iterable[Item],
    work: Callable[[Item, Slot], None],
    deliver: Callable[[Item, Slot], None],
    slots: Iterable[Slot],
    threads: int,
) -> None:
    """Call ``deliver`` with every item and the slot that ``work`` has filled for it, in the order of ``items``.

    As :func:`in_order`, but the threads deliver as well, one at a time: whichever has the next result. So there are no
    more busy threads than ``threads``, whatever delivering costs, and none pushes another from its core.
    """
    crew = Crew(iter(items), work, deque(slots), deliver)
    with crew.at_work(threads):
        crew.wait()


@dataclass(eq=False)
class Result(Generic[Item, Slot]):
    """An item under way, then done or failed."""

    item: Item
    slot: Slot
    done: bool = False
    failure: BaseException | None = None


@dataclass
class Crew(Generic[Item, Slot]):
    """The threads and what passes between them; ``changed`` guards all of it but the items, which ``taking`` does."""

    items: Iterator[Item]
    work: Callable[[Item, Slot], None]
    free: deque[Slot]
    deliver: Callable[[Item, Slot], None] | None = None
    under_way: deque[Result[Item, Slot]] = field(default_factory=deque)
    delivering: bool = False
    ended: bool = False
    failure: BaseException | None = None
    taking: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def at_work(self, threads: int) -> Iterator[None]:
        """Start the threads; at the end let them finish what they hold."""
        workers = [
            threading.Thread(target=self._work, name=f"edgevid-worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._end(None)
            with self.changed:
                self.under_way.clear()  # whoever comes late delivers nothing
            for worker in workers:
                worker.join(PATIENCE_S)

    def next_result(self) -> Result[Item, Slot] | None:
        """Wait for the earliest result; None at the end. Raises what the items or the work raised."""
        with self.changed:
            self.changed.wait_for(lambda: self.under_way[0].done if self.under_way else self.ended)
            result = self.under_way.popleft() if self.under_way else None
        failure = result.failure if result else self.failure
        if failure:
            raise failure
        return result

    def wait(self) -> None:
        """Wait until everything is delivered. Raises what the items, the work or a delivery raised."""
        with self.changed:
            self.changed.wait_for(lambda: self.ended and not self.under_way and not self.delivering)
        if self.failure:
            raise self.failure

    def give_back(self, result: Result[Item, Slot]) -> None:
        """Let a slot be used again."""
        with self.changed:
            self.free.append(result.slot)
            self.changed.notify_all()

    def _work(self) -> None:
        while (result := self._taken()) is not None:
            try:
                self.work(result.item, result.slot)
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                result.failure = error
            with self.changed:
                result.done = True
                if self.under_way and result is self.under_way[0]:
                    self.changed.notify_all()
            if self.deliver:
                self._deliver_what_is_done(self.deliver)

    def _deliver_what_is_done(self, deliver: Callable[[Item, Slot], None]) -> None:
        while (result := self._next_delivery()) is not None:
            failure = result.failure
            try:
                if not failure:
                    deliver(result.item, result.slot)
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failure = error
            with self.changed:
                self.delivering = False
                self.free.append(result.slot)
                if failure:
                    self.under_way.clear()
                    self.failure = self.failure or failure
                    self.ended = True
                self.changed.notify_all()

    def _next_delivery(self) -> Result[Item, Slot] | None:
        """Return the earliest result, if it is there and no other thread delivers."""
        with self.changed:
            if self.delivering or not self.under_way or not self.under_way[0].done:
                return None
            self.delivering = True
            return self.under_way.popleft()

    def _taken(self) -> Result[Item, Slot] | None:
        """Take the next item, once there is a slot for its result; None at the end."""
        with self.taking:
            with self.changed:
                self.changed.wait_for(lambda: self.free or self.ended)
                if self.ended:
                    return None
                slot = self.free.popleft()
            try:
                result = Result(next(self.items), slot)
            except StopIteration:
                self._end(None)
                return None
            except BaseException as error:  # noqa: BLE001 - likewise
                self._end(error)
                return None
            return result if self._admitted(result) else None

    def _admitted(self, result: Result[Item, Slot]) -> bool:
        """Put a result under way, unless the end has come meanwhile: what follows a failure is not wanted."""
        with self.changed:
            if not self.ended:
                self.under_way.append(result)
            return not self.ended

    def _end(self, failure: BaseException | None) -> None:
        with self.changed:
            self.ended = True
            self.failure = self.failure or failure
            self.changed.notify_all()

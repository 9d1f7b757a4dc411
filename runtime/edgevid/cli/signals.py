"""Ctrl-C and SIGTERM: what ends a command, and how it is known afterwards that it did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from edgevid.cli.terminal import Terminal

__all__ = ["Terminated", "raised_in", "stop_on_signals"]


class Terminated(BaseException):
    """SIGTERM came; it ends a command as Ctrl-C does, and its temporary files with it."""


STOPS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@contextmanager
def raised_in(terminal: Terminal) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and Terminated on SIGTERM while the block runs, and have the terminal remember.

    TensorFlow's converters call Python from C++, and lose an exception that is raised there or turn it into one of
    their own: what the terminal remembers is what counts.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        terminal.stopped_by = STOPS[number]()
        raise terminal.stopped_by

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell starts what runs in its background
    with _handling([signal.SIGTERM] if ignored else list(STOPS), stop):
        yield


@contextmanager
def stop_on_signals(received: list[int], also: Callable[[], None]) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a stop after the current frame; a second one ends at once.

    Args:
        received: gets the signal's number.
        also: called at the first one.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()
        also()
        for handled, previous in before.items():
            signal.signal(handled, previous)

    with _handling(list(STOPS), handle) as before:
        yield stop


@contextmanager
def _handling(numbers: list[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Have signals handled while the block runs; yields the handlers that come back after it, by number."""
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield before
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)

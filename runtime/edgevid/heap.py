"""Keeps the heap of a process small that runs for months."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back", "keep_small"]

M_ARENA_MAX = -8  # of malloc.h
ARENAS = 2


def keep_small() -> None:
    """Have all threads share two of malloc's arenas, where it is glibc's.

    By default there may be eight for each core, and what threads that come and go free in one is not used in another: a
    thousand reconnects then leave megabytes behind. See mallopt(3).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return to the system what is free, where malloc is glibc's; it takes milliseconds. See malloc_trim(3)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

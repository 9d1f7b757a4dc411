"""Captures what engines print, at the level of file descriptors: most of it is printed by C++ code."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["MISSING_LIBRARY", "Captured", "captured", "missing_libraries", "pass_on_by", "quiet_at_exit", "show_all"]

MISSING_LIBRARY = re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file")  # as the dynamic linker says it


class Captured:
    """What was written while a block ran; empty until the block has ended."""

    text = ""


# Descriptors belong to the process: two captures at once would restore each other's.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def captured(*descriptors: int, passing_on: Callable[[bytes], bool] = lambda line: False) -> Iterator[Captured]:
    """Keep what is written to the file descriptors (1: stdout, 2: stderr) while the block runs.

    Args:
        descriptors: which ones.
        passing_on: which of the lines are written after all, to the last of the descriptors, when the block ends.

    Yields:
        What was written, once the block has ended, however it ended.
    """
    with _ONE_AT_A_TIME, _scratch() as file:
        _flush()
        kept = Captured()
        saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
        try:
            for descriptor in descriptors:
                os.dup2(file.fileno(), descriptor)
            yield kept
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            file.seek(0)
            lines = file.readlines()
            kept.text = b"".join(lines).decode(errors="replace")
            with suppress(OSError):  # a log that is full is no failure of what was captured
                _pass_on(descriptors[-1], b"".join(line for line in lines if passing_on(line) or _show_all.is_set()))


def _scratch() -> IO[bytes]:
    """Return a file without a name; in memory where there are such, since the disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("edgevid"), "w+b")
    return tempfile.TemporaryFile()


def show_all(wanted: bool) -> None:
    """Set whether everything is passed on after all, to the last of the descriptors: for --debug."""
    (_show_all.set if wanted else _show_all.clear)()


def pass_on_by(write: Callable[[int, bytes], object] = os.write) -> None:
    """Set how lines are passed on to a descriptor, for a log that is no plain text."""
    global _pass_on
    _pass_on = write


def quiet_at_exit() -> None:
    """Drop what comes on stderr after Python has ended: some engines tell there how they take themselves apart."""
    _quiet_at_exit.set()


def missing_libraries(log: str) -> str:
    """Return which libraries were not found, as what an engine printed tells it; empty if none was missed."""
    names = dict.fromkeys(MISSING_LIBRARY.findall(log))
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing" if names else ""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor was closed from the start
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C code has written to its own buffers


_pass_on: Callable[[int, bytes], object] = os.write
_quiet_at_exit = threading.Event()
_show_all = threading.Event()


@atexit.register  # with this module, so before most others, which are called before it
def _drop_stderr() -> None:
    if _quiet_at_exit.is_set():
        _flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

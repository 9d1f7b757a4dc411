"""Captures what engines print, at the level of file descriptors: most of it is printed by C++ code."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["captured"]


# Descriptors belong to the process: two captures at once would restore each other's.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def captured(*descriptors: int, passing_on: Callable[[bytes], bool] = lambda line: False) -> Iterator[None]:
    """Keep what is written to the file descriptors (1: stdout, 2: stderr) while the block runs.

    Args:
        descriptors: which ones.
        passing_on: which of the lines are written after all, to the last of the descriptors, when the block ends.
    """
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as file:
        _flush()
        saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
        try:
            for descriptor in descriptors:
                os.dup2(file.fileno(), descriptor)
            yield
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            file.seek(0)
            os.write(descriptors[-1], b"".join(line for line in file if passing_on(line)))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor was closed from the start
            stream.flush()

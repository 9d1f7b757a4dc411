"""Files that a power cut leaves as they were half a second before."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["Syncer"]

EVERY_S = 0.5
NOT_TO_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP)  # pipes, devices, some network drives


class Syncer:
    """Has the disk take what is written to a file, twice a second, on a thread of its own.

    That can take seconds on an SD card, so nobody waits for it, at the end neither.

    Args:
        descriptor: of the open file; it may be closed before the syncer is.
        folder: where the file was created; synced once, so that its name is on the disk as well.

    Attributes:
        failure: what the disk or the network drive reported, which a write had said nothing of.
    """

    def __init__(self, descriptor: int, folder: Path) -> None:
        self.failure: OSError | None = None
        self._descriptor = os.dup(descriptor)
        self._folder = folder
        self._closed = threading.Event()
        threading.Thread(target=self._work, name="edgevid-sync", daemon=True).start()

    def close(self) -> None:
        """Sync once more, without waiting for it."""
        self._closed.set()

    def _work(self) -> None:
        try:
            _sync_folder(self._folder)
            ended = False
            while not ended:
                ended = self._closed.wait(EVERY_S)
                os.fdatasync(self._descriptor)
        except OSError as error:
            if error.errno not in NOT_TO_BE_SYNCED:
                self.failure = error
        finally:
            with suppress(OSError):  # a network drive may tell even now that it is full; it has told so before
                os.close(self._descriptor)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems have no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Files that grow by whole pieces: what a full disk cuts short is taken back."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edgevid.sinks.durable import Syncer

__all__ = ["EncodedFile", "WholeFile"]


class WholeFile:
    """A new file, or one of ours to go on with, that holds whole pieces only.

    Args:
        path: the file.
        force: replace it if it exists.
        go_on_at: how long it was when it was last whole, if it was written before.
        sync: have the disk take what is written twice a second, for what cannot be made again after a power cut.

    Attributes:
        size: how many bytes are whole.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, path: Path, *, force: bool = False, go_on_at: int | None = None, sync: bool = False) -> None:
        how = os.O_TRUNC if force else os.O_EXCL
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (how if go_on_at is None else 0), 0o666)
        self._syncer = Syncer(self._descriptor, path.parent) if sync else None
        self.size = min(go_on_at or 0, os.fstat(self._descriptor).st_size)
        self.take_back()

    def append(self, piece: bytes) -> None:
        """Write a piece, all of it or nothing.

        Raises:
            OSError: it cannot be written, or something before it did not reach the disk.
        """
        try:
            self.check_disk()
            rest = memoryview(piece)
            while rest:  # one write, but for a disk that takes only a part, and then says why
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.take_back()
            raise
        self.size += len(piece)

    def check_disk(self) -> None:
        """Raise what the disk reported after a write had succeeded."""
        if self._syncer and self._syncer.failure:
            raise self._syncer.failure

    def take_back(self) -> None:
        """Cut the file to its whole pieces."""
        with suppress(OSError):  # pipes and devices have no length
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def close(self) -> None:
        """Close it; safe to call twice.

        Raises:
            OSError: a network drive says only now that it has no room.
        """
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            if self._syncer:
                self._syncer.close()
            os.close(descriptor)


class EncodedFile(WholeFile):
    """A file for FFmpeg, which never sees a write fail, since it may crash after that.

    After a failure it is cut to what was whole, and takes what else FFmpeg writes without keeping it.

    Attributes:
        failure: why writing failed.
    """

    def __init__(self, path: Path, *, force: bool = False, sync: bool = False) -> None:
        super().__init__(path, force=force, sync=sync)
        self.failure: OSError | None = None
        self._position = self._end = 0

    def write(self, data: bytes) -> int:
        """Write where FFmpeg stands.

        What it goes back to and changes in the end relies on what it wrote last, which has to reach the disk before.
        """
        try:
            if self._syncer and self._position < self.size and not self.failure:
                os.fdatasync(self._descriptor)
            rest = memoryview(data)
            while rest and not self.failure:
                rest = rest[os.pwrite(self._descriptor, rest, self._position + len(data) - len(rest)) :]
        except OSError as error:
            self.failure = error
            self.take_back()
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another place."""
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        """Return where it stands."""
        return self._position

    def keep(self) -> bool:
        """Count what is written so far as whole; return whether that is more than before.

        Raises:
            OSError: it could not be written.
        """
        if self.failure is None:
            try:
                self.check_disk()
            except OSError as error:
                self.failure = error
        if self.failure:
            raise self.failure
        grown, self.size = self._end > self.size, self._end
        return grown

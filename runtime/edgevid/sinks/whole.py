"""Files that grow by whole pieces: what a full disk cuts short is taken back."""

from __future__ import annotations

import os
from collections.abc import Callable
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

    What FFmpeg writes is collected, and written as one piece when it is whole. A kill may cut even that short, so a
    piece is covered until all of it is there: it begins with what makes players pass over it.

    Args:
        path: the file.
        force: replace it if it exists.
        sync: have the disk take what is written twice a second.
        cover: returns what hides a piece of so many bytes, if the container has such a thing.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(
        self, path: Path, *, force: bool = False, sync: bool = False, cover: Callable[[int], bytes] = lambda _: b""
    ) -> None:
        super().__init__(path, force=force, sync=sync)
        self._cover = cover
        self._failed = False
        self._position = 0
        self._piece = bytearray()  # what follows the whole pieces
        self._changes: list[tuple[int, bytes]] = []  # what is changed in them

    def write(self, data: bytes) -> int:
        """Collect what FFmpeg writes where it stands."""
        ahead = self._position - self.size
        if ahead < 0:
            self._changes.append((self._position, bytes(data)))
        else:
            self._piece[ahead : ahead + len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another place."""
        self._position = offset + (0, self._position, self.size + len(self._piece))[whence]
        return self._position

    def tell(self) -> int:
        """Return where it stands."""
        return self._position

    def keep(self) -> bool:
        """Write what was collected, as one piece; return whether there was any. After a failure nothing is kept.

        Raises:
            OSError: it cannot be written.
        """
        at, piece, changes = self.size, bytes(self._piece), self._changes
        self._piece, self._changes = bytearray(), []
        if self._failed:
            return False
        self._failed = True
        if piece:
            cover = self._cover(len(piece))
            self.append(cover + piece[len(cover) :])
            os.pwrite(self._descriptor, piece[: len(cover)], at)
        if changes and self._syncer:  # they speak of what was written last, which has to be on the disk before them
            os.fdatasync(self._descriptor)
        for position, data in changes:
            os.pwrite(self._descriptor, data, position)
        self._failed = False
        return bool(piece)

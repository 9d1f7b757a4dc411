"""Finds a picture that has stopped: a camera that repeats its last frame for ever."""

from __future__ import annotations

import zlib

from edgevid.picture import Picture
from edgevid.planes import Planes, plane_arrays

__all__ = ["StillPicture"]

EVERY_ROW = 8  # is looked at: the noise of a sensor is in all of them


class StillPicture:
    """Knows for how long a picture has been the same, bit for bit; no sensor delivers that."""

    def __init__(self) -> None:
        self._sum = -1
        self._since = 0.0

    def seconds(self, picture: Picture, now: float) -> float:
        """Look at the next picture; return for how many seconds, on the clock of ``now``, none has differed."""
        luma = plane_arrays(picture.frame)[0] if isinstance(picture, Planes) else picture
        rows = luma[::EVERY_ROW]
        checksum = zlib.crc32(rows.tobytes(), zlib.crc32(repr(rows.shape).encode()))
        if checksum != self._sum:
            self._sum, self._since = checksum, now
        return now - self._since

"""The planes of an FFmpeg picture as arrays."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from edgevid.arrays import Plane

__all__ = ["plane_arrays"]


def plane_arrays(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Return Y, U and V of a planar picture of 8 bits: the picture's own memory, uint8 of shape (height, width)."""
    y, u, v = (_rows(plane) for plane in frame.planes)
    return y, u, v


def _rows(plane: VideoPlane) -> Plane:
    padded = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size)
    rows: Plane = padded.reshape(plane.height, plane.line_size)[:, : plane.width]
    return rows

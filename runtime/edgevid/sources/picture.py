"""What FFmpeg decoded, as the stations take it: planes where it has them in 8 bits, else BGR; always upright."""

from __future__ import annotations

from av.video.frame import VideoFrame

from edgevid.arrays import Picture
from edgevid.planes import PLANAR, Planes, bgr, turned

__all__ = ["upright_picture"]


def upright_picture(frame: VideoFrame) -> Picture:
    """Return a decoded frame turned as it was filmed."""
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise: how a phone was held
    if frame.format.name in PLANAR:
        return Planes(frame, quarter_turns)
    return turned(bgr(frame), quarter_turns)

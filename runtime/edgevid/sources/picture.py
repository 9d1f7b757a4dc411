"""What FFmpeg decoded, as the stations take it: planes where it has them in 8 bits, else BGR; always upright."""

from __future__ import annotations

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from edgevid.arrays import Image, Matrix, Picture, Planes
from edgevid.planes import plane_arrays

__all__ = ["upright_picture"]

PLANAR = frozenset(f"yuv{full}{layout}p" for full in ("", "j") for layout in ("420", "422", "444"))
# By FFmpeg's numbers, which are those of ITU-T H.273.
MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
# By quarter turns counter-clockwise.
ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def upright_picture(frame: VideoFrame) -> Picture:
    """Return a decoded frame turned as it was filmed; its planes are the decoder's own memory."""
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise: how a phone was held

    def to_bgr() -> Image:
        # A converter of our own: by itself FFmpeg starts threads for every picture.
        image = VideoReformatter().reformat(frame, format="bgr24", threads=1).to_ndarray()
        return _turned(image.astype(np.uint8, copy=False), quarter_turns)

    name = frame.format.name
    if name not in PLANAR:
        return to_bgr()
    y, u, v = (_turned(plane, quarter_turns) for plane in plane_arrays(frame))
    full_range = name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    return Planes(y, u, v, MATRICES.get(frame.colorspace, "unspecified"), full_range, to_bgr)


def _turned(image: Image, quarter_turns: int) -> Image:
    if not quarter_turns:
        return image
    return cv2.rotate(image, ROTATIONS[quarter_turns]).astype(np.uint8, copy=False)

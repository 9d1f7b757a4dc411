"""The pictures of the software webcam: colour bars, and a number that a program can read."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from edgevid.arrays import Image
from edgevid.picture import Picture

__all__ = ["BARS", "COUNT", "number_in", "write_pictures"]

# 75 % bars, in BGR.
BARS = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]) * 191
BITS = 6
COUNT = 1 << BITS  # 2 s at 30 frames a second: longer than any is late
SIZES = ((320, 240), (640, 480), (1280, 720))


def write_pictures(folder: Path) -> None:
    """Write COUNT pictures of each size as JPEG, and of the smallest as YUYV too."""
    for width, height in SIZES:
        for number in range(COUNT):
            image = picture(width, height, number)
            name = f"{width}x{height}-{number:02}"
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            (folder / f"{name}.jpg").write_bytes(encoded.tobytes())
            if (width, height) == SIZES[0]:  # larger ones are too slow for a bus in software
                packed = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
                    format="yuyv422", dst_colorspace="ITU601"
                )
                (folder / f"{name}.yuyv").write_bytes(bytes(packed.planes[0]))


def picture(width: int, height: int, number: int) -> Image:
    """Return the bars, and below them a row of BITS blocks: the number's bits, the highest first; noise beneath."""
    image = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(BARS):
        image[:, width * place // 8 : width * (place + 1) // 8] = colour
    for place in range(BITS):
        left, right = width * place // BITS, width * (place + 1) // BITS
        image[height * 3 // 4 : height * 7 // 8, left:right] = 255 * (number >> (BITS - 1 - place) & 1)
    noise = np.random.default_rng(number).integers(0, 256, (height - height * 7 // 8, width, 3), np.uint8)
    image[height * 7 // 8 :] = noise  # as large as a camera's JPEG
    return image


def number_in(picture: Picture) -> int | None:
    """Return the number that a picture shows; None if it is none of ours, or damaged."""
    grey = picture.mean(axis=2) if isinstance(picture, np.ndarray) else picture.luma()
    height, width = grey.shape
    row = grey[height * 13 // 16]
    bits = [row[width * (2 * place + 1) // (2 * BITS)] for place in range(BITS)]
    if not all(bit < 40 or bit > 215 for bit in bits):
        return None
    return sum(int(bit > 127) << (BITS - 1 - place) for place, bit in enumerate(bits))

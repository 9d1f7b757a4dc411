"""What a frame shows: an image, or the planes of a video that nobody has converted yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

from edgevid.arrays import Image

if TYPE_CHECKING:
    from edgevid.planes import Planes  # and FFmpeg with them, which OpenCV's pictures do without

__all__ = ["Picture"]

Picture: TypeAlias = Union[Image, "Planes"]

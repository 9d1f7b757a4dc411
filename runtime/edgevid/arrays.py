"""The arrays that pass between the stations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Image", "Matrix", "Picture", "Plane", "Planes", "Probabilities"]

Image: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), BGR; in the model's own order after preprocessing
Plane: TypeAlias = npt.NDArray[np.uint8]  # (height, width)
Probabilities: TypeAlias = npt.NDArray[np.float32]  # (classes,)
Matrix: TypeAlias = Literal["unspecified", "bt601", "bt709", "bt2020"]


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """A picture as video stores it: luma Y, and chroma U and V of the same size or smaller, 8 bits each.

    Whoever needs a few of its pixels resizes the planes and converts what is left, instead of the whole.

    Attributes:
        y, u, v: uint8 of shape (height, width); they may be the decoder's memory, and are not to be written.
        matrix: how RGB became YUV: ITU-R BT.601, BT.709 or BT.2020; read as BT.601 where the file does not say.
        full_range: whether luma spans 0–255 (JPEG) and not 16–235.
        to_bgr: converts the whole picture, uint8 of shape (height, width, 3).
    """

    y: Plane
    u: Plane
    v: Plane
    matrix: Matrix
    full_range: bool
    to_bgr: Callable[[], Image] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = self.y.shape
        return height, width


Picture: TypeAlias = Image | Planes

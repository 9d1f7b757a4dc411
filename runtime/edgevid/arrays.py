"""The arrays that pass between the stations."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Image", "Matrix", "Plane", "Probabilities", "Scores"]

Image: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), BGR; in the model's own order after preprocessing
Plane: TypeAlias = npt.NDArray[np.uint8]  # (height, width)
Probabilities: TypeAlias = npt.NDArray[np.float32]  # (classes,)
Scores: TypeAlias = npt.NDArray[np.float64]  # (classes,), 0 to 1: what many frames' probabilities come to
# How RGB became YUV: ITU-R BT.601, BT.709 or BT.2020; read as BT.601 where a file does not say.
Matrix: TypeAlias = Literal["unspecified", "bt601", "bt709", "bt2020"]

"""The arrays that pass between the stations."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Image", "Probabilities"]

Image: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), BGR; in the model's own order after preprocessing
Probabilities: TypeAlias = npt.NDArray[np.float32]  # (classes,)

"""A model that was opened: a function of one tensor, and what is known of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["WINDOW_RANK", "Opened"]

WINDOW_RANK = 5  # batch, frames, height, width, channels


@dataclass(frozen=True)
class Opened:
    """A model as a function of one tensor.

    Attributes:
        call: takes a tensor of ``shape`` and ``dtype``, returns the answer.
        shape: the input's, batch first; None for what is open, empty where the model does not say.
        dtype: TensorFlow's.
        owner: keeps the model's variables alive.
        library: the Keras that a Keras model is of, 3 or 2; None of a SavedModel.
    """

    call: Callable[[Any], Any]
    shape: Sequence[int | None]
    dtype: Any
    owner: Any
    library: Any = None

    @property
    def takes_windows(self) -> bool:
        """Whether it takes several frames at a time."""
        return len(self.shape) == WINDOW_RANK

"""No engine at all: a stand-in with the right shapes, to run and test everything around an engine anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.backends.base import Backend, BackendOptions, Usable
from edgevid.backends.proof import Proof
from edgevid.bundle import Bundle
from edgevid.manifest import Variant

__all__ = ["load", "usable"]


class NullBackend(Backend):
    """Answers with the class that the first value of its input points at; reads no model file.

    The answer depends on the input alone, so that two runs over one clip agree. It says nothing about the image.
    """

    name = "null"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        self.proof = Proof("cpu", "nothing", {}, None, {})
        low, high = bundle.manifest.value_range
        if variant.input.quantized:
            limits = np.iinfo(variant.input.dtype)
            low, high = limits.min, limits.max
        self._low, self._span = low, high - low
        self._output = np.zeros((self.batch, *variant.output.shape[1:]), variant.output.dtype)
        self._one = 1 if not variant.output.quantized else np.iinfo(variant.output.dtype).max

    def infer(self) -> npt.NDArray[Any]:
        """Return the raw output, of shape (batch, classes), with a single class set in each row."""
        classes = self._output.shape[-1]
        self._output.fill(np.iinfo(self._output.dtype).min if self._output.dtype == np.int8 else 0)
        for image, row in zip(self._input, self._output, strict=True):
            level = (float(image.flat[0]) - self._low) / self._span
            row[min(int(level * classes), classes - 1)] = self._one
        return self._output


load = NullBackend


def usable(device: str) -> Usable:
    """Return that it can: it needs nothing."""
    return Usable(device)

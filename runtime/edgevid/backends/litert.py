"""LiteRT, the successor of tflite-runtime: ``.tflite`` variants on the CPU through XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from edgevid.backends.base import Backend, BackendOptions
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, first_line
from edgevid.manifest import Variant
from edgevid.quiet import captured

XNNPACK_NOTE = b"INFO: Created TensorFlow Lite XNNPACK delegate"


class LiteRTBackend(Backend):
    """A ``.tflite`` variant in LiteRT's interpreter."""

    name = "litert"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        path = bundle.verified_file(variant)
        try:
            self._interpreter = _loaded(path, self.threads)
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{path}: LiteRT cannot load it: {first_line(error)}") from error
        self._input_index: int = self._interpreter.get_input_details()[0]["index"]
        self._output_index: int = self._interpreter.get_output_details()[0]["index"]

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (1, classes)."""
        try:
            self._interpreter.set_tensor(self._input_index, self.input)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"LiteRT failed: {first_line(error)}") from error
        output: npt.NDArray[Any] = self._interpreter.get_tensor(self._output_index)
        return output


def _loaded(path: Path, threads: int) -> Interpreter:
    """Load a model without LiteRT's note on stderr that it works; whatever else came there is passed on."""
    with captured(2, passing_on=lambda line: not line.startswith(XNNPACK_NOTE)):
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter

"""ONNX Runtime: ``.onnx`` variants on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from edgevid.backends.base import Backend, BackendOptions
from edgevid.bundle import Bundle
from edgevid.cpu import has_exact_int8
from edgevid.errors import BackendError, first_line
from edgevid.manifest import Variant

__all__ = ["OnnxRuntimeBackend", "open_session"]

LOG_ERRORS_ONLY = 3
# Spinning threads take the cores that decoding and preprocessing need.
NO_SPINNING = ("session.intra_op.allow_spinning", "0")
# Kernels that do not saturate; where the CPU does not saturate anyway, they are less than half as fast.
EXACT_KERNELS = ("session.x64quantprecision", "1")


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """Open an ``.onnx`` file on the CPU, on this many threads, with exact integer arithmetic on every CPU.

    Raises:
        Exception: of one of ONNX Runtime's many kinds; it cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    for entry in [NO_SPINNING] if has_exact_int8() else [NO_SPINNING, EXACT_KERNELS]:
        options.add_session_config_entry(*entry)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxRuntimeBackend(Backend):
    """An ``.onnx`` variant in an ONNX Runtime session with the CPU execution provider."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        path = bundle.verified_file(variant)
        try:
            self._session = open_session(path, self.threads)
        except Exception as error:
            raise BackendError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
        self._input_name = self._session.get_inputs()[0].name
        self._output_names = [self._session.get_outputs()[0].name]

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (1, classes)."""
        try:
            outputs: list[npt.NDArray[Any]] = self._session.run(self._output_names, {self._input_name: self.input})
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
        return outputs[0]

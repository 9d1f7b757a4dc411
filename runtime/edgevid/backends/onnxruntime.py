"""ONNX Runtime: ``.onnx`` variants on the CPU."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from edgevid.backends.base import Backend, BackendOptions
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, first_line
from edgevid.manifest import Variant

LOG_ERRORS_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """An ``.onnx`` variant in an ONNX Runtime session with the CPU execution provider."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        path = bundle.verified_file(variant)
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = self.threads
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = LOG_ERRORS_ONLY
        # Spinning threads take the cores that decoding and preprocessing need.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
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

"""The old tflite-runtime, for boards that have nothing newer: ``.tflite`` variants on the CPU and on delegates."""

from __future__ import annotations

from typing import Any

from edgevid.backends.base import Usable
from edgevid.backends.interpreter import InterpreterBackend, edge_tpu

__all__ = ["load", "usable"]


class TFLiteBackend(InterpreterBackend):
    """A ``.tflite`` variant in tflite-runtime's interpreter."""

    name = "tflite"
    engine = "tflite-runtime"
    remedy = "convert the model again with --target tflite-runtime"

    @classmethod
    def interpreter_module(cls) -> Any:
        """Import and return ``tflite_runtime.interpreter``."""
        from tflite_runtime import interpreter

        return interpreter


load = TFLiteBackend


def usable(device: str) -> Usable:
    """Return whether tflite-runtime can use a device of this machine."""
    TFLiteBackend.interpreter_module()
    return edge_tpu() if device == "edgetpu" else Usable(device)

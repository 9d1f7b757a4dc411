"""The TFLite interpreter, as LiteRT and the old tflite-runtime both have it: CPU, and external delegates."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.backends.base import Backend, BackendOptions, Usable
from edgevid.backends.proof import Proof, check_proof, counted_kinds
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, UsageError, first_line
from edgevid.hardware import has_edge_tpu
from edgevid.manifest import Variant
from edgevid.quiet import captured

__all__ = ["EDGE_TPU_LIBRARY", "InterpreterBackend", "edge_tpu"]

XNNPACK_NOTE = b"INFO: Created TensorFlow Lite XNNPACK delegate"
EDGE_TPU_LIBRARY = "libedgetpu.so.1"
DELEGATE_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
DELEGATED = frozenset({"DELEGATE", "edgetpu-custom-op"})  # an operator that stands for many, or was compiled from them
ON_CPU = ("XNNPACK", "TFLite kernels")


class InterpreterBackend(Backend):
    """A ``.tflite`` variant in a TFLite interpreter, on the CPU or on what an external delegate brings.

    Raises:
        BackendError: the model or the delegate cannot be loaded, or the delegate takes too few operators.
    """

    engine: str  # its name, for reading
    remedy = "convert the model again"  # where it cannot load a file

    @classmethod
    def interpreter_module(cls) -> Any:
        """Import and return the module with ``Interpreter`` and ``load_delegate``."""
        raise NotImplementedError

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        module = self.interpreter_module()
        delegate, path = self._delegate(module, bundle, variant, options)
        try:
            # LiteRT's note that it works is dropped; whatever else comes is passed on.
            with captured(2, passing_on=lambda line: not line.startswith(XNNPACK_NOTE)):
                delegates = [delegate] if delegate else None
                interpreter = module.Interpreter(
                    model_path=str(path), num_threads=self.threads, experimental_delegates=delegates
                )
                if options.batch > 1:
                    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], self._input.shape)
                by_delegate = _delegated(interpreter._get_ops_details()) if delegate else frozenset()
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{path}: {self.engine} cannot load it: {first_line(error)}; {self.remedy}") from error
        self._interpreter: Any = interpreter
        self._output = np.zeros((self.batch, *variant.output.shape[1:]), variant.output.dtype)
        self._input_index: int = interpreter.get_input_details()[0]["index"]
        self._output_index: int = interpreter.get_output_details()[0]["index"]
        library = options.delegate or EDGE_TPU_LIBRARY
        self.proof = _proof(interpreter, options.device_kind, by_delegate, Path(library) if delegate else None)
        if delegate:
            check_proof(self.proof, f"the delegate {library}", options.allow_partial)

    def _delegate(self, module: Any, bundle: Bundle, variant: Variant, options: BackendOptions) -> tuple[Any, Path]:
        """Return the external delegate to use, or None, and the file to load."""
        if options.device_kind == "edgetpu":
            path = bundle.edge_tpu_file(variant)
            which = {"device": options.which_device} if options.which_device else {}
            return _loaded(module, EDGE_TPU_LIBRARY, {**which, **options.engine_options}), path
        path = bundle.verified_file(variant)
        if options.delegate is None:
            if options.engine_options:
                names = ", ".join(options.engine_options)
                raise UsageError(
                    f"--engine-option {names}: {self.engine} on the CPU has none; they are for a --delegate"
                )
            return None, path
        return _loaded(module, options.delegate, options.engine_options), path

    @property
    def input(self) -> npt.NDArray[Any]:
        """The interpreter's own input tensor, to be written; see :attr:`Backend.input`."""
        tensor: npt.NDArray[Any] = self._interpreter.tensor(self._input_index)()
        return tensor

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (batch, classes)."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{self.engine} failed: {first_line(error)}") from error
        np.copyto(self._output, self._interpreter.tensor(self._output_index)())
        return self._output

    def close(self) -> None:
        """Release the model, its threads, and the delegate."""
        self._interpreter = None


def _loaded(module: Any, library: str, options: Mapping[str, str]) -> Any:
    """Load an external delegate.

    Raises:
        BackendError: its library is absent, is none, or refuses its options or its device.
    """
    given = ", ".join(f"{key}={value}" for key, value in options.items()) or "none"
    refused = f"delegate {library}: it cannot be loaded, with options {given}: "
    try:
        opened = ctypes.CDLL(library)
    except OSError as error:
        raise BackendError(f"{refused}{first_line(error)}; expected a shared library for this machine") from error
    if not all(hasattr(opened, name) for name in DELEGATE_FUNCTIONS):
        raise BackendError(f"{refused}it is no TFLite delegate: it has no function {DELEGATE_FUNCTIONS[0]}")
    try:
        return module.load_delegate(library, dict(options))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).removeprefix(f"Failed to load delegate from {library}").split())
        raise BackendError(
            f"{refused}{reason or 'it gives no reason'}; is its device plugged in, and may this user open it?"
        ) from error


def edge_tpu() -> Usable:
    """Return whether the Edge TPU's library is there."""
    try:
        ctypes.CDLL(EDGE_TPU_LIBRARY)
    except OSError as error:
        return Usable("edgetpu", first_line(error), "install Coral's package libedgetpu1-std, and plug the device in")
    if not has_edge_tpu():
        return Usable("edgetpu", "no Edge TPU is plugged in", "plug it in; on PCIe, install the gasket driver")
    return Usable("edgetpu")


def _delegated(operators: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Return the indices of the operators that delegates took: each computes what such an operator reads and writes."""
    written_by = {
        int(tensor): operator
        for operator in operators
        if operator["op_name"] != "DELEGATE"
        for tensor in operator["outputs"]
    }
    taken: set[int] = set()
    for delegate in operators:
        if delegate["op_name"] not in DELEGATED:
            continue
        known = {int(tensor) for tensor in delegate["inputs"]}
        open_ends = [int(tensor) for tensor in delegate["outputs"]]
        while open_ends:
            tensor = open_ends.pop()
            if tensor in known or tensor not in written_by or written_by[tensor]["index"] in taken:
                continue
            taken.add(written_by[tensor]["index"])
            open_ends.extend(int(index) for index in written_by[tensor]["inputs"])
    return frozenset(taken)


def _proof(interpreter: Any, device: str, by_delegate: frozenset[int], library: Path | None) -> Proof:
    """Return the proof; ``by_delegate`` are the operators that the delegate of that library took, if there is one."""
    everything = interpreter._get_ops_details()
    operators = [operator for operator in everything if operator["op_name"] != "DELEGATE"]
    dtypes = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    by_xnnpack = _delegated(everything) - by_delegate
    counts = (len(by_xnnpack), len(operators) - len(by_xnnpack) - len(by_delegate))
    on_cpu = {place: count for place, count in zip(ON_CPU, counts, strict=True) if count}
    if library is None:
        return Proof("cpu", _precision(operators, dtypes), on_cpu, len(operators), {})
    taken = [operator for operator in operators if operator["index"] in by_delegate]
    left = [operator for operator in operators if operator["index"] not in by_delegate]
    return Proof(
        device=device if device == "edgetpu" else "delegate",
        precision=_precision(taken, dtypes),
        places={library.name: len(taken), **on_cpu},
        on_device=len(taken),
        elsewhere=counted_kinds(operator["op_name"] for operator in left),
    )


def _precision(operators: Iterable[Mapping[str, Any]], dtypes: Mapping[int, Any]) -> str:
    """Return what the compute-heavy operators compute in, by the tensors that they read."""
    found: Counter[str] = Counter()
    for operator in operators:
        if counted_kinds([operator["op_name"]]):
            data, weights = (np.dtype(dtypes[int(index)]).name for index in operator["inputs"][:2])
            found["int8 weights × float32" if (data, weights) == ("float32", "int8") else data] += 1
    return " and ".join(precision for precision, _ in found.most_common()) or "unknown"

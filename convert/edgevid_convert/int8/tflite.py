"""Int8 candidates in TFLite: a float file, quantized by litert-quantizer with ranges of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from litert_quantizer import quantizer, recipe
from litert_quantizer.qtyping import TFLOperationName

from edgevid.errors import ModelError, first_line
from edgevid_convert.int8.candidates import Answers, Operator
from edgevid_convert.int8.ranges import Range, Seen, observed

__all__ = ["TfliteCandidates"]


class TfliteCandidates:
    """Int8 files of one float ``.tflite`` file.

    Args:
        path: the float file.
    """

    suffix = "tflite"

    def __init__(self, path: Path) -> None:
        self._path = path
        interpreter = _interpreter(path)
        tensors = interpreter.get_tensor_details()
        self._names = {tensor["index"]: tensor["name"] for tensor in tensors}
        self._ranks = {tensor["name"]: len(tensor["shape"]) for tensor in tensors}
        operators = [operator for operator in interpreter._get_ops_details() if operator["op_name"] != "DELEGATE"]
        written = {int(operator["outputs"][0]) for operator in operators}
        self._activations = [int(interpreter.get_input_details()[0]["index"]), *sorted(written)]
        known = set(self._activations)
        self.operators = [
            Operator(
                name=self._names[int(operator["outputs"][0])],
                kind=operator["op_name"],
                inputs=tuple(self._names[int(index)] for index in operator["inputs"] if int(index) in known),
                output=self._names[int(operator["outputs"][0])],
            )
            for operator in operators
        ]

    def observe(self, frames: Sequence[npt.NDArray[np.float32]]) -> dict[str, Seen]:
        """Return what each activation of the float model is over the frames."""
        return observed(self._activations_of(frames))

    def _activations_of(self, frames: Sequence[npt.NDArray[np.float32]]) -> Iterator[dict[str, Any]]:
        interpreter = _interpreter(self._path, preserve=True)
        for frame in frames:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
            interpreter.invoke()
            tensors = {self._names[index]: interpreter.get_tensor(index) for index in self._activations}
            yield {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}

    def write(self, path: Path, ranges: Mapping[str, Range], in_float: frozenset[str]) -> None:
        """Write the model in int8, but for the operators of the names ``in_float``; float input and output.

        Raises:
            ModelError: litert-quantizer cannot quantize it.
        """
        try:
            quantizing = quantizer.Quantizer(str(self._path), recipe.static_wi8_ai8())
            for kind in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                quantizing.update_quantization_recipe(".*", kind, algorithm_key="no_quantize")
            for name in sorted(in_float):
                quantizing.update_quantization_recipe(
                    f"^{_escaped(name)};$", TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize"
                )
            statistics = {
                name: {"min": self._array(name, low), "max": self._array(name, high)}
                for name, (low, high) in ranges.items()
            }
            result = quantizing.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
        except Exception as error:
            raise ModelError(f"tflite-int8: litert-quantizer cannot quantize it: {first_line(error)}") from error
        if result.quantized_model is None:
            raise ModelError("tflite-int8: litert-quantizer gave no model")
        path.write_bytes(result.quantized_model)

    def opened(self, path: Path, threads: int) -> Answers:
        """Return what a file answers, as the runtime runs it.

        Raises:
            ModelError: LiteRT cannot load it.
        """
        try:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"tflite-int8: LiteRT cannot load a candidate: {first_line(error)}") from error
        image, output = (
            details[0]["index"] for details in (interpreter.get_input_details(), interpreter.get_output_details())
        )

        def answers(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            interpreter.set_tensor(image, tensor)
            interpreter.invoke()
            row: npt.NDArray[np.float32] = interpreter.get_tensor(output)[0]
            return row

        return answers

    def _array(self, name: str, value: float) -> npt.NDArray[np.float32]:
        return np.full((1,) * self._ranks[name], value, np.float32)


def _escaped(name: str) -> str:
    """Return a regular expression for exactly this tensor; litert-quantizer ends each name with a semicolon."""
    return "".join(character if character.isalnum() or character == "_" else f"\\{character}" for character in name)


def _interpreter(path: Path, preserve: bool = False) -> Any:
    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=preserve,
    )
    interpreter.allocate_tensors()
    return interpreter

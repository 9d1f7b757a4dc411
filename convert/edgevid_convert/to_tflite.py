"""TFLite variants, through TensorFlow's converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgevid.errors import ModelError
from edgevid.manifest import Tensor
from edgevid_convert.causes import cause_of
from edgevid_convert.engine import tf

__all__ = ["convert_to_tflite", "describe_tflite"]

# How TensorFlow's converter names, far down in its message, what would need Flex or custom operators.
UNKNOWN_OPERATORS = re.compile(r"^(?:TF Select|Custom) ops: (.+?)\s*$", re.MULTILINE)
# Layout and number-format changes: they compute nothing.
BOOKKEEPING_OPERATORS = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "DELEGATE"})


def convert_to_tflite(
    saved_model: Path,
    precision: str,
    calibration: Sequence[npt.NDArray[np.float32]],
    path: Path,
    per_channel_dense: bool = True,
) -> None:
    """Write a SavedModel as a ``.tflite`` file of the given precision.

    Args:
        saved_model: the folder of the frozen classifier.
        precision: ``fp32``, ``fp16``, ``dynamic-int8``, ``int8`` or ``int8-full``.
        calibration: input tensors, float32 (1, height, width, channels); used by the int8 precisions.
        path: the file to write.
        per_channel_dense: whether int8 weights of dense layers have a scale for each class rather than one for all:
            closer to the model, and unknown to runtimes of 2023 and before.

    Raises:
        ModelError: TFLite cannot express the model, or not in integers alone where ``int8-full`` promises it.
    """

    def representative_dataset() -> Iterator[list[npt.NDArray[np.float32]]]:
        for tensor in calibration:
            yield [tensor]

    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
        SETTINGS[precision](converter)
        converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel_dense
        if precision in {"int8", "int8-full"}:
            converter.representative_dataset = representative_dataset
        content = converter.convert()
    except Exception as error:
        if unknown := UNKNOWN_OPERATORS.findall(str(error)):
            raise ModelError(f"tflite-{precision}: TFLite has no operator for {', '.join(unknown)}") from error
        raise ModelError(f"tflite-{precision}: TensorFlow cannot express it: {cause_of(error)}") from error
    path.write_bytes(content)
    if precision == "int8-full" and (in_float := describe_tflite(path)[2]):
        raise ModelError(f"tflite-int8-full: TFLite has {', '.join(sorted(set(in_float)))} in float only")


def _float16(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic_int8(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8_full(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


SETTINGS: dict[str, Callable[[Any], None]] = {
    "fp32": lambda converter: None,
    "fp16": _float16,
    "dynamic-int8": _dynamic_int8,
    "int8": _dynamic_int8,  # with a representative dataset the activations become integers too
    "int8-full": _int8_full,
}


def describe_tflite(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...], int]:
    """Return input and output of a ``.tflite`` file, its operators in float, and how many compute in integers."""
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    dtypes = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    computing = [each for each in interpreter._get_ops_details() if each["op_name"] not in BOOKKEEPING_OPERATORS]
    in_float = tuple(
        operator["op_name"]
        for operator in computing
        if any(dtypes.get(index) == np.float32 for index in operator["outputs"])
    )
    tensors = (_tensor(interpreter.get_input_details()[0]), _tensor(interpreter.get_output_details()[0]))
    return *tensors, in_float, len(computing) - len(in_float)


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    return Tensor(
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )

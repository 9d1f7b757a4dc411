"""ONNX variants: tf2onnx from the frozen graph, then ONNX Runtime's own quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import tf2onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgevid.errors import ModelError, first_line
from edgevid.manifest import Tensor
from edgevid_convert.loading import TracedModel

__all__ = ["convert_to_onnx", "describe_onnx", "quantize_onnx"]

OPSET = 17  # read by ONNX Runtime 1.12 and later
# Layout and number-format changes: they compute nothing.
BOOKKEEPING_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Identity", "Constant"}
)


def convert_to_onnx(model: TracedModel, path: Path) -> None:
    """Write ``model`` as an ``.onnx`` file in float32, batch normalization folded into the convolutions.

    Raises:
        ModelError: tf2onnx cannot express the model.
    """
    frozen = model.frozen
    try:
        # From the frozen graph: tf2onnx loses the constants of Normalization layers on other ways.
        proto, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=[tensor.name for tensor in frozen.inputs],
            output_names=[tensor.name for tensor in frozen.outputs],
            opset=OPSET,
        )
        onnx.checker.check_model(proto)
        onnx.save(proto, str(path))
        quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
    except Exception as error:
        raise ModelError(f"onnx-fp32: tf2onnx cannot express it: {first_line(error)}") from error


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime publishes no types
    """Calibration tensors, one at a time, under the name of the model's input."""

    def __init__(self, name: str, tensors: Sequence[npt.NDArray[np.float32]]) -> None:
        self._feeds: Iterator[dict[str, npt.NDArray[np.float32]]] = ({name: tensor} for tensor in tensors)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return next(self._feeds, None)


def quantize_onnx(float_path: Path, calibration: Sequence[npt.NDArray[np.float32]], path: Path) -> None:
    """Write the int8 variant of an ``.onnx`` file: QDQ, activations uint8, weights int8 per channel.

    Raises:
        ModelError: ONNX Runtime cannot quantize the model.
    """
    input_name = onnx.load(str(float_path)).graph.input[0].name
    try:
        quantize_static(
            str(float_path),
            str(path),
            _Reader(input_name, calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
    except Exception as error:
        raise ModelError(f"onnx-int8: ONNX Runtime cannot quantize it: {first_line(error)}") from error


def describe_onnx(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return the input, the output, and the operators that compute in float of an ``.onnx`` file."""
    graph = onnx.load(str(path)).graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    in_float = tuple(
        node.op_type
        for node in graph.node
        if node.op_type not in BOOKKEEPING_OPERATORS and not dequantized.intersection(node.input)
    )
    return _tensor(graph.input[0]), _tensor(graph.output[0]), in_float


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    shape = tuple(dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim)
    return Tensor(shape=shape, dtype="float32")

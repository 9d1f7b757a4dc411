"""ONNX variants: tf2onnx from the frozen graph, then ONNX Runtime's own quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import tf2onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgevid.errors import ModelError
from edgevid.manifest import Tensor
from edgevid.quiet import captured
from edgevid_convert.causes import cause_of
from edgevid_convert.loading.frozen import FrozenGraph
from edgevid_convert.loading.graphs.freezing import INPUT_NAME, OUTPUT_NAME
from edgevid_convert.onnx_graph import OP_HANDLERS, OPSET, free_batch, simplified, unknown_operators

__all__ = ["convert_to_onnx", "describe_onnx", "quantize_onnx"]

# Layout and number-format changes: they compute nothing.
BOOKKEEPING_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Identity", "Constant"}
)


WEIGHTED_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
FLOAT_OUTPUT_OPERATORS = frozenset({"Gemm", "MatMul"})  # have integer kernels that give float


def convert_to_onnx(model: FrozenGraph, path: Path, batches: bool = True) -> None:
    """Write ``model`` as an ``.onnx`` file in float32: batch normalization folded, the batch free where it can be.

    Args:
        model: the float model.
        path: the file to write.
        batches: whether several inputs at once are of any use.

    Raises:
        ModelError: tf2onnx cannot express the model.
    """
    try:
        proto, _ = tf2onnx.convert.from_graph_def(
            model.graph,
            input_names=[f"{INPUT_NAME}:0"],
            output_names=[f"{OUTPUT_NAME}:0"],
            tensors_to_rename={f"{name}:0": name for name in (INPUT_NAME, OUTPUT_NAME)},
            opset=OPSET,
            custom_op_handlers=OP_HANDLERS,
        )
        if unknown := unknown_operators(proto):
            raise ModelError(f"onnx-fp32: ONNX has no operator for {', '.join(unknown)}")
        onnx.save(proto, str(path))
        # ONNX Runtime folds batch normalization, and pushes together the transposes that tf2onnx leaves.
        quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
        fixed = simplified(onnx.load(str(path)))
        freed = free_batch(fixed) if batches else fixed
        onnx.save(freed if _alike(fixed, freed) else fixed, str(path))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"onnx-fp32: tf2onnx cannot express it: {cause_of(error)}") from error


def _alike(model: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Return whether two models answer alike to one image of noise."""
    shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    answers = []
    for each in (model, other):
        try:
            with captured(1, 2):
                session = ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
                answers.append(session.run(None, {each.graph.input[0].name: image})[0])
        except Exception:  # noqa: BLE001 - ONNX Runtime raises what it likes
            return False
    expected, found = answers
    return expected.shape == found.shape and bool(np.allclose(expected, found, atol=1e-5))


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
        raise ModelError(f"onnx-int8: ONNX Runtime cannot quantize it: {cause_of(error)}") from error


def describe_onnx(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...], int]:
    """Return input and output of an ``.onnx`` file, its operators in float, and how many compute in integers.

    Raises:
        ModelError: it is not valid ONNX.
    """
    model = onnx.load(str(path))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path.stem}: what was written is not valid ONNX: {cause_of(error)}") from error
    graph = model.graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}

    def in_integers(node: onnx.NodeProto) -> bool:
        read = node.input[: 2 if node.op_type in WEIGHTED_OPERATORS else 1]
        return dequantized.issuperset(read) and (
            not quantized.isdisjoint(node.output) or node.op_type in FLOAT_OUTPUT_OPERATORS
        )

    computing = [node for node in graph.node if node.op_type not in BOOKKEEPING_OPERATORS]
    in_float = tuple(node.op_type for node in computing if not in_integers(node))
    return _tensor(graph.input[0]), _tensor(graph.output[0]), in_float, len(computing) - len(in_float)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    shape = tuple(dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim)
    return Tensor(shape=shape, dtype="float32")

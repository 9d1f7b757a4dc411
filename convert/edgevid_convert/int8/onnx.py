"""Int8 candidates in ONNX: a float file, quantized by ONNX Runtime's quantizer with ranges of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgevid.backends.onnxruntime import open_session
from edgevid.errors import ModelError, first_line
from edgevid_convert.int8.candidates import Answers, Operator
from edgevid_convert.int8.ranges import Range, Seen, observed
from edgevid_convert.onnx_graph import remove_unused

__all__ = ["OnnxCandidates"]

# The quantizer makes these one with the operator that writes what they alone read, whatever that is.
FUSED = frozenset({"Relu", "Clip"})
# Integer kernels of these can give float, which spares one rounding.
FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
DEQUANTIZED = "_DequantizeLinear_Output"  # what the quantizer adds to a tensor's name


class OnnxCandidates:
    """Int8 files (QDQ, activations uint8, weights int8 per channel) of one float ``.onnx`` file.

    Args:
        path: the float file.
    """

    suffix = "onnx"

    def __init__(self, path: Path) -> None:
        self._model = onnx.load(str(path))
        graph = self._model.graph
        self._ranges: Mapping[str, Range] | None = None
        self._quantized = self._model
        self._constants = {initializer.name: initializer for initializer in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = node.attribute[0].t
        self._members: dict[str, list[str]] = {}
        readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        self.operators: list[Operator] = []
        written_by: dict[str, int] = {}
        for node in graph.node:
            inputs = tuple(name for name in node.input if name and name not in self._constants)
            writer = written_by.get(inputs[0]) if node.op_type in FUSED and len(inputs) == 1 else None
            if writer is not None and readers[inputs[0]] == 1:
                before = self.operators[writer]
                self.operators[writer] = Operator(before.name, before.kind, before.inputs, node.output[0])
                self._members[before.name].append(node.name)
                written_by[node.output[0]] = writer
            elif inputs:
                written_by[node.output[0]] = len(self.operators)
                self.operators.append(Operator(node.name, node.op_type, inputs, node.output[0]))
                self._members[node.name] = [node.name]

    def observe(self, frames: Sequence[npt.NDArray[np.float32]]) -> dict[str, Seen]:
        """Return what each activation of the float model is over the frames."""
        return observed(self._activations_of(frames))

    def _activations_of(self, frames: Sequence[npt.NDArray[np.float32]]) -> Iterator[dict[str, Any]]:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        names = [output for node in model.graph.node for output in node.output if output]
        known = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        image = session.get_inputs()[0].name
        outputs = [value.name for value in session.get_outputs()]
        for frame in frames:
            tensors = dict(zip(outputs, session.run(outputs, {image: frame}), strict=True))
            yield {image: frame, **{name: value for name, value in tensors.items() if value.dtype == np.float32}}

    def write(self, path: Path, ranges: Mapping[str, Range], in_float: frozenset[str]) -> None:
        """Write the model in int8, but for the operators of the names ``in_float``; float input and output.

        Raises:
            ModelError: ONNX Runtime cannot quantize it.
        """
        if ranges is not self._ranges:
            self._ranges, self._quantized = ranges, self._in_int8(ranges)
        model = onnx.ModelProto()
        model.CopyFrom(self._quantized)
        try:
            self._put_back(model.graph, in_float)
            remove_unused(model.graph)
            ONNXModel(model).topological_sort()
        except Exception as error:
            raise ModelError(f"onnx-int8: some operators cannot stay in float: {first_line(error)}") from error
        onnx.save(model, str(path))

    def _in_int8(self, ranges: Mapping[str, Range]) -> onnx.ModelProto:
        """Return the model with every operator in int8 that can be. It takes a second, so it is made once."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
        try:
            quantizing = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, data),
                nodes_to_quantize=[],
                nodes_to_exclude=[],
                op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
                extra_options={},
            )
            quantizing.quantize_model()
        except Exception as error:
            raise ModelError(f"onnx-int8: ONNX Runtime cannot quantize it: {first_line(error)}") from error
        return quantizing.model.model

    def _put_back(self, graph: onnx.GraphProto, in_float: frozenset[str]) -> None:
        """Put operators of the float model in the place of their integer ones."""
        written = {output for node in graph.node for output in node.output}
        readers: dict[str, set[str]] = {}
        for operator in self.operators:
            for name in operator.inputs:
                readers.setdefault(name, set()).add(operator.name)
        as_float = {self._model.graph.input[0].name}
        as_float |= {operator.output for operator in self.operators if operator.name in in_float}
        as_float |= {
            operator.output
            for operator in self.operators
            if operator.kind in FLOAT_OUTPUT
            and readers.get(operator.output, {""}) <= in_float
            and len(self._members[operator.name]) == 1  # where a ReLU was fused, only the integers are clipped
        }
        members = {member for name in in_float for member in self._members[name]}
        originals = [node for node in self._model.graph.node if node.name in members]
        inside = {output for node in originals for output in node.output}
        in_the_open = as_float | inside
        kept = [node for node in graph.node if node.name not in members and not inside.intersection(node.output)]
        del graph.node[:]
        graph.node.extend(kept)
        for original in originals:
            node = graph.node.add()
            node.CopyFrom(original)
            for index, name in enumerate(original.input):
                if name in self._constants:
                    node.input[index] = self._constant(graph, name)
                elif name not in in_the_open and name + DEQUANTIZED in written:
                    node.input[index] = name + DEQUANTIZED

    def _constant(self, graph: onnx.GraphProto, name: str) -> str:
        """Add a constant of the float model to the graph, and return its name there."""
        there = f"{name}_float"  # the quantizer gives some of its own the old name
        if all(initializer.name != there for initializer in graph.initializer):
            constant = graph.initializer.add()
            constant.CopyFrom(self._constants[name])
            constant.name = there
        return there

    def opened(self, path: Path, threads: int) -> Answers:
        """Return what a file answers, as the runtime runs it.

        Raises:
            ModelError: ONNX Runtime cannot load it.
        """
        try:
            session = open_session(path, threads)
        except Exception as error:
            raise ModelError(f"onnx-int8: ONNX Runtime cannot load a candidate: {first_line(error)}") from error
        image = session.get_inputs()[0].name

        def answers(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            row: npt.NDArray[np.float32] = session.run(None, {image: tensor})[0][0]
            return row

        return answers

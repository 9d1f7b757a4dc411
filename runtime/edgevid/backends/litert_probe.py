"""The smallest model there is, to ask LiteRT for a device without a bundle at hand."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["smallest_model"]

IDENTIFIER = b"TFL3"
SHAPE = (1, 2, 2, 4)


def smallest_model() -> bytes:
    """Return a ``.tflite`` model of one ReLU."""
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    operator.inputs, operator.outputs = np.array([0], np.int32), np.array([1], np.int32)
    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors = [_tensor("image", 1), _tensor("output", 2)]
    graph.inputs, graph.outputs, graph.operators = operator.inputs, operator.outputs, [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT() for _ in range(3)]
    builder = flatbuffers.Builder(512)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(name: str, buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.buffer, tensor.type = name, buffer, schema.TensorType.FLOAT32
    tensor.shape = np.array(SHAPE, np.int32)
    return tensor

"""The smallest model there is, to ask ONNX Runtime for a provider without a bundle at hand."""

from __future__ import annotations

__all__ = ["smallest_model"]

FLOAT32, IR_VERSION, OPSET = 1, 8, 17
SHAPE = (1, 4)


def smallest_model() -> bytes:
    """Return an ``.onnx`` model of one ReLU; the numbers of fields are those of onnx.proto3."""
    node = _bytes(1, b"image") + _bytes(2, b"output") + _bytes(4, b"Relu")
    graph = _bytes(1, node) + _bytes(2, b"probe") + _bytes(11, _tensor(b"image")) + _bytes(12, _tensor(b"output"))
    return _number(1, IR_VERSION) + _bytes(8, _number(2, OPSET)) + _bytes(7, graph)


def _tensor(name: bytes) -> bytes:
    shape = b"".join(_bytes(1, _number(1, size)) for size in SHAPE)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, FLOAT32) + _bytes(2, shape)))


def _bytes(field: int, content: bytes) -> bytes:
    """Return a field of bytes, in protobuf's encoding; for lengths below 128."""
    return bytes([field << 3 | 2, len(content)]) + content


def _number(field: int, value: int) -> bytes:
    """Return a field with a number below 128."""
    return bytes([field << 3, value])

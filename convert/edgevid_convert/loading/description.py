"""What a model file says of itself, for people: who wrote it, and which of its layers need care."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgevid_convert.loading.containers import Container
from edgevid_convert.loading.security.scan import Scanned

__all__ = ["notes_on", "written_by"]

FILE_KINDS: dict[Container, str] = {"keras": "a .keras file", "hdf5": "an HDF5 file", "saved_model": "a SavedModel"}
UNROLLED = "unrolled: a loop has no operator in TFLite and ONNX"
AUGMENTS = "augments in training only: it does nothing here"
# Layers by their class, and what becomes of them.
CARE = {
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "ConvLSTM2D", "RNN", "CuDNNLSTM", "CuDNNGRU"), UNROLLED),
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"), "an operation of TensorFlow, kept"),
    "GaussianNoise": AUGMENTS,
    "GaussianDropout": AUGMENTS,
    "Lambda": "Python code, run while it was traced",
}
OTHER_FLOATS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")


def written_by(container: Container, scanned: Scanned) -> str:
    """Return the kind of a file, and which Keras wrote and reads it."""
    kind = FILE_KINDS[container]
    if not scanned.generation:
        return kind
    version = "1, or so" if scanned.keras_version == "1" else scanned.keras_version
    return f"{kind} of Keras {version}" + (", read by Keras 2 (tf_keras)" if scanned.generation == 2 else "")


def notes_on(config: Any) -> tuple[str, ...]:
    """Return what becomes of the layers of a configuration that need care, a line a kind."""
    found: dict[str, list[str]] = {}
    for kind, name, dtype in _layers(config):
        reason = CARE.get(kind) or (AUGMENTS if kind.startswith("Random") else None)
        if reason and "initializer" not in kind and kind not in ("RandomNormal", "RandomUniform"):
            found.setdefault(f"{kind}: {reason}", []).append(name)
        if dtype in OTHER_FLOATS:
            found.setdefault(f"computes in {dtype}, here in float32", []).append(name)
    return tuple(f"{what} ({_listed(names)})" for what, names in found.items())


def _layers(config: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the class, the name and the number format of each layer."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += reversed(part)
        elif isinstance(part, Mapping):
            inner = part.get("config")
            if isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and "class_name" in part:
                policy = inner.get("dtype")
                policy = policy.get("config", {}).get("name") if isinstance(policy, Mapping) else policy
                yield str(part["class_name"]), inner["name"], str(policy)
            waiting += reversed(list(part.values()))


def _listed(names: list[str], most: int = 3) -> str:
    shown = list(dict.fromkeys(names))
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more

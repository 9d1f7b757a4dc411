"""edgevid: video classification on edge devices.

The names below are loaded when they are first used, so that ``import edgevid`` costs next to nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgevid._version import __version__

if TYPE_CHECKING:
    from edgevid.bundle import Bundle, find_bundle
    from edgevid.classifier import VideoClassifier
    from edgevid.decisions import Decisions
    from edgevid.errors import (
        BackendError,
        BundleError,
        EdgevidError,
        GateError,
        MissingExtraError,
        ModelError,
        RefusedError,
        SinkError,
        SourceError,
        UsageError,
    )
    from edgevid.events import Event
    from edgevid.methods import Smoothing
    from edgevid.ring import RingBuffer
    from edgevid.smoothing import Prediction, Smoother
    from edgevid.sources import Frame, Source, SourceOptions, open_camera, open_source
    from edgevid.verdict import Verdict

# ONNX Runtime reports the models it loads to its maker, by default, since 1.29; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Decisions",
    "EdgevidError",
    "Event",
    "Frame",
    "GateError",
    "MissingExtraError",
    "ModelError",
    "Prediction",
    "RefusedError",
    "RingBuffer",
    "SinkError",
    "Smoother",
    "Smoothing",
    "Source",
    "SourceError",
    "SourceOptions",
    "UsageError",
    "Verdict",
    "VideoClassifier",
    "__version__",
    "find_bundle",
    "open_camera",
    "open_source",
]

_MODULES = {
    "bundle": ("Bundle", "find_bundle"),
    "classifier": ("VideoClassifier",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "decisions": ("Decisions",),
    "methods": ("Smoothing",),
    "ring": ("RingBuffer",),
    "smoothing": ("Prediction", "Smoother"),
    "events": ("Event",),
    "sources": ("Frame", "Source", "SourceOptions", "open_camera", "open_source"),
    "verdict": ("Verdict",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'edgevid' has no attribute {name!r}")
    return getattr(import_module(f"edgevid.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

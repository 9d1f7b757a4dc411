"""The inference engines: a table of what there is, and the door through which one is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from edgevid.backends.base import Backend, BackendOptions, available_cores
from edgevid.bundle import Bundle
from edgevid.errors import MissingExtraError, UsageError
from edgevid.manifest import Variant

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendEntry",
    "BackendOptions",
    "available_cores",
    "choose_backend",
    "load_backend",
]


@dataclass(frozen=True)
class BackendEntry:
    """A row of the table of backends.

    Attributes:
        module: where its class is; imported when the backend is chosen, never before.
        class_name: the :class:`Backend` subclass in it.
        package: the Python package of the engine; None if it needs none.
        extra: the extra of edgevid that brings the package; None if it comes with edgevid.
        formats: which model formats it reads.
        devices: where it can run.
        automatic: whether ``auto`` may choose it.
    """

    module: str
    class_name: str
    package: str | None
    extra: str | None
    formats: frozenset[str]
    devices: tuple[str, ...] = ("cpu",)
    automatic: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package can be imported; does not import it."""
        return self.package is None or find_spec(self.package) is not None


BACKENDS: dict[str, BackendEntry] = {
    "litert": BackendEntry(
        module="edgevid.backends.litert",
        class_name="LiteRTBackend",
        package="ai_edge_litert",
        extra=None,
        formats=frozenset({"tflite"}),
    ),
    "onnxruntime": BackendEntry(
        module="edgevid.backends.onnxruntime",
        class_name="OnnxRuntimeBackend",
        package="onnxruntime",
        extra="onnx",
        formats=frozenset({"onnx"}),
    ),
    "null": BackendEntry(
        module="edgevid.backends.null",
        class_name="NullBackend",
        package=None,
        extra=None,
        formats=frozenset({"tflite", "onnx"}),
        automatic=False,
    ),
}


def choose_backend(bundle: Bundle, backend: str = "auto", variant_id: str | None = None) -> tuple[str, Variant]:
    """Return the backend and the variant to run, from what was asked for and what is installed.

    ``auto`` takes the first backend of the table that is installed and reads the variant.

    Raises:
        UsageError: the backend or the variant is unknown, or they do not go together.
        BundleError: the bundle has no variant that this backend reads.
        MissingExtraError: the backend's package is not installed.
    """
    if backend != "auto":
        entry = _entry(backend)
        variant = bundle.variant(variant_id) if variant_id else bundle.preferred(entry.formats)
        if variant.format not in entry.formats:
            reads = " or ".join(sorted(entry.formats))
            raise UsageError(f"backend {backend!r} reads {reads}, not the variant {variant.id!r}; name another")
        return backend, variant
    usable = {name: entry for name, entry in BACKENDS.items() if entry.automatic and entry.installed}
    formats = frozenset[str]().union(*(entry.formats for entry in usable.values()))
    variant = bundle.variant(variant_id) if variant_id else bundle.preferred(formats)
    for name, entry in usable.items():
        if variant.format in entry.formats:
            return name, variant
    absent = next(entry for entry in BACKENDS.values() if variant.format in entry.formats and entry.package)
    raise MissingExtraError(f"the variant {variant.id!r}", str(absent.package), absent.extra)


def load_backend(name: str, bundle: Bundle, variant: Variant, options: BackendOptions | None = None) -> Backend:
    """Load a variant of a bundle in the backend of that name.

    Raises:
        UsageError: the backend or the device is unknown.
        MissingExtraError: the backend's package is not installed.
        BundleError: the variant's file is absent or changed.
        BackendError: the engine cannot load it.
    """
    entry = _entry(name)
    options = options or BackendOptions()
    if options.device not in entry.devices:
        raise UsageError(f"device {options.device!r}: backend {name!r} runs on {', '.join(entry.devices)}")
    if not entry.installed:
        raise MissingExtraError(f"backend {name!r}", str(entry.package), entry.extra)
    backend_class: type[Backend] = getattr(import_module(entry.module), entry.class_name)
    return backend_class(bundle, variant, options)


def _entry(name: str) -> BackendEntry:
    try:
        return BACKENDS[name]
    except KeyError:
        raise UsageError(f"backend {name!r}: expected one of auto, {', '.join(BACKENDS)}") from None

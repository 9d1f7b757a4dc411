"""The inference engines: a table of what there is, and the door through which one is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from edgevid.backends.base import Backend, BackendOptions, Usable, available_cores
from edgevid.backends.proof import Proof
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, MissingExtraError, UsageError, first_line
from edgevid.manifest import Variant

__all__ = [
    "BACKENDS",
    "DEVICES",
    "Backend",
    "BackendEntry",
    "BackendOptions",
    "Proof",
    "Usable",
    "available_cores",
    "backend_entry",
    "load_backend",
]

DEVICES = ("cpu", "gpu", "npu", "edgetpu")


class BackendModule(Protocol):
    """What a backend's module holds.

    Attributes:
        load: loads a variant of a bundle; see :class:`Backend`.
        usable: whether the engine can use a device of this machine; loads the engine, and no variant.
    """

    load: Callable[[Bundle, Variant, BackendOptions], Backend]
    usable: Callable[[str], Usable]


@dataclass(frozen=True)
class BackendEntry:
    """A row of the table of backends.

    Attributes:
        module: a :class:`BackendModule`; imported when the backend is chosen, never before.
        package: the Python package of the engine; None if it needs none.
        extra: the extra of edgevid that brings the package; None if it comes with edgevid.
        formats: which model formats it reads, the better one first.
        devices: where it can run.
        automatic: whether ``auto`` may choose it.
    """

    module: str
    package: str | None
    extra: str | None
    formats: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    automatic: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package can be imported; does not import it."""
        return self.package is None or find_spec(self.package) is not None

    def imported(self, name: str) -> BackendModule:
        """Import its module.

        Raises:
            MissingExtraError: its package is not installed.
            BackendError: it is installed, and does not load.
        """
        if not self.installed:
            raise MissingExtraError(f"backend {name!r}", str(self.package), self.extra)
        try:
            return cast(BackendModule, import_module(self.module))
        except (ImportError, OSError) as error:
            raise self.broken(name, error) from error

    def broken(self, name: str, error: Exception) -> BackendError:
        """Return the error for an engine that is installed, and cannot be imported."""
        return BackendError(
            f"backend {name!r}: the package {self.package!r} does not load: {first_line(error)}; "
            "install a build of it for this system"
        )


# ``auto`` takes the first that is installed and reads the variant.
BACKENDS: dict[str, BackendEntry] = {
    "litert": BackendEntry("edgevid.backends.litert", "ai_edge_litert", None, ("tflite",), DEVICES),
    "onnxruntime": BackendEntry(
        "edgevid.backends.onnxruntime", "onnxruntime", "onnx", ("onnx",), ("cpu", "gpu", "npu")
    ),
    "openvino": BackendEntry(
        "edgevid.backends.openvino", "openvino", "openvino", ("onnx", "tflite"), ("cpu", "gpu", "npu")
    ),
    "tflite": BackendEntry(
        "edgevid.backends.tflite", "tflite_runtime", "tflite-runtime", ("tflite",), ("cpu", "edgetpu")
    ),
    "null": BackendEntry("edgevid.backends.null", None, None, ("tflite", "onnx"), automatic=False),
}


def load_backend(name: str, bundle: Bundle, variant: Variant, options: BackendOptions | None = None) -> Backend:
    """Load a variant of a bundle in the backend of that name.

    Raises:
        UsageError: the backend or the device is unknown, or an option is not for them.
        MissingExtraError: the backend's package is not installed.
        BundleError: the variant's file is absent or changed.
        BackendError: the engine cannot load it, or not on that device.
    """
    entry = backend_entry(name)
    options = options or BackendOptions()
    if options.device_kind not in entry.devices:
        raise UsageError(f"device {options.device!r}: backend {name!r} runs on {', '.join(entry.devices)}")
    for flag, given, takers in (
        ("--delegate", options.delegate, ("litert", "tflite")),
        ("--provider", options.provider, ("onnxruntime",)),
    ):
        if given and name not in takers:
            raise UsageError(f"{flag} {given}: it is for the backend {' or '.join(takers)}, not for {name!r}")
    if options.batch > 1 and not variant.free_batch:
        raise UsageError(
            f"batch {options.batch}: {variant.id} takes one frame at a time; convert it again, or name another"
        )
    if name == "null" and options.engine_options:
        raise UsageError(f"--engine-option {', '.join(options.engine_options)}: the backend 'null' has none")
    module = entry.imported(name)
    try:
        return module.load(bundle, variant, options)
    except MissingExtraError:
        raise
    except (ImportError, OSError) as error:
        raise entry.broken(name, error) from error


def backend_entry(name: str) -> BackendEntry:
    """Return the row of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return BACKENDS[name]
    except KeyError:
        raise UsageError(f"backend {name!r}: expected one of auto, {', '.join(BACKENDS)}") from None

"""Which backend, device and variant to run: what was asked for, else what bench measured here, else a rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgevid.backends import BACKENDS, DEVICES, BackendEntry, BackendOptions, backend_entry, load_backend
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, BundleError, MissingExtraError, UsageError
from edgevid.manifest import Variant
from edgevid.measured import measured_rows

__all__ = ["AUTO", "Choice", "choose", "choose_backend"]

AUTO = "auto"
AUTOMATIC_DEVICES = ("edgetpu", "gpu", "npu", "cpu")  # in the order tried
# What a device computes best. A GPU gains nothing by int8 in the engines here, an NPU by nothing else.
PRECISIONS = {
    "cpu": ("int8", "fp32", "fp16", "int8-full", "dynamic-int8"),
    "gpu": ("fp16", "fp32"),
    "npu": ("int8-full", "int8", "fp16", "fp32"),
    "edgetpu": ("int8-full",),
}


@dataclass(frozen=True)
class Choice:
    """What to run where, and why that."""

    backend: str
    device: str
    variant: Variant
    why: str = ""


def choose(bundle: Bundle, backend: str, variant_id: str | None, options: BackendOptions) -> Choice:
    """Return what to run. Each of ``backend``, the variant and the device may be left open.

    What bench measured on this machine with this bundle decides, the fastest row that fits what was asked for and keeps
    the labels. Where it measured none, the device ``auto`` is the first of Edge TPU, GPU, NPU that takes every
    compute-heavy operator, else the CPU; a GPU that is emulated does not count. The backend ``auto`` is the first of
    the table that is installed and reads the variant.

    Raises:
        UsageError: something is unknown, or they do not go together.
        BundleError: the bundle has no variant for it.
        MissingExtraError: the backend's package is not installed.
    """
    if options.device != AUTO and options.device_kind not in DEVICES:
        raise UsageError(f"device {options.device!r}: expected one of auto, {', '.join(DEVICES)}")
    asked = Asked(backend, options.device, variant_id)
    plain = not (options.delegate or options.provider or options.engine_options)
    if plain and (AUTO in (backend, options.device) or variant_id is None):
        for choice in _measured(bundle, asked):
            return choice
    if options.device != AUTO:
        name, variant = choose_backend(bundle, backend, variant_id, options.device)
        return Choice(name, options.device, variant)
    return _tried(bundle, asked, options)


@dataclass(frozen=True)
class Asked:
    """What was asked for: names, ``auto``, or None."""

    backend: str
    device: str
    variant_id: str | None


def _measured(bundle: Bundle, asked: Asked) -> Iterator[Choice]:
    """Yield what bench measured that fits what was asked for, the fastest first."""
    for row in measured_rows(bundle):
        fits = (
            asked.backend in (AUTO, row.backend)
            and asked.device in (AUTO, row.device)
            and asked.variant_id in (None, row.variant)
        )
        entry = BACKENDS.get(row.backend)
        if fits and entry and entry.installed and row.variant in bundle.variant_ids:
            why = f"the fastest that bench measured here, {row.end_to_end_fps:.0f} frames per second"
            yield Choice(row.backend, row.device, bundle.variant(row.variant), why)


def _tried(bundle: Bundle, asked: Asked, options: BackendOptions) -> Choice:
    """Return the first device that takes a variant whole; each is loaded, to see."""
    reasons: list[str] = []
    for device in AUTOMATIC_DEVICES:
        try:
            name, variant = choose_backend(bundle, asked.backend, asked.variant_id, device)
            if device == "cpu":
                why = f"no accelerator: {'; '.join(reasons)}" if reasons else ""
                return Choice(name, device, variant, why)
            with load_backend(name, bundle, variant, replace(options, device=device)) as loaded:
                if loaded.proof.emulated:
                    raise BackendError(f"{loaded.proof.hardware} is emulated on the CPU")
                return Choice(name, device, variant, f"{loaded.proof.hardware or device} takes every operator")
        except (BackendError, BundleError, MissingExtraError, UsageError) as error:
            if device == "cpu":
                raise
            reasons.append(f"{device}: {_short(error)}")
    raise AssertionError("the CPU comes last, and returns or raises")


def _short(error: Exception) -> str:
    """Return an error without the file it is about and without its remedies: here it is only a reason."""
    text = str(error).partition("; ")[0]
    return text.rpartition(": ")[2] if ": " in text else text


def choose_backend(
    bundle: Bundle, backend: str = AUTO, variant_id: str | None = None, device: str = "cpu"
) -> tuple[str, Variant]:
    """Return the backend and the variant to run on a device, from what was asked for and what is installed.

    Raises:
        UsageError: the backend or the variant is unknown, or they do not go together.
        BundleError: the bundle has no variant that this backend reads.
        MissingExtraError: the backend's package is not installed.
    """
    kind = device.partition(":")[0]
    precisions = PRECISIONS[kind]
    if backend != AUTO:
        entry = backend_entry(backend)
        variant = bundle.variant(variant_id) if variant_id else bundle.preferred(entry.formats, precisions)
        if variant.format not in entry.formats:
            reads = " or ".join(entry.formats)
            raise UsageError(f"backend {backend!r} reads {reads}, not the variant {variant.id!r}; name another")
        return backend, variant
    able = {name: entry for name, entry in BACKENDS.items() if entry.automatic and kind in entry.devices}
    usable = {name: entry for name, entry in able.items() if entry.installed}
    formats = tuple(dict.fromkeys(name for entry in usable.values() for name in entry.formats))
    variant = bundle.variant(variant_id) if variant_id else bundle.preferred(formats, precisions)
    for name, entry in usable.items():
        if variant.format in entry.formats:
            return name, variant
    raise _missing(variant, able)


def _missing(variant: Variant, able: dict[str, BackendEntry]) -> Exception:
    for entry in able.values():
        if variant.format in entry.formats and entry.package:
            return MissingExtraError(f"the variant {variant.id!r}", entry.package, entry.extra)
    return UsageError(f"variant {variant.id!r}: no backend reads it on that device; name another --device")

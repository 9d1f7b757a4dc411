"""Which backend, device and variant to run: what was asked for, else what bench measured here, else a rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgevid.backends import BACKENDS, DEVICES, BackendEntry, BackendOptions, backend_entry, load_backend
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, EdgevidError, MissingExtraError, UsageError
from edgevid.manifest import Variant
from edgevid.measured import MeasuredRow, recall

__all__ = ["AUTO", "Choice", "choose", "choose_backend"]

AUTO = "auto"
NO_BACKEND = "no backend runs a variant there: "
ACCELERATORS = ("edgetpu", "gpu", "npu")  # in the order tried
# What a device computes best. A GPU gains nothing by int8 in the engines here, an NPU by nothing else.
PRECISIONS = {
    "cpu": ("int8", "fp32", "fp16", "int8-full", "dynamic-int8"),
    "gpu": ("fp16", "fp32"),
    "npu": ("int8-full", "int8", "fp16", "fp32"),
    "edgetpu": ("int8-full",),
}


@dataclass(frozen=True)
class Choice:
    """What to run where, and why that; ``threads`` of one inference, 0 where none were measured.

    ``stale`` says what has changed since a bench that was left aside for it.
    """

    backend: str
    device: str
    variant: Variant
    why: str = ""
    threads: int = 0
    stale: str = ""


def choose(bundle: Bundle, backend: str, variant_id: str | None, options: BackendOptions, live: bool = False) -> Choice:
    """Return what to run. Each of ``backend``, the variant and the device may be left open.

    What a full bench measured on this machine with this bundle decides: of the rows that keep the labels and fit what
    was asked for the one with the most frames per second or, for a ``live`` source, the lowest latency. Where none was
    measured, or engines or hardware are others since, the device ``auto`` is the first of Edge TPU, GPU and NPU that
    takes every compute-heavy operator in one of the backends, else the CPU; a GPU that is emulated does not count. The
    backend ``auto`` is the first of the table that is installed and reads the variant, and off the CPU the first that
    loads it.

    Raises:
        UsageError: something is unknown, or they do not go together.
        BundleError: the bundle has no variant for it.
        MissingExtraError: the backend's package is not installed.
        BackendError: no backend runs a variant on the device asked for.
    """
    if options.device != AUTO and options.device_kind not in DEVICES:
        raise UsageError(f"device {options.device!r}: expected one of auto, {', '.join(DEVICES)}")
    if backend == AUTO and (options.provider or options.delegate):
        backend = "onnxruntime" if options.provider else "litert"
    open_ends = AUTO in (backend, options.device) or variant_id is None
    special = options.delegate or options.provider or options.engine_options or options.batch > 1
    profile = recall(bundle) if open_ends and not special else None
    stale = profile.stale if profile else ""
    for row in profile.best(options.device, live) if profile and not stale else ():
        if options.threads not in (0, row.threads):  # other numbers of threads were asked for than measured
            continue
        if (choice := _measured(bundle, row, backend, variant_id)) and _still_runs(bundle, choice, options):
            return choice
    return replace(_by_rule(bundle, backend, variant_id, options), stale=stale)


def _by_rule(bundle: Bundle, backend: str, variant_id: str | None, options: BackendOptions) -> Choice:
    """Return what to run where nothing was measured."""
    if options.device == AUTO:
        return _accelerated(bundle, backend, variant_id, options)
    if backend == AUTO and options.device_kind != "cpu":
        return _loading(bundle, AUTO, variant_id, options, emulated=True)
    name, variant = choose_backend(bundle, backend, variant_id, options.device)
    return Choice(name, options.device, variant)


def _measured(bundle: Bundle, row: MeasuredRow, backend: str, variant_id: str | None) -> Choice | None:
    """Return what a row of a bench comes to, if it fits what was asked for and nothing speaks against it since."""
    entry = BACKENDS.get(row.backend)
    if (
        backend not in (AUTO, row.backend)
        or variant_id not in (None, row.variant)
        or row.variant not in bundle.variant_ids
    ):
        return None
    variant = bundle.variant(row.variant)
    if entry is None or not entry.installed or (variant.rejected and variant_id is None):
        return None
    why = f"the best that bench measured here, {row.end_to_end_fps:.0f} frames per second, {row.label_ms:.1f} ms"
    return Choice(row.backend, row.device, variant, why, row.threads)


def _still_runs(bundle: Bundle, choice: Choice, options: BackendOptions) -> bool:
    """Return whether an accelerator that was measured once can be used now."""
    if choice.device == "cpu":
        return True
    try:
        load_backend(choice.backend, bundle, choice.variant, replace(options, device=choice.device)).close()
    except EdgevidError:
        return False
    return True


def _accelerated(bundle: Bundle, backend: str, variant_id: str | None, options: BackendOptions) -> Choice:
    """Return the first accelerator that takes a variant whole, in the first backend that loads it; else the CPU."""
    reasons: list[str] = []
    for device in ACCELERATORS:
        try:
            return _loading(bundle, backend, variant_id, replace(options, device=device, allow_partial=False))
        except EdgevidError as error:
            text = str(error).partition("; ")[0].removeprefix(f"device {device!r}: ")
            reasons.append(f"{device}: {text.removeprefix(NO_BACKEND)}")
    name, variant = choose_backend(bundle, backend, variant_id, "cpu")
    return Choice(name, "cpu", variant, f"no accelerator: {'; '.join(reasons)}")


def _loading(
    bundle: Bundle, backend: str, variant_id: str | None, options: BackendOptions, emulated: bool = False
) -> Choice:
    """Return the first backend that loads a variant on an accelerator; each is asked by loading it.

    A device in software is passed over unless ``emulated``.

    Raises:
        BackendError: none does; with what each says.
    """
    device = options.device
    reasons: list[tuple[str, EdgevidError]] = []
    # ONNX Runtime last: its plugins bring libraries that keep other engines from loading theirs.
    for name, entry in sorted(BACKENDS.items(), key=lambda item: item[0] == "onnxruntime"):
        if backend not in (AUTO, name) or not entry.automatic or options.device_kind not in entry.devices:
            continue
        try:
            _, variant = choose_backend(bundle, name, variant_id, device)
            with load_backend(name, bundle, variant, options) as loaded:
                if loaded.proof.emulated and not emulated:
                    raise BackendError(f"{loaded.proof.hardware} is emulated on the CPU")
                takes = "leaves operators to the CPU" if loaded.proof.elsewhere else "takes every operator"
                return Choice(name, device, variant, f"{loaded.proof.hardware or device} {takes}")
        except MissingExtraError:
            continue
        except EdgevidError as error:
            reasons.append((name, error))
    if len(reasons) == 1:
        raise reasons[0][1]
    told = ", ".join(
        f"{name}: {str(error).removeprefix(f'device {device!r}: ').partition('; ')[0]}" for name, error in reasons
    )
    raise BackendError(f"device {device!r}: {NO_BACKEND}{told}; 'edgevid doctor' says what to install")


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

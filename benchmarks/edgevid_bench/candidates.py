"""Which rows there are to measure here."""

from __future__ import annotations

from dataclasses import dataclass

from edgevid.backends import BACKENDS, DEVICES, Usable, available_cores
from edgevid.bundle import Bundle
from edgevid.doctor import ask_backend
from edgevid.errors import GateError, MissingExtraError, UsageError
from edgevid.manifest import Variant
from edgevid_bench.options import BenchOptions

__all__ = ["Candidate", "candidates", "default_threads"]


@dataclass(frozen=True)
class Candidate:
    """A row to be measured."""

    backend: str
    device: str
    variant: Variant
    threads: int

    def __str__(self) -> str:
        return f"{self.backend} {self.device} {self.variant.id}" + (f" × {self.threads}" if self.threads else "")


def candidates(bundle: Bundle, options: BenchOptions) -> tuple[list[Candidate], dict[str, str]]:
    """Return every backend × device × variant it reads × thread count; off the CPU there is one such count.

    What is left open is all that can be used here. Also return why the rest cannot, by backend and device.

    Raises:
        UsageError: a name is unknown, a variant is not in the bundle, or nothing goes together.
        GateError: nothing of what was asked for can be used here.
    """
    variants = [bundle.variant(variant_id) for variant_id in options.variants or bundle.variant_ids]
    places, absent = _places(options)
    rows = [
        Candidate(backend, device, variant, count)
        for backend, device in places
        for variant in variants
        if variant.format in BACKENDS[backend].formats
        for count in (options.threads or default_threads() if device == "cpu" else (0,))
    ]
    if not places:
        told = "; ".join(f"{place}: {reason}" for place, reason in absent.items())
        raise GateError(f"nothing that was asked for can run here: {told}")
    if not rows:
        raise UsageError(
            f"nothing to measure: {', '.join(options.backends) or 'no backend'} reads none of "
            f"{', '.join(variant.id for variant in variants)} on {', '.join(options.devices) or 'any device here'}"
        )
    return rows, absent


def default_threads() -> list[int]:
    """Return the thread counts worth measuring here: all up to 4 cores, then powers of two and all cores."""
    cores = available_cores()
    few = range(1, min(cores, 4) + 1)
    many = (2**exponent for exponent in range(3, 12) if 2**exponent < cores)
    return sorted({*few, *many, cores})


def _places(options: BenchOptions) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return the backends and devices to measure, and why those that were not named cannot be used."""
    for backend in options.backends:
        if backend not in BACKENDS:
            raise UsageError(f"backend {backend!r}: expected some of {', '.join(BACKENDS)}")
    for device in options.devices:
        if device.partition(":")[0] not in DEVICES:
            raise UsageError(f"device {device!r}: expected some of {', '.join(DEVICES)}")
    places: list[tuple[str, str]] = []
    absent: dict[str, str] = {}
    for backend in options.backends or tuple(name for name, entry in BACKENDS.items() if entry.automatic):
        entry = BACKENDS[backend]
        if not entry.installed and not options.backends:
            absent[backend] = str(MissingExtraError(f"backend {backend!r}", str(entry.package), entry.extra))
            continue
        for device in options.devices or entry.devices:
            if device.partition(":")[0] not in entry.devices:
                continue
            # What is named is tried, and its row says why it does not run; what is left open is looked for.
            named = bool(options.devices and options.backends)
            found = Usable(device) if named or device == "cpu" else ask_backend(backend, device)
            if found.reason:
                absent[f"{backend} {device}"] = found.reason.removeprefix(f"device {device!r}: ")
            else:
                places.append((backend, device))
    return places, absent

"""What bench measured on this machine with a bundle, kept in the user's cache, for ``run`` to choose by."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import platformdirs
from msgspec.structs import replace

from edgevid._version import __version__
from edgevid.backends import available_cores
from edgevid.bundle import Bundle
from edgevid.decisions import Decisions
from edgevid.hardware import cpu_model
from edgevid.methods import Smoothing

__all__ = ["MeasuredRow", "Profile", "engine_versions", "recall", "remember"]

PACKAGES = (
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "opencv-python-headless",
    "av",
)


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a bench that kept the Keras model's labels: what ran, how fast end to end, and how soon."""

    backend: str
    device: str
    variant: str
    threads: int
    end_to_end_fps: float
    label_ms: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the last full bench of a bundle measured: on which machine, with which versions, on which devices."""

    machine: dict[str, str]
    devices: tuple[str, ...]
    rows: tuple[MeasuredRow, ...]

    @property
    def stale(self) -> str:
        """What has changed since, for reading; empty if nothing has."""
        now = _machine()
        changes = [
            f"{name} was {self.machine.get(name, 'absent')}, now {now.get(name, 'absent')}"
            for name in {**self.machine, **now}
            if self.machine.get(name) != now.get(name)
        ]
        return ", ".join(changes)

    def best(self, device: str, live: bool) -> tuple[MeasuredRow, ...]:
        """Return the rows, the best first.

        Args:
            device: where; ``auto`` for any, if the bench looked at more than the CPU.
            live: the best is the one with the lowest latency; else the one with the most frames per second.
        """
        if device == "auto" and len(self.devices) < 2:
            return ()
        rows = (row for row in self.rows if device in ("auto", row.device))
        return tuple(sorted(rows, key=lambda row: row.label_ms if live else -row.end_to_end_fps))


def recall(bundle: Bundle) -> Profile | None:
    """Return what the last full bench of this very bundle measured; None if there was none."""
    try:
        return msgspec.json.decode(_path(bundle).read_bytes(), type=Profile)
    except (OSError, msgspec.DecodeError):
        return None


def engine_versions() -> dict[str, str]:
    """Return the versions of the installed packages that decide how fast a run is."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def remember(bundle: Bundle, devices: tuple[str, ...], rows: tuple[MeasuredRow, ...]) -> Path:
    """Keep the rows of a full bench on these devices, in place of those of an earlier one; return where.

    Raises:
        OSError: the cache cannot be written.
    """
    path = _path(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(msgspec.json.encode(Profile(machine=_machine(), devices=devices, rows=rows)))
    scratch.replace(path)
    return path


def _path(bundle: Bundle) -> Path:
    # How a label is steadied may be tuned later, and makes nothing slower.
    manifest = replace(bundle.manifest, smoothing=Smoothing(), decisions=Decisions())
    digest = hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()
    return Path(platformdirs.user_cache_dir("edgevid")) / "measured" / f"{digest[:32]}.json"


def _machine() -> dict[str, str]:
    return {
        "the processor": cpu_model(),
        "the number of cores": str(available_cores()),
        "edgevid": __version__,
        **engine_versions(),
    }

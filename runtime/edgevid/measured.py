"""What bench measured on this machine with a bundle, kept in the user's cache, for ``run`` to choose by."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import platformdirs

from edgevid._version import __version__
from edgevid.bundle import Bundle, sha256_file
from edgevid.hardware import cpu_model
from edgevid.manifest import MANIFEST_FILE

__all__ = ["MeasuredRow", "measured_rows", "remember"]


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a bench that kept the Keras model's labels: what ran, how fast end to end, and how soon."""

    backend: str
    device: str
    variant: str
    threads: int
    end_to_end_fps: float
    infer_ms: float


class _Memory(msgspec.Struct, frozen=True):
    machine: str
    devices: tuple[str, ...]
    rows: tuple[MeasuredRow, ...]


def measured_rows(bundle: Bundle, device: str, live: bool) -> tuple[MeasuredRow, ...]:
    """Return what the last full bench of this very bundle on this machine measured, the best first; empty if none did.

    Args:
        bundle: the bundle.
        device: where; ``auto`` for any, if the bench looked at more than the CPU.
        live: the best is the one with the lowest latency; else the one with the most frames per second.
    """
    try:
        memory = msgspec.json.decode(_path(bundle).read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError):
        return ()
    if memory.machine != _machine() or (device == "auto" and len(memory.devices) < 2):
        return ()
    rows = (row for row in memory.rows if device in ("auto", row.device))
    return tuple(sorted(rows, key=lambda row: row.infer_ms if live else -row.end_to_end_fps))


def remember(bundle: Bundle, devices: tuple[str, ...], rows: tuple[MeasuredRow, ...]) -> Path:
    """Keep the rows of a full bench on these devices, in place of those of an earlier one; return where.

    Raises:
        OSError: the cache cannot be written.
    """
    path = _path(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(msgspec.json.encode(_Memory(_machine(), devices, rows)))
    scratch.replace(path)
    return path


def _path(bundle: Bundle) -> Path:
    digest = sha256_file(bundle.path / MANIFEST_FILE)
    return Path(platformdirs.user_cache_dir("edgevid")) / "measured" / f"{digest[:32]}.json"


def _machine() -> str:
    """Return what tells machines apart that share a cache folder, and versions of edgevid on one."""
    return f"{platform.node()} {cpu_model()} {os.cpu_count()} {__version__}"

"""What bench measured on this machine with a bundle, kept in the user's cache, for ``run`` to choose by."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import platformdirs

from edgevid.bundle import Bundle, sha256_file
from edgevid.hardware import cpu_model
from edgevid.manifest import MANIFEST_FILE

__all__ = ["MeasuredRow", "measured_rows", "remember"]


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a bench that kept the Keras model's labels: what ran, and how fast, end to end."""

    backend: str
    device: str
    variant: str
    threads: int
    end_to_end_fps: float


class _Memory(msgspec.Struct, frozen=True):
    machine: str
    rows: tuple[MeasuredRow, ...]


def measured_rows(bundle: Bundle) -> tuple[MeasuredRow, ...]:
    """Return what the last bench of this very bundle on this machine measured, the fastest first; empty if none did."""
    try:
        memory = msgspec.json.decode(_path(bundle).read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError):
        return ()
    rows = memory.rows if memory.machine == _machine() else ()
    return tuple(sorted(rows, key=lambda row: -row.end_to_end_fps))


def remember(bundle: Bundle, rows: tuple[MeasuredRow, ...]) -> Path:
    """Keep the rows of a bench, in place of those of an earlier one; return where.

    Raises:
        OSError: the cache cannot be written.
    """
    path = _path(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(msgspec.json.encode(_Memory(_machine(), rows)))
    scratch.replace(path)
    return path


def _path(bundle: Bundle) -> Path:
    digest = sha256_file(bundle.path / MANIFEST_FILE)
    return Path(platformdirs.user_cache_dir("edgevid")) / "measured" / f"{digest[:32]}.json"


def _machine() -> str:
    """Return what tells machines apart that share a cache folder."""
    return f"{platform.node()} {cpu_model()} {os.cpu_count()}"

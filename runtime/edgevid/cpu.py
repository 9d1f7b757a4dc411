"""What the processor can do, as far as an inference engine cares."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["cpu_features", "cpu_model", "has_exact_int8"]

CPUINFO = Path("/proc/cpuinfo")
X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_features() -> frozenset[str]:
    """Return the names that Linux gives the features of the first core, such as ``avx2`` or ``asimddp``.

    Empty where there is no ``/proc/cpuinfo``.
    """
    return frozenset(_first_value("flags", "Features").split())


def cpu_model() -> str:
    """Return the processor's name."""
    return _first_value("model name", "Model", "Hardware") or platform.processor() or "unknown"


def has_exact_int8() -> bool:
    """Return whether products of uint8 and int8 are known to be summed without saturation.

    x86 without VNNI adds two of them in 16 bits (``vpmaddubsw``), and what does not fit is cut off.
    """
    return platform.machine().lower() not in X86 or bool(cpu_features() & VNNI)


def _first_value(*names: str) -> str:
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() in names), "")

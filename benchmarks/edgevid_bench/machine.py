"""What machine this is, as far as it can be told without privileges."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from edgevid import __version__
from edgevid.backends import available_cores
from edgevid.hardware import cpu_model

__all__ = ["describe_machine", "peak_rss_mb"]

DISTRIBUTIONS = ("ai-edge-litert", "onnxruntime", "numpy", "opencv-python-headless", "av")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_machine() -> dict[str, str | int | float | dict[str, str]]:
    """Return the processor, memory, system, load and the versions that were measured."""
    facts: dict[str, str | int | float | dict[str, str]] = {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"edgevid": __version__, **_versions()},
    }
    if GOVERNOR.exists():
        facts["governor"] = GOVERNOR.read_text().strip()
    return facts


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before this program was started
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

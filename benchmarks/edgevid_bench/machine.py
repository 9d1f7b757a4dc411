"""What machine this is, as far as it can be told without privileges."""

from __future__ import annotations

import platform
import resource
import sys
from pathlib import Path

import psutil

from edgevid import __version__
from edgevid.backends import available_cores
from edgevid.hardware import board_model, cpu_model
from edgevid.measured import engine_versions
from edgevid_bench.conditions import conditions
from edgevid_bench.report import Conditions, Machine

__all__ = ["describe_machine", "peak_rss_mb"]


def describe_machine(
    before: Conditions | None = None, after: Conditions | None = None, calibration_ms: float | None = None
) -> Machine:
    """Return the processor, memory, system, and the versions that were measured, with its state before and after."""
    return Machine(
        cpu=cpu_model(),
        board=board_model(),
        architecture=platform.machine(),
        cores=available_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=platform.platform(),
        python=platform.python_version(),
        versions={"edgevid": __version__, **engine_versions()},
        calibration_ms=calibration_ms,
        before=before or conditions(),
        after=after,
    )


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before this program was started
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6

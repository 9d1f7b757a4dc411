"""The state of the machine around a measurement, and what disturbed it: read without privileges."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgevid.hardware import governor, temperature
from edgevid_bench.report import Conditions

__all__ = ["Watch", "conditions"]

SYSTEM = Path("/sys")
MOST_OTHERS = 0.05  # of all cores: what other programs may use during a measurement
MOST_STOLEN = 0.05  # of all cores: what a hypervisor may take
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled; the bits from 16 up keep what was once.
PI_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


def conditions() -> Conditions:
    """Return the state of the machine now."""
    return Conditions(
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        governor=governor(),
        clock_mhz=_clock_mhz(),
        temperature_c=temperature(),
        throttled=_throttled(),
        on_battery=_on_battery(),
    )


@dataclass(frozen=True)
class _Counters:
    """What has been used up to a moment, in CPU seconds of all cores together, and how often the machine throttled."""

    wall: float
    own: float
    busy: float
    stolen: float
    throttles: int

    @staticmethod
    def now() -> _Counters:
        times, own = psutil.cpu_times(), os.times()
        stolen = getattr(times, "steal", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        return _Counters(
            wall=time.monotonic(),
            own=own.user + own.system + own.children_user + own.children_system,
            busy=sum(times) - idle - stolen - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0),
            stolen=stolen,
            throttles=sum(_numbers("devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")),
        )


class Watch:
    """Watches a measurement: make one before it, and ask :meth:`disturbances` after it."""

    def __init__(self) -> None:
        self.before = conditions()
        self._start = _Counters.now()

    def disturbances(self) -> tuple[str, ...]:
        """Return what disturbed the machine since, a phrase each; empty if nothing did."""
        start, end, after = self._start, _Counters.now(), conditions()
        available = max(1e-9, (end.wall - start.wall) * (psutil.cpu_count() or 1))
        others = (end.busy - start.busy - (end.own - start.own)) / available
        stolen = (end.stolen - start.stolen) / available
        found = []
        if others > MOST_OTHERS:
            found.append(f"other programs used {others:.0%} of the processor")
        if stolen > MOST_STOLEN:
            found.append(f"the hypervisor took {stolen:.0%} of the processor")
        if end.throttles > start.throttles:
            found.append(f"the processor throttled {end.throttles - start.throttles} times")
        found += after.throttled
        if after.on_battery and self.before.on_battery is False:
            found.append("the machine went on battery")
        if after.governor != self.before.governor:
            found.append(f"the governor changed from {self.before.governor} to {after.governor}")
        return tuple(found)


def _clock_mhz() -> float | None:
    clocks = _numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    return round(sum(clocks) / len(clocks) / 1000, 1) if clocks else None


def _throttled() -> tuple[str, ...]:
    """Return what slows the machine down: a Raspberry Pi's firmware, and the kernel's cooling of processors."""
    bits = _text(next(SYSTEM.glob("devices/platform/soc*/soc*firmware/get_throttled"), None))
    named = [name for bit, name in PI_BITS.items() if bits and int(bits, 16) >> bit & 1]
    for device in sorted(SYSTEM.glob("class/thermal/cooling_device*")):
        kind, state = _text(device / "type"), _text(device / "cur_state")
        if kind and state not in (None, "0") and ("cpufreq" in kind or kind == "Processor"):
            named.append(f"{kind} is cooled at step {state}")
    return tuple(named)


def _on_battery() -> bool | None:
    """Return whether the machine runs on battery; None if it has none, or does not say."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _numbers(pattern: str) -> list[int]:
    texts = (_text(path) for path in SYSTEM.glob(pattern))
    return [int(text) for text in texts if text and text.isdigit()]


def _text(path: Path | None) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() if path else None
    except OSError:
        return None

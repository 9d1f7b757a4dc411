"""The state of the machine around a measurement, and what disturbed it: read without privileges."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgevid.backends import available_cores
from edgevid.hardware import governor, read_text, temperature
from edgevid_bench.report import Conditions

__all__ = ["Watch", "conditions"]

SYSTEM = Path("/sys")
MOST_TAKEN = 0.05  # of the cores in use: what other programs or a hypervisor may take during a measurement
MOST_CORES_TAKEN = 0.5  # and of however many
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled; the bits from 16 up keep what was once.
PI_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


def conditions() -> Conditions:
    """Return the state of the machine now."""
    return Conditions(
        load=_load(),
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
    pi_bits: int

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
            pi_bits=_pi_throttled(),
        )


class Watch:
    """Watches a measurement: make one before it, and ask :meth:`disturbances` after it."""

    def __init__(self) -> None:
        self.before = conditions()
        self._start = _Counters.now()

    def disturbances(self) -> tuple[str, ...]:
        """Return what disturbed the machine since, a phrase each; empty if nothing did."""
        start, end, after = self._start, _Counters.now(), conditions()
        wall, cores = max(1e-9, end.wall - start.wall), available_cores()
        taken = {
            "other programs used": (end.busy - start.busy - (end.own - start.own)) / wall,
            "the hypervisor took": (end.stolen - start.stolen) / wall,
        }
        found = [
            f"{who} {share / cores:.0%} of the processor"
            for who, share in taken.items()
            if share > min(MOST_TAKEN * cores, MOST_CORES_TAKEN)
        ]
        if end.throttles > start.throttles:
            found.append(f"the processor throttled {end.throttles - start.throttles} times")
        found += dict.fromkeys((*after.throttled, *_pi_bits(end.pi_bits >> 16 & ~(start.pi_bits >> 16))))
        if after.on_battery and self.before.on_battery is False:
            found.append("the machine went on battery")
        if after.governor != self.before.governor:
            found.append(f"the governor changed from {self.before.governor} to {after.governor}")
        return tuple(found)


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _clock_mhz() -> float | None:
    clocks = _numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    return round(sum(clocks) / len(clocks) / 1000, 1) if clocks else None


def _throttled() -> tuple[str, ...]:
    """Return what slows the machine down: a Raspberry Pi's firmware, and the kernel's cooling of processors."""
    named = _pi_bits(_pi_throttled())
    for device in sorted(SYSTEM.glob("class/thermal/cooling_device*")):
        kind, state = read_text(device / "type"), read_text(device / "cur_state")
        if kind and state not in (None, "0") and ("cpufreq" in kind or kind == "Processor"):
            named.append(f"{kind} is cooled at step {state}")
    return tuple(named)


def _on_battery() -> bool | None:
    """Return whether the machine runs on battery; None if it has none, or does not say."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):  # a system that psutil knows nothing of, or without the files it looks for
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _numbers(pattern: str) -> list[int]:
    texts = (read_text(path) for path in SYSTEM.glob(pattern))
    return [int(text) for text in texts if text and text.isdigit()]


def _pi_throttled() -> int:
    """Return the bits of a Raspberry Pi's firmware; 0 on other machines."""
    for path in SYSTEM.glob("devices/platform/soc*/soc*firmware/get_throttled"):
        with suppress(ValueError):
            return int(read_text(path) or "", 16)
    return 0


def _pi_bits(bits: int) -> list[str]:
    return [name for bit, name in PI_BITS.items() if bits >> bit & 1]

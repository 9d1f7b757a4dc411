"""Energy that a run takes, where the machine tells: RAPL counters, and the power sensors of boards. Never estimated."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

import msgspec

from edgevid.hardware import read_text

__all__ = ["Energy", "measured_energy"]

SYSTEM = Path("/sys")
SAMPLE_S = 0.05
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "5V_IN")  # rails that feed all others, on Jetsons


class Energy(msgspec.Struct, frozen=True):
    """What a run took of the whole package or board, idle power included, and which meter told."""

    joules: float
    seconds: float
    meter: str


@dataclass
class _Reading:
    """The result of a meter, once the block has ended."""

    value: Energy | None = None
    samples: list[float] = field(default_factory=list)


@contextmanager
def measured_energy() -> Iterator[_Reading]:
    """Meter the block; ``value`` of what it yields is then the energy, or None where the machine does not tell."""
    reading, start = _Reading(), time.monotonic()
    if counter := _rapl():
        name, joules = counter
        yield reading
        reading.value = Energy(joules(), time.monotonic() - start, name)
    elif sensor := _power_sensor():
        name, watts = sensor
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(watts, reading.samples, ended), daemon=True)
        sampler.start()
        try:
            yield reading
        finally:
            ended.set()
            sampler.join()
        if reading.samples:
            seconds = time.monotonic() - start
            reading.value = Energy(seconds * fmean(reading.samples), seconds, name)
    else:
        yield reading


def _rapl() -> tuple[str, Callable[[], float]] | None:
    """Return the counters of Intel's and AMD's processors: their name, and what returns the joules since now."""
    zones = [
        zone for zone in SYSTEM.glob("class/powercap/intel-rapl:*") if (read_text(zone / "name") or "")[:7] == "package"
    ]
    begin = {zone: _number(zone / "energy_uj") for zone in zones}  # since 2020 for root only

    def joules() -> float:
        total = 0
        for zone, first in begin.items():
            last = _number(zone / "energy_uj") or 0
            wrapped = last < (first or 0)
            total += last - (first or 0) + wrapped * (_number(zone / "max_energy_range_uj") or 0)
        return total / 1e6

    return ("RAPL package", joules) if zones and None not in begin.values() else None


def _power_sensor() -> tuple[str, Callable[[], float | None]] | None:
    """Return an INA sensor's rail that feeds the board, known by its name or the only one: its name, and its watts."""
    rails = {name: watts for chip in sorted(SYSTEM.glob("class/hwmon/hwmon*")) for name, watts in _rails(chip)}
    name = next((name for name in WHOLE_BOARD if name in rails), next(iter(rails)) if len(rails) == 1 else None)
    return (name, rails[name]) if name else None


def _rails(chip: Path) -> Iterator[tuple[str, Callable[[], float | None]]]:
    """Yield the rails of an INA chip: by its power in microwatts, else by its millivolts and milliamperes."""
    kind = read_text(chip / "name") or ""
    if not kind.startswith("ina"):
        return
    for power in sorted(chip.glob("power[0-9]_input")):
        yield read_text(chip / power.name.replace("input", "label")) or kind, partial(_watts, power)
    for voltage in sorted(chip.glob("in[0-9]_input")):
        current = chip / voltage.name.replace("in", "curr", 1)
        if current.exists():
            yield read_text(chip / voltage.name.replace("input", "label")) or kind, partial(_watts, voltage, current)


def _watts(first: Path, second: Path | None = None) -> float | None:
    values = [_number(path) for path in (first, second) if path]
    return None if None in values else math.prod(value or 0 for value in values) / 1e6


def _sample(watts: Callable[[], float | None], samples: list[float], ended: threading.Event) -> None:
    while True:
        if (value := watts()) is not None:
            samples.append(value)
        if ended.wait(SAMPLE_S):
            return


def _number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text and text.isdigit() else None

"""What the machine tells of itself during a bench, from the files of machines that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from edgevid_bench import conditions, energy
from edgevid_bench.conditions import Watch
from edgevid_bench.energy import measured_energy

Files = Callable[[Mapping[str, object]], None]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Write files as under /sys, and have them read instead."""
    monkeypatch.setattr(conditions, "SYSTEM", tmp_path)
    monkeypatch.setattr(energy, "SYSTEM", tmp_path)

    def write(files: Mapping[str, object]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


def test_a_raspberry_pi_says_what_slows_it_down_now_and_not_what_once_did(system: Files) -> None:
    system({"devices/platform/soc/soc:firmware/get_throttled": "50005"})
    assert conditions.conditions().throttled == ("under-voltage", "throttled")
    assert {"under-voltage", "throttled"} <= set(Watch().disturbances())
    system({"devices/platform/soc/soc:firmware/get_throttled": "50000"})
    assert conditions.conditions().throttled == ()


def test_a_raspberry_pi_that_was_slowed_down_in_between_is_disturbed(system: Files) -> None:
    bits = "devices/platform/soc/soc:firmware/get_throttled"
    system({bits: "10000"})
    watch = Watch()
    system({bits: "50000"})
    assert "throttled" in watch.disturbances()
    assert "under-voltage" not in watch.disturbances()


def test_a_processor_that_the_kernel_cools_is_named_and_a_fan_is_not(system: Files) -> None:
    cooling = "class/thermal/cooling_device"
    system({f"{cooling}0/type": "cpufreq-cpu0", f"{cooling}0/cur_state": 3})
    system({f"{cooling}1/type": "pwm-fan", f"{cooling}1/cur_state": 4})
    system({f"{cooling}2/type": "Processor", f"{cooling}2/cur_state": 0})
    assert conditions.conditions().throttled == ("cpufreq-cpu0 is cooled at step 3",)


def test_throttling_is_counted(system: Files) -> None:
    counters = [f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count" for core in range(2)]
    system(dict.fromkeys(counters, 7))
    watch = Watch()
    system(dict.fromkeys(counters, 9))
    assert "the processor throttled 4 times" in watch.disturbances()


def test_clocks_are_the_mean_of_the_cores(system: Files) -> None:
    system({f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": 1_000_000 * (core + 1) for core in range(4)})
    assert conditions.conditions().clock_mhz == 2500.0


def test_another_program_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(0.1)
        watch = Watch()
        time.sleep(0.5)
        found = watch.disturbances()
        other.kill()
    assert any(text.startswith("other programs used") for text in found)


def test_what_one_uses_oneself_does_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    times = namedtuple("times", "user system idle iowait steal")
    own = namedtuple("own", "user system children_user children_system")
    watched: list[tuple[object, object]] = [
        (times(100, 10, 50, 0, 0), own(5, 1, 0, 0)),
        (times(102, 10, 51, 0, 0), own(7, 1, 0, 0)),
        (times(102, 10, 51, 0, 5), own(7, 1, 0, 0)),
    ]
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(conditions, "available_cores", lambda: 2)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(psutil, "cpu_times", lambda: watched[0][0])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "times", lambda: watched[0][1])
    watch = Watch()
    watched.pop(0)
    assert watch.disturbances() == ()
    watched.pop(0)
    (found,) = watch.disturbances()
    assert found.startswith("the hypervisor took ")


def test_rapl_counts_all_packages_and_wraps(system: Files) -> None:
    zone = "class/powercap/intel-rapl:"
    limits = {f"{zone}{number}/max_energy_range_uj": 1_000_000 for number in range(2)}
    names = {f"{zone}0/name": "package-0", f"{zone}1/name": "package-1", f"{zone}0:0/name": "core"}
    system({**limits, **names, f"{zone}0/energy_uj": 100_000, f"{zone}1/energy_uj": 900_000, f"{zone}0:0/energy_uj": 5})
    with measured_energy() as reading:
        system({f"{zone}0/energy_uj": 400_000, f"{zone}1/energy_uj": 100_000})
    assert reading.value is not None
    assert reading.value.joules == pytest.approx(0.5)
    assert reading.value.meter == "RAPL package"


def test_rapl_that_only_root_may_read_is_no_meter(system: Files) -> None:
    system({"class/powercap/intel-rapl:0/name": "package-0"})
    with measured_energy() as reading:
        pass
    assert reading.value is None


def test_a_jetson_has_a_rail_that_feeds_all_others(system: Files) -> None:
    chip = "class/hwmon/hwmon3"
    system({f"{chip}/name": "ina3221", f"{chip}/in1_label": "VDD_CPU_GPU_CV", f"{chip}/in2_label": "VDD_IN"})
    system(
        {f"{chip}/in1_input": 5000, f"{chip}/curr1_input": 100, f"{chip}/in2_input": 5000, f"{chip}/curr2_input": 2000}
    )
    start = time.monotonic()
    with measured_energy() as reading:
        time.sleep(0.2)
    assert reading.value is not None
    assert reading.value.meter == "VDD_IN"
    assert reading.value.joules == pytest.approx(10.0 * (time.monotonic() - start), rel=0.2)


def test_one_rail_of_many_is_no_meter_of_the_board(system: Files) -> None:
    chip = "class/hwmon/hwmon3"
    system({f"{chip}/name": "ina3221", f"{chip}/in1_label": "VDD_SOC", f"{chip}/in2_label": "VDD_CPU_GPU_CV"})
    system({f"{chip}/{name}{number}_input": 100 for name in ("in", "curr") for number in (1, 2)})
    with measured_energy() as reading:
        pass
    assert reading.value is None


def test_an_ina_that_tells_its_power_is_read(system: Files) -> None:
    system({"class/hwmon/hwmon0/name": "ina226", "class/hwmon/hwmon0/power1_input": 3_000_000})
    with measured_energy() as reading:
        time.sleep(0.1)
    assert reading.value is not None
    assert reading.value.joules == pytest.approx(0.3, rel=0.3)
    assert reading.value.meter == "ina226"


def test_a_machine_without_a_meter_has_no_energy(system: Files) -> None:
    system({"class/hwmon/hwmon0/name": "coretemp", "class/hwmon/hwmon0/in1_input": 1200})
    with measured_energy() as reading:
        pass
    assert reading.value is None

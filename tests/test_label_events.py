"""``--events`` and ``--on-event``: when a label begins and ends, for files and for programs."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevid.events import Event
from edgevid.sinks.command import Command
from tests.conftest import Outcome, read_jsonl, write_clip

Cli = Callable[..., Outcome]
FRAME_S = 1001 / 30000


def pairs(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["event"], event["label"]) for event in events]


def test_a_line_when_a_label_begins_and_one_when_it_ends(
    cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path
) -> None:
    file, predictions = tmp_path / "events.jsonl", tmp_path / "out.jsonl"
    outcome = cli("run", bundle_path, "--source", clip, "--window", 5, "--events", file, "--predictions", predictions)
    assert f"wrote {file}" in outcome.out
    events, records = read_jsonl(file.read_text()), read_jsonl(predictions.read_text())
    colors = ("red", "green", "blue")
    assert pairs(events) == [(kind, color) for color in colors for kind in ("start", "end")]
    for start, end in zip(events[::2], events[1::2], strict=True):
        shown = [record for record in records if record["label"] == start["label"]]
        assert (start["start"], start["frame"]) == (shown[0]["time"], shown[0]["frame"])
        assert (end["start"], end["frames"]) == (start["start"], len(shown))
        assert end["end"] == pytest.approx(shown[-1]["time"] + FRAME_S, abs=2e-6)
        assert end["duration"] == pytest.approx(end["end"] - end["start"], abs=2e-6)
        scores = [record["score"] for record in shown]
        assert end["mean_score"] == pytest.approx(sum(scores) / len(scores), abs=1e-4)
        assert end["peak_score"] == max(scores)
    cli("run", bundle_path, "--source", clip, "--window", 5, "--events", file, "--force")
    assert read_jsonl(file.read_text()) == events, "of a file they do not depend on the time of day"


def test_decisions_debounce_events(cli: Cli, bundle_path: Path, clip: Path) -> None:
    """The clip has one blue frame among the red ones."""
    run = ("run", bundle_path, "--source", clip, "--window", "1", "--events", "-")
    assert len(read_jsonl(cli(*run).out)) == 10
    held = read_jsonl(cli(*run, "--hold", "0.5s").out)
    assert pairs(held)[:3] == [("start", "red"), ("end", "red"), ("start", "green")]
    never = cli(*run, "--method", "mean", "--enter", "1")
    assert never.out == ""
    assert "time per label: uncertain" in never.err


def test_several_labels_hold_at_once_with_sigmoids(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "multi.edgevid"
    shutil.copytree(bundle_path, bundle)
    manifest = json.loads((bundle / "edgevid.json").read_text())
    manifest["output"]["activation"] = "sigmoid"
    (bundle / "edgevid.json").write_text(json.dumps(manifest))
    run = ("run", bundle, "--source", clip, "--window", 20, "--enter", 0.2)
    open_labels: set[str] = set()
    most = 0
    for event in read_jsonl(cli(*run, "--events", "-").out):
        (open_labels.add if event["event"] == "start" else open_labels.remove)(event["label"])
        most = max(most, len(open_labels))
    assert (most, open_labels) == (2, set())
    assert cli(*run, "--predictions", tmp_path / "out.csv", "--save", tmp_path / "out.mp4").status == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[0].endswith(",labels")
    assert "margin 0.1: this model answers to each class on its own" in cli(*run, "--margin", 0.1).error


def test_a_program_gets_each_event_on_its_stdin(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "events.jsonl"
    command = shlex.join(["sh", "-c", f"cat >> {shlex.quote(str(log))}"])
    outcome = cli("run", bundle_path, "--source", clip, "--window", 5, "--events", file, "--on-event", command)
    assert outcome.status == 0
    assert log.read_text() == file.read_text()


def test_what_a_program_prints_does_not_mix_with_predictions(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--predictions", "-", "--on-event", "cat")
    assert len(read_jsonl(outcome.out)) == 60
    assert '"event":"start"' in outcome.err


def test_a_program_that_fails_is_told_and_hinders_nothing(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--window", 60, "--on-event", "sh -c 'exit 3'")
    assert outcome.status == 0
    assert "--on-event sh: exit status 3" in outcome.err


def test_a_program_that_hangs_ends_with_the_run(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    """Ctrl-C waits for it no longer than a run may take to end, and kills all that it started."""
    pid_file = tmp_path / "pid"
    command = shlex.join(["sh", "-c", f"sleep 100 & echo $! > {shlex.quote(str(pid_file))}; wait"])
    run = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(clip), "--realtime", "--quiet"]
    with subprocess.Popen([*run, "--on-event", command], stdout=subprocess.DEVNULL) as process:
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(30) == 130
        assert time.monotonic() - began < 10
    sleeper = Path("/proc") / pid_file.read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while sleeper.exists() and sleeper.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "it outlives the run"
        time.sleep(0.05)


def test_a_label_ends_with_its_clip(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, ["red"] * 10)
    events = read_jsonl(cli("run", bundle_path, "--source", tmp_path / "*.mp4", "--events", "-").out)
    assert [(event["event"], event["time"]) for event in events] == [
        ("start", 0.0),
        ("end", 0.4),
        ("start", 0.4),
        ("end", 0.8),
    ]


def test_a_disk_that_is_full_is_one_line(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    outcome = cli("run", bundle_path, "--source", clip, "--events", full, "--force")
    assert outcome.status == 1
    assert "No space left on device" in outcome.error


def lines_of(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_file_waits_for_programs_and_a_live_source_does_not(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in (("MOST_WAITING", 2), ("PATIENCE_S", 0.1)):
        monkeypatch.setattr(f"edgevid.sinks.command.{name}", value)
    log, failures = tmp_path / "log", list[Event]()
    patient = Command(f"sh -c 'sleep 0.05; echo x >> {log}'", failures.append, threading.Event(), live=False)
    busy = Command("sleep 30", failures.append, threading.Event(), live=True)
    for number in range(6):
        for command in (patient, busy):
            command(Event("start", number, "red begins"))
    assert busy.dropped >= 3, "one runs, and two wait"
    for command in (patient, busy):
        command.close()
    assert (lines_of(log), patient.dropped, busy.dropped) == (6, 0, 5)


def test_a_program_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgevid.sinks.command.TIMEOUT_S", 0.3)
    log, failures = tmp_path / "log", list[Event]()
    command = Command(f"sh -c '(sleep 0.8; echo x >> {log}) & wait'", failures.append, threading.Event(), live=False)
    command(Event("start", 0.0, "red begins"))
    command.close()
    assert [failure.text for failure in failures] == ["--on-event sh: killed after 0.3 s"]
    time.sleep(0.8)
    assert lines_of(log) == 0


def test_a_program_that_is_killed_is_told(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--window", 60, "--on-event", "sh -c 'kill -9 $$'")
    assert "--on-event sh: killed by signal 9" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on-event", "no-such-program door"), "there is no program 'no-such-program'"),
        (("--on-event", "sh -c 'x"), "No closing quotation"),
        (("--on-event", str(Path(__file__))), "is not executable; run chmod +x"),
        (("--on-event", ""), "there is no program ''"),
        (("--events", "events.csv"), "expected a name ending in .jsonl"),
        (("--events", "-", "--predictions", "-"), "both would go to stdout"),
        (
            ("--events", "x.jsonl", "--predictions", "x.jsonl"),
            "--events x.jsonl: --predictions is written to this file",
        ),
        (("--method", "hmm", "--window", "2s"), "window 2s: the method hmm has stay instead"),
        (
            ("--half-life", "2s"),
            "half-life 2.0: the method mean, the default here, has window",
        ),
        (("--method", "exponential", "--half-life", "2"), "--half-life 2: expected a time such as 0.5s"),
        (("--hold", "soon"), "--hold soon: expected a time"),
        (("--window", "2 s", "--leave", "0.7", "--enter", "0.5"), "leave 0.7 is above enter 0.5"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    cli: Cli, bundle_path: Path, clip: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = cli("run", bundle_path, "--source", clip, *options)
    assert outcome.status in (1, 2)
    assert message in outcome.error

"""``edgevid run`` as a service: its health file, what it tells systemd, and its log."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevid.cli.terminal import Terminal
from edgevid.events import Event, Journal
from edgevid.service import Monitor
from edgevid.smoothing import Prediction
from tests.conftest import Outcome, read_jsonl, write_clip
from tests.servers import Camera, http_server

Cli = Callable[..., Outcome]
LOST = Event("lost", 1.5, "camera 0: no frame for 5 s", {"gap_s": 5.0})
BACK = Event("back", 9.0, "camera 0: back after 7.5 s", {"gap_s": 7.5})


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds, to be played in real time and stopped before they are over."""
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", ["red"] * 500)


class Service:
    """A run in a process of its own, as systemd starts one: with a socket that hears what it says."""

    def __init__(self, *arguments: object, watchdog_s: float = 0.4, address: str = "\0edgevid-test") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(20)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": address.replace("\0", "@"),
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }
        command = [sys.executable, "-m", "edgevid", "run", *map(str, arguments)]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def heard_until(self, text: str) -> list[str]:
        heard = [self.hear()]
        while text not in heard[-1]:
            heard.append(self.hear())
        return heard

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services, and leave none behind."""
    started: list[Service] = []

    def start(*arguments: object, **options: Any) -> Service:
        started.append(Service(*arguments, **{"address": f"\0edgevid-{tmp_path}", **options}))
        return started[-1]

    yield start
    for service in started:
        service.process.kill()
        service.process.communicate()
        service.socket.close()


@pytest.mark.parametrize("kind", ["abstract", "file"])
def test_systemd_is_told_how_it_goes(
    bundle_path: Path, long_clip: Path, tmp_path: Path, start: Callable[..., Service], kind: str
) -> None:
    address = {"abstract": f"\0edgevid-{tmp_path}", "file": str(tmp_path / "notify")}[kind]
    predictions = tmp_path / "out.jsonl"
    arguments = [bundle_path, "--source", long_clip, "--realtime", "--predictions", predictions]
    service = start(*arguments, address=address)
    before = service.heard_until("READY=1")
    assert f"STATUS=classifying {long_clip}" in before[-1]
    began = time.monotonic()
    assert [service.hear() for _ in range(4)] == ["WATCHDOG=1"] * 4
    assert 0.3 < time.monotonic() - began < 3  # each half of 0.4 s
    assert service.stop() == 143
    assert "STOPPING=1" in service.heard_until("STOPPING=1")
    assert read_jsonl(predictions.read_text())  # whole lines


def test_a_silent_camera_is_no_hang(bundle_path: Path, start: Callable[..., Service]) -> None:
    """While a source is waited for the watchdog is told so, and the health file says what is the matter."""
    Camera.flow.set()
    with http_server(Camera) as url:
        service = start(bundle_path, "--source", f"{url}/video", "--stall-after", "1s")
        service.heard_until("READY=1")
        Camera.flow.clear()
        service.heard_until("no answer for 1 s; trying again")
        assert [service.hear() for _ in range(4)] == ["WATCHDOG=1"] * 4
        Camera.flow.set()
        service.heard_until("back after")
        assert service.stop() == 143


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
        monitor = Monitor("camera 0")
        time.sleep(0.01)
        monitor.beat()
        with pytest.raises(BlockingIOError):
            listening.recv(4096)


def test_without_beats_systemd_hears_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine that hangs calls nobody, so that the watchdog ends it; nothing beats from a thread of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        monitor = Monitor("camera 0")
        monitor.begin()
        for _ in range(2):
            listening.recv(4096)  # what it says of itself when it starts, and READY=1
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.recv(4096)
        for _ in range(1000):
            monitor.beat()
        assert listening.recv(4096) == b"WATCHDOG=1"
        with pytest.raises(TimeoutError):
            listening.recv(4096)  # a thousand beats at once are one


def test_a_running_service_is_healthy_and_a_stopped_one_is_not(
    cli: Cli, bundle_path: Path, long_clip: Path, tmp_path: Path, start: Callable[..., Service]
) -> None:
    file = tmp_path / "health.json"
    service = start(bundle_path, "--source", long_clip, "--realtime", "--health", file)
    states: list[str] = []
    deadline = time.monotonic() + 20
    while "running" not in states[-1:] or not json.loads(file.read_bytes())["fps"]:
        assert time.monotonic() < deadline, states
        time.sleep(0.01)
        if file.exists():
            states.append(json.loads(file.read_bytes())["state"])  # never half a file
    found = json.loads(file.read_bytes())
    assert set(states) <= {"starting", "running"}
    assert (found["pid"], found["source"], found["label"]) == (service.process.pid, str(long_clip), "red")
    assert 0 < found["fps"] < 40
    assert 0 <= found["last_frame_age_s"] < 1
    assert found["dropped"] == {"frames": 0, "broken": 0}
    healthy = cli("health", file)
    assert (healthy.status, healthy.err) == (0, "")
    assert healthy.out.startswith(f"running: {long_clip}, ")
    assert len(healthy.out.splitlines()) == 1
    assert service.stop() == 143
    ended = cli("health", file)
    assert ended.status == 1
    assert "ended since " in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["health.json"]  # no temporary file


def test_states_go_by_events_and_ages_by_the_monotonic_clock(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "health.json"
    journal = Journal()
    with Monitor("rtsp://admin:hunter2@cam/live", file) as monitor:
        journal.listen(monitor.on_event)
        monitor.begin()
        monitor.on_prediction(Prediction(0, 0.0, "red", 0.9, "red", 0.9))
        assert cli("health", file).status == 0
        assert "hunter2" not in file.read_text()
        journal(LOST)
        monitor.beat()
        assert cli("health", file).error.endswith(": camera 0: no frame for 5 s")
        journal(BACK)
        monitor.beat()
        monkeypatch.setattr(time, "time", lambda: 0.0)  # the date is wrong: nobody minds
        assert cli("health", file).status == 0
        assert json.loads(file.read_bytes())["reconnects"] == 1
        real = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: real + 60)
        assert "60 s old, at most 10 s expected" in cli("health", file).error
        assert cli("health", file, "--max-age", "2m").status == 0
        monkeypatch.undo()
        found = json.loads(file.read_bytes())
        file.write_text(json.dumps({**found, "boot": "another"}))
        assert "before the machine was last started" in cli("health", file).error


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent.json"], 1, "absent.json: No such file"),
        (["BROKEN"], 1, "damaged"),
        (["BROKEN", "--max-age", "soon"], 2, "--max-age soon: expected a time such as 10s"),
    ],
)
def test_bad_health_files_are_one_line(
    cli: Cli, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    broken = tmp_path / "health.json"
    broken.write_text('{"state": "run')
    outcome = cli("health", *(broken if argument == "BROKEN" else argument for argument in arguments))
    assert (outcome.status, message in outcome.error) == (status, True)


def test_a_health_file_that_cannot_be_written_disturbs_nothing(
    cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "health.json.tmp").mkdir()  # in the way, as a full disk is
    assert cli("run", bundle_path, "--source", clip, "--health", tmp_path / "health.json").status == 0
    wrong = cli("run", bundle_path, "--source", clip, "--health", tmp_path / "absent" / "health.json")
    assert wrong.status == 1
    assert "the folder" in wrong.error


def test_a_health_file_replaces_nothing_else(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    for precious in (b"precious", b'{"a": 1}', b"\xff"):
        (tmp_path / "precious").write_bytes(precious)
        outcome = cli("run", bundle_path, "--source", clip, "--health", tmp_path / "precious")
        assert (outcome.status, "it is no health file" in outcome.error) == (1, True)
        assert (tmp_path / "precious").read_bytes() == precious
    (tmp_path / "precious").write_bytes(b"")  # as a power cut may leave a health file: that is no reason not to run
    assert cli("run", bundle_path, "--source", clip, "--health", tmp_path / "precious").status == 0
    assert cli("run", bundle_path, "--source", clip, "--health", tmp_path / "precious").status == 0
    both = tmp_path / "both.jsonl"
    same = cli("run", bundle_path, "--source", clip, "--health", both, "--predictions", both, "--force")
    assert (same.status, "is written to this file, too" in same.error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--source", "CLIP"], 0),
        (["--source", "CLIP", "--debug"], 0),  # and what the engine prints
        (["--source", "absent.mp4"], 1),
        (["--source", "absent.mp4", "--debug"], 1),
        (["--bogus"], 2),
        (["--stride"], 2),
        (["--stride", "many"], 2),
        ([], 2),
    ],
)
def test_a_json_log_is_one_object_a_line(bundle_path: Path, clip: Path, arguments: list[str], status: int) -> None:
    given = [str(clip) if argument == "CLIP" else argument for argument in arguments]
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), *given, "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    lines = read_jsonl(done.stderr)
    assert {"error"} <= {line["level"] for line in lines} if status else {line["level"] for line in lines} == {"info"}
    assert all(line["time"].endswith("Z") and line["message"] for line in lines)
    assert [line for line in lines if "Traceback" in line.get("traceback", "")] == lines * (
        "--debug" in arguments and status == 1
    )


def test_events_are_logged(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.event(LOST)
    assert capfd.readouterr().err == "camera 0: no frame for 5 s\n"
    terminal.log_as("json")
    terminal.event(LOST)
    terminal.event(BACK)
    lost, back = read_jsonl(capfd.readouterr().err)
    assert lost == {
        "time": LOST.clock,
        "level": "warning",
        "message": "camera 0: no frame for 5 s",
        "event": "lost",
        "source_time": 1.5,
        "gap_s": 5.0,
    }
    assert back["level"] == "info"
    terminal.close()


@pytest.mark.needs_systemd
def test_systemd_takes_the_example(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "examples" / "edgevid.service").read_text()
    unit = tmp_path / "edgevid.service"
    unit.write_text(text.replace("/opt/edgevid/bin/edgevid", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

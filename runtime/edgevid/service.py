"""A run as a service: what it tells systemd, and the file by which others see that it is well."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgevid.errors import EdgevidError, SinkError, first_line
from edgevid.events import Event, utc_now
from edgevid.secrets import redact

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgevid.smoothing import Prediction

__all__ = ["Monitor", "boot_id", "notify", "read_health"]

EVERY_S = 1.0
STATE_AFTER = {"lost": "lost", "frozen": "frozen", "back": "running", "moving": "running"}
SECONDS_OF_FPS = 5
LARGEST_BYTES = 65_536


class Health(msgspec.Struct, kw_only=True):
    """What ``--health FILE`` holds; ages go by ``monotonic``, which no correction of the date changes.

    Attributes:
        state: ``starting``, ``running``, ``lost``, ``frozen`` or ``ended``; ``since`` when, by the machine's clock.
        frames: how many got a prediction so far.
        skipped: how many of them took over that of another, with ``--skip-static``.
        fps: frames that were classified a second, over the last five.
        dropped: counts of what was left out, by what it was.
        message: the last event.
        monotonic: CLOCK_MONOTONIC when this was written, in seconds.
        boot: which start of the machine that clock counts from.
    """

    state: str
    since: str
    pid: int
    source: str
    frames: int = 0
    skipped: int = 0
    fps: float = 0.0
    label: str | None = None
    score: float | None = None
    last_frame_age_s: float | None = None
    dropped: dict[str, int] = {}
    reconnects: int = 0
    message: str | None = None
    uptime_s: float = 0.0
    monotonic: float
    boot: str


class Monitor:
    """Tells systemd and a health file how a run goes, for as long as it goes on.

    Nothing here has a thread of its own, so that a run that hangs falls silent: then systemd's watchdog ends it, and
    the health file grows old. The monotonic clock decides; the date is only printed.

    Args:
        source: its name.
        health: a file to write about once a second; None for none.

    Attributes:
        dropped: asked for counts of what was left out, by what it was.
        skipped: asked for the count of frames that took over another's prediction.

    Raises:
        SinkError: the folder of the health file is not there or not to be written to, or another file has its name.
    """

    def __init__(self, source: str, health: Path | None = None) -> None:
        if health is not None:
            _check_file(health)
        self._file = health
        self.dropped: Callable[[], Mapping[str, int]] = dict
        self.skipped: Callable[[], int] = int
        now = self._started = time.monotonic()
        self._health = Health(
            state="starting", since=utc_now(), pid=os.getpid(), source=redact(source), monotonic=now, boot=boot_id()
        )
        self._watchdog_s = _watchdog_s()
        self._due = self._write_due = self._ping_due = now
        self._last_frame: float | None = None
        self._counts: deque[tuple[float, int]] = deque(maxlen=SECONDS_OF_FPS + 1)
        self._one_at_a_time = threading.Lock()
        self.beat()

    def begin(self) -> None:
        """Say that the model is loaded and the run begins."""
        self._change("running")
        notify("READY=1", f"STATUS=classifying {self._health.source}")

    def beat(self) -> None:
        """Say that the run is alive: it classifies, or waits for its source. Call it as often as you like."""
        now = time.monotonic()
        if now < self._due or not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            self._tell(now)
        finally:
            self._one_at_a_time.release()

    def on_prediction(self, prediction: Prediction) -> None:
        """Note a prediction."""
        health = self._health
        health.frames += 1
        health.label, health.score = prediction.label, round(prediction.score, 6)
        self._last_frame = time.monotonic()
        self.beat()

    def on_event(self, event: Event) -> None:
        """Note an event; give this to a Journal."""
        health = self._health
        health.message = redact(event.text)
        health.reconnects += event.kind == "back"
        if health.state != "starting":
            self._change(STATE_AFTER.get(event.kind, health.state))
        self._due = self._write_due = time.monotonic()
        self.beat()
        notify(f"STATUS={health.message}")

    def close(self) -> None:
        """Say that the run has ended; safe to call twice."""
        if self._health.state != "ended":
            notify("STOPPING=1")
            self._change("ended")
            self._write(time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._health.message = redact(first_line(error))
        self.close()

    def _change(self, state: str) -> None:
        if state != self._health.state:
            self._health.state, self._health.since = state, utc_now()
            self._due = self._write_due = time.monotonic()

    def _tell(self, now: float) -> None:
        if now >= self._write_due:
            self._write_due = now + EVERY_S
            self._write(now)
        if self._watchdog_s and now >= self._ping_due:
            self._ping_due = now + self._watchdog_s / 2
            notify("WATCHDOG=1")
        self._due = min(self._write_due, self._ping_due) if self._watchdog_s else self._write_due

    def _write(self, now: float) -> None:
        if self._file is None:
            return
        health = self._health
        health.skipped = self.skipped()
        frames = health.frames - health.skipped
        self._counts.append((now, frames))
        then, before = self._counts[0]
        health.fps = round((frames - before) / (now - then), 2) if now > then else 0.0
        health.last_frame_age_s = None if self._last_frame is None else round(max(0.0, now - self._last_frame), 3)
        health.dropped = dict(self.dropped())
        health.uptime_s, health.monotonic = round(now - self._started, 3), now
        temporary = self._file.with_name(f"{self._file.name}.tmp")
        with suppress(OSError):  # a full disk must not end a run
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(health), indent=2) + b"\n")
            temporary.replace(self._file)


def notify(*states: str) -> None:
    """Tell systemd, where it has started this process with ``Type=notify``; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    message = "\n".join(" ".join(state.split()) for state in states)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.setblocking(False)
        end.sendto(message.encode(errors="replace"), name)


def read_health(file: Path) -> Health:
    """Return what a health file holds.

    Raises:
        EdgevidError: it cannot be read, or is no such file.
    """
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(LARGEST_BYTES), type=Health)
    except OSError as error:
        raise EdgevidError(f"{file}: {error.strerror}; expected what 'edgevid run --health' writes") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EdgevidError(f"{file}: damaged ({error}); expected what 'edgevid run --health' writes") from error


def _check_file(file: Path) -> None:
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise SinkError(f"{file}: the folder {file.parent} does not exist, or this user may not write to it")
    if not file.exists() or not file.stat().st_size:  # an empty one is what a power cut may leave
        return
    try:
        read_health(file)
    except EdgevidError as error:
        raise SinkError(f"{file}: it is no health file, and would be lost; name another for --health") from error


def boot_id() -> str:
    """Return which start of the machine this is; empty where that is not told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _watchdog_s() -> float:
    """Return how many seconds systemd's watchdog waits; 0 where there is none, or it watches another process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if mine and microseconds.isdecimal() else 0.0

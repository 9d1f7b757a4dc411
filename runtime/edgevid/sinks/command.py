"""A program that is run at each event, so many at most and so long at most."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from edgevid.errors import UsageError
from edgevid.events import Event

__all__ = ["Command", "parse_command"]

TIMEOUT_S = 10.0
MOST_WAITING = 100
PATIENCE_S = 1.5  # of the two seconds that a live run, or one that was stopped, may take to end


class Command:
    """Runs a program at each event it is called with, one after the other, with the event as JSON on its stdin.

    What the program prints goes to stderr. One that takes longer than ten seconds is killed, with all that it started.
    A live source waits for nothing: of the events that come while a hundred wait, none is run, and they are counted in
    :attr:`dropped`. A file waits.

    Args:
        text: the program and its arguments, quoted as for a shell, but no shell runs it.
        tell: told that it failed.
        stop: set when the run shall end soon.
        live: whether the source is live.

    Raises:
        UsageError: there is no such program.
    """

    def __init__(self, text: str, tell: Callable[[Event], None], stop: threading.Event, live: bool) -> None:
        self._words = parse_command(text)
        self._tell, self._stop, self._live = tell, stop, live
        self.dropped = 0
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="edgevid-command", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Run it, when those before it are done."""
        with self._changed:
            if not self._live:
                while len(self._waiting) >= MOST_WAITING and not (self._stop.is_set() or self._ended):
                    self._changed.wait(0.1)
            if len(self._waiting) >= MOST_WAITING:
                self.dropped += 1
                return
            self._waiting.append(event)
            self._changed.notify_all()

    def end(self) -> None:
        """Take note that no more events come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until all are run; of a live run, and of one that was stopped, for a moment only."""
        self.end()
        patience_ends = time.monotonic() + PATIENCE_S
        while self._thread.is_alive() and (time.monotonic() < patience_ends or not (self._live or self._stop.is_set())):
            self._thread.join(0.05)
        with self._changed:
            self._closed = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
            if self._running:
                _kill(self._running)

    def _work(self) -> None:
        while (event := self._next()) is not None:
            if why := self._run(event):
                self._tell(Event("failed", event.time, f"--on-event {self._words[0]}: {why}"))

    def _next(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            event = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return event

    def _run(self, event: Event) -> str:
        """Run it for one event; return why it failed, nothing if it did not."""
        try:
            with subprocess.Popen(  # noqa: S603 - the user's own command
                self._words, stdin=subprocess.PIPE, stdout=2, start_new_session=True
            ) as process:
                self._set_running(process)
                try:
                    process.communicate(msgspec.json.encode(event.to_dict()) + b"\n", timeout=TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    _kill(process)
                    return f"killed after {TIMEOUT_S:g} s"
                finally:
                    self._set_running(None)
        except OSError as error:
            return str(error.strerror)
        if process.returncode < 0:
            ended = ", as the run ended" if self._closed else ""
            return f"killed by signal {-process.returncode}{ended}"
        return f"exit status {process.returncode}" if process.returncode else ""

    def _set_running(self, process: subprocess.Popen[bytes] | None) -> None:
        with self._changed:
            self._running = process
            if process and self._closed:  # which happened while it was started
                _kill(process)


def parse_command(text: str) -> list[str]:
    """Return the words of a command, quoted as for a shell.

    Raises:
        UsageError: they cannot be read, or there is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--on-event {text}: {error}; quote it as for a shell") from None
    if words and Path(words[0]).is_file() and not os.access(words[0], os.X_OK):
        raise UsageError(f"--on-event {text}: {words[0]} is not executable; run  chmod +x {words[0]}")
    if not words or not shutil.which(words[0]):
        raise UsageError(
            f"--on-event {text}: there is no program {words[0] if words else ''!r}; expected a program and its "
            "arguments, such as './notify.sh door', or sh -c '...' for what needs a shell"
        )
    return words


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

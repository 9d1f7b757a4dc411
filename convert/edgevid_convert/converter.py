"""A conversion as its user sees it: asked of a process of its own, its bundle in place when it is complete."""

from __future__ import annotations

import json
import os
import pickle
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from edgevid import errors
from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError, ModelError
from edgevid_convert.loading.isolation import BOOT, died_of
from edgevid_convert.options import ConvertOptions
from edgevid_convert.reporting import Crashed, Progress, Stage
from edgevid_convert.worker import At, Done, Event, Failed, Job, Moved
from edgevid_convert.writing import bundle_folder

__all__ = ["convert_model", "kept_worker"]

WORKER_MODULE = "edgevid_convert.worker"
TICK_S = 0.1  # between two calls of progress, from which an interruption comes
LEAVES_S = 5.0  # to a worker whose input has ended
DOING: dict[Stage, str] = {
    "converting": "its converter",
    "comparing": "its engine",
    "improving": "the search for a better one",
}


class ConversionError(Exception):
    """What the process that converted printed before it failed; the cause of the error that the user sees."""


def convert_model(
    options: ConvertOptions, progress: Progress = lambda what, done, total: None, *, debug: bool = False
) -> Bundle:
    """Convert a Keras model into a bundle and measure each variant against it.

    The work is done by another process. Where a converter or an engine crashes it, its variant is left out, and the
    rest goes on. The bundle appears under its name when it is complete; an interrupted conversion leaves nothing.

    Args:
        options: what to convert, and how.
        progress: called as the work goes on, at least ten times a second; what it raises ends the conversion.
        debug: have what converters print on stderr.

    Raises:
        ModelError: the model is no image classifier, or a converter cannot express it.
        UsageError: an option contradicts the model.
        SourceError: a calibration source cannot be read.
        BundleError: the output exists, and ``options.force`` is false.
    """
    variants: dict[str, str] = {}
    searches: dict[str, str] = {}
    with bundle_folder(options.output, options.force) as folder, _worker(debug) as worker:
        while True:
            with tempfile.TemporaryDirectory(prefix="edgevid-") as scratch:
                crashed = Crashed(dict(variants), dict(searches))
                job = Job(options, folder.resolve(), Path(scratch), crashed, str(Path.cwd()), dict(os.environ))
                crash = worker.convert(job, progress)
            if crash is None:
                break
            for file in folder.iterdir():
                file.unlink()
            known = searches if crash.stage == "improving" else variants
            if crash.variant is None or crash.variant in known:
                raise ModelError(
                    f"{options.model}: the process that converts it {crash.how}; --debug shows what it printed"
                ) from ConversionError(crash.printed)
            known[crash.variant] = f"{DOING[crash.stage]} crashed: the process {crash.how}"
    return Bundle(options.output)


@contextmanager
def kept_worker() -> Iterator[None]:
    """Have all conversions in the block done by one process, so that TensorFlow is loaded once.

    It holds some hundred megabytes until the block ends.
    """
    _kept.wanted = True
    try:
        yield
    finally:
        _kept.wanted = False
        if _kept.worker:
            _kept.worker.close()
            _kept.worker = None


class _Kept(threading.local):
    """The worker that :func:`kept_worker` keeps, for its thread."""

    wanted = False
    worker: _Worker | None = None


_kept = _Kept()


@contextmanager
def _worker(debug: bool) -> Iterator[_Worker]:
    worker = _kept.worker if _kept.wanted and _kept.worker and not debug else _Worker(debug)
    if _kept.wanted and not debug:
        _kept.worker = worker
        yield worker
        return
    try:
        yield worker
    finally:
        worker.close()


class _Crash(msgspec.Struct, frozen=True):
    """The end of a worker: how it ended, what it was doing to which variant, and what it had printed."""

    how: str
    variant: str | None
    stage: Stage
    printed: str


class _Worker:
    """A process of :mod:`edgevid_convert.worker`, started when there is a job for it, and again after a crash.

    Args:
        debug: whether what it prints goes to stderr, or is kept to be told with an error.
    """

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._process: subprocess.Popen[bytes] | None = None
        self._events: IO[bytes] | None = None
        self._log: IO[bytes] | None = None

    def convert(self, job: Job, progress: Progress) -> _Crash | None:
        """Have one conversion done; None when it is complete.

        Raises:
            EdgevidError: the conversion failed.
        """
        process = self._started()
        at, last = At(None, "converting"), Moved("starting", 0, None)
        try:
            with suppress(BrokenPipeError):  # it has crashed already, as is seen below
                assert process.stdin is not None
                pickle.dump(job, process.stdin)
                process.stdin.flush()
            for event in self._happening():
                if isinstance(event, Moved):
                    last = event
                elif isinstance(event, At):
                    at = event
                elif isinstance(event, Failed):
                    raise _error(event) from ConversionError(f"{self._printed()}\n{event.trace}")
                elif isinstance(event, Done):
                    return None
                progress(last.what, last.done, last.total)
        except EdgevidError:
            raise
        except BaseException:
            self.close(at_once=True)
            raise
        status, printed = process.wait(), self._printed()
        self.close()
        return _Crash(died_of(status), at.variant, at.stage, printed)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        reading, writing = os.pipe()
        self._events = os.fdopen(reading, "rb", buffering=0)
        self._log = None if self._debug else tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [sys.executable, "-I", "-B", "-c", BOOT, json.dumps(sys.path), WORKER_MODULE, str(writing)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=self._log or sys.stderr.fileno(),
                stderr=self._log or sys.stderr.fileno(),
                pass_fds=(writing,),
                start_new_session=True,
            )
        finally:
            os.close(writing)
        return self._process

    def _happening(self) -> Iterator[Event | None]:
        """Yield what the process tells, and None where it has said nothing for a while; end with it."""
        assert self._events is not None, "a worker that was started has a pipe"
        pending = b""
        while True:
            readable, _, _ = select.select([self._events], [], [], TICK_S)
            if not readable:
                yield None
                continue
            read = self._events.read(1 << 16)
            if not read:
                return
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=Event)

    def _printed(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self, at_once: bool = False) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVES_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        for file in (self._events, self._log):
            if file is not None:
                file.close()
        self._process = self._events = self._log = None


def _error(failed: Failed) -> Exception:
    """Return the error that the worker met, of the class that it had there."""
    kind = getattr(errors, failed.kind, None) if failed.kind else None
    if kind is None or not issubclass(kind, EdgevidError):
        return RuntimeError(failed.text)
    error: EdgevidError = kind.__new__(kind)
    error.args = (failed.text,)
    return error

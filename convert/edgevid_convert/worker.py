"""The process that converts: converters and engines may crash it, and the program that asked goes on.

It takes conversions from its standard input, one after the other, and writes what happens to a pipe, a line of JSON
each.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from edgevid.errors import EdgevidError, first_line
from edgevid_convert.options import ConvertOptions
from edgevid_convert.reporting import Crashed, Reporter, Stage

__all__ = ["At", "Done", "Event", "Failed", "Job", "Moved", "main"]

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """One conversion.

    Attributes:
        options: what to convert, and how.
        folder: the empty folder to fill.
        scratch: the folder for temporary files.
        crashed: what is not tried again.
        working_folder, environment: of the program that asks.
    """

    options: ConvertOptions
    folder: Path
    scratch: Path
    crashed: Crashed
    working_folder: str
    environment: Mapping[str, str]


class Moved(msgspec.Struct, frozen=True, tag=True):
    """How far the work has come; see :data:`edgevid_convert.reporting.Progress`."""

    what: str
    done: int
    total: int | None


class At(msgspec.Struct, frozen=True, tag=True):
    """Which variant is being worked on, and how; None between two of them."""

    variant: str | None
    stage: Stage


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The conversion ended with an error: its class, its text, and where it happened."""

    kind: str
    text: str
    trace: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """The bundle's folder is complete."""


Event: TypeAlias = Moved | At | Failed | Done


def main(pipe: str, parent: int) -> None:
    """Convert what standard input asks for, until it ends; report to the file descriptor ``pipe``."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that took effect
        os._exit(1)
    with suppress(OSError):  # where memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    with os.fdopen(int(pipe), "wb", buffering=0) as events:
        while True:
            try:
                job = pickle.load(sys.stdin.buffer)  # noqa: S301 - our parent's
            except EOFError:
                return
            events.write(msgspec.json.encode(_convert(job, events)) + b"\n")


def _convert(job: Job, events: IO[bytes]) -> Event:
    def tell(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    report = Reporter(
        lambda what, done, total: tell(Moved(what, done, total)), lambda variant, stage: tell(At(variant, stage))
    )
    os.chdir(job.working_folder)
    os.environ.clear()
    os.environ.update(job.environment)
    os.environ["TMPDIR"] = tempfile.tempdir = str(job.scratch)
    try:
        from edgevid_convert.conversion import fill_bundle  # TensorFlow comes with it

        fill_bundle(job.folder, job.options, job.crashed, report)
    except EdgevidError as error:
        return Failed(type(error).__name__, str(error), _trace(error))
    except Exception as error:  # noqa: BLE001 - the door of the process: every error goes to the parent
        return Failed("", f"unexpected {type(error).__name__}: {first_line(error)}", _trace(error))
    return Done()


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))

"""Runs a module of edgevid in a process of its own: engines and drivers crash, hang, and print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryFile

from edgevid.errors import BackendError

__all__ = ["how_it_ended", "run_module", "stream_module"]

# Without the current folder, whose files might have the names of modules.
BOOT = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "import runpy; runpy.run_module(sys.argv.pop(1), None, '__main__')"
)


def run_module(
    module: str, *arguments: str, stdin: bytes = b"", timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m module arguments``, and return its output and status.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout_s`` seconds.
    """
    return subprocess.run(  # noqa: S603 - our own module
        _command(module, *arguments),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
        env=_environment(),
    )


def stream_module(module: str, *arguments: str, stdin: bytes = b"") -> Iterator[bytes]:
    """Run ``python -m module arguments``, and yield the lines of its output as they come; end it with the iterator.

    Raises:
        BackendError: it ended in another way than by its own will.
    """
    with (
        TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603 - our own module
            _command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=_environment(),
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(stdin)
            process.stdin.close()
            yield from process.stdout
            if process.wait():
                complaints.seek(0)
                raise BackendError(
                    how_it_ended(subprocess.CompletedProcess([], process.returncode, b"", complaints.read()))
                )
        finally:
            process.kill()


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", BOOT, module, *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONSAFEPATH": "1"}


def how_it_ended(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return why a process left no answer, for reading: the signal it died of, or its last line on stderr."""
    if ended.returncode < 0:
        return f"its process died of {signal.Signals(-ended.returncode).name}"
    last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return last or f"its process ended with status {ended.returncode}"

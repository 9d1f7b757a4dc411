"""Runs a module of edgevid in a process of its own: engines and drivers crash, hang, and print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

__all__ = ["how_it_ended", "run_module"]

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
    command = [sys.executable, "-c", BOOT, module, *arguments]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(  # noqa: S603 - our own module
        command, input=stdin, capture_output=True, timeout=timeout_s, check=False, env=environment
    )


def how_it_ended(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return why a process left no answer, for reading: the signal it died of, or its last line on stderr."""
    if ended.returncode < 0:
        return f"its process died of {signal.Signals(-ended.returncode).name}"
    last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return last or f"its process ended with status {ended.returncode}"

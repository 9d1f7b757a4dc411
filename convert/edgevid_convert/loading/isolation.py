"""Runs a function of this package in a child process that cannot take the machine or its parent with it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgevid.errors import UsageError

__all__ = ["BOOT", "MEMORY_VARIABLE", "child_process", "died_of", "memory_limit", "submit_to_limits"]

MEMORY_VARIABLE = "EDGEVID_LOAD_MEMORY"
SHARE_OF_MEMORY = 0.75
SMALLEST_GB = 1.0  # TensorFlow alone takes half of it
GB = 10**9
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
PR_SET_PDEATHSIG = 1
# -I keeps the current folder and its modules out: the child imports from where its parent does. -B leaves no files.
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "import_module(sys.argv[2]).main(sys.argv[3], int(sys.argv[4]))"
)


@contextmanager
def child_process(module: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``module.main(folder, parent's process id)``; what it prints goes to the file ``log`` of the folder.

    When the block ends, however it ends, the child and all that it started are gone.
    """
    command = [sys.executable, "-I", "-B", "-c", BOOT, json.dumps(sys.path), module, str(folder), str(os.getpid())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def submit_to_limits(parent: int, memory_gb: float) -> None:
    """Called in the child: end when the parent ends, and have no more than ``memory_gb`` of memory.

    The limit is on private writable memory: TensorFlow's reserved addresses are many times of what it uses.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that took effect
        os._exit(1)
    with suppress(OSError):  # where memory runs out all the same, the child goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = int(memory_gb * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def memory_limit() -> float:
    """Return how many GB a child may take: ``$EDGEVID_LOAD_MEMORY``, else three quarters of the machine's.

    Raises:
        UsageError: the variable holds no such number.
    """
    if text := os.environ.get(MEMORY_VARIABLE):
        try:
            gigabytes = float(text)
        except ValueError:
            gigabytes = 0.0
        if not SMALLEST_GB <= gigabytes < 1e6:
            raise UsageError(f"{MEMORY_VARIABLE}={text}: expected a number of GB, {SMALLEST_GB:g} or more")
        return gigabytes
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            machine = min(machine, int(file.read_text()))
    return max(SMALLEST_GB, SHARE_OF_MEMORY * machine / GB)


def died_of(status: int) -> str:
    """Return how a process ended, for reading."""
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"died of {signal.Signals(-status).name}"
    return f"died of signal {-status}"

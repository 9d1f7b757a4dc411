"""A conversion that is interrupted or terminated, at any moment: it says so, and nothing of it is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevid.errors import ModelError
from edgevid_convert import variants
from edgevid_convert.to_tflite import convert_to_tflite
from tests.conftest import Outcome

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
STATUS = {signal.SIGINT: (130, "edgevid: interrupted"), signal.SIGTERM: (143, "edgevid: terminated")}


class SignalStack(ctypes.Structure):
    """What sigaltstack() takes."""

    _fields_ = (("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture
def _signals_on_the_common_stack() -> None:
    """Have signals met on the stack that everything else is on.

    Where another test of this process has loaded OpenVINO on a CPU with AMX, the registers that a signal saves do not
    fit the stack that TensorFlow keeps for signals, and the system ends the process (SIGSEGV in raise).
    """
    disable = 2
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(SignalStack(None, disable, 0)), None)


def raised(number: signal.Signals, *arguments: Any, **options: Any) -> None:
    """The signal's exception goes its way."""
    signal.raise_signal(number)


def lost(number: signal.Signals, *arguments: Any, **options: Any) -> None:
    """A library's C++ code called Python, which a signal met, and dropped the exception."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)
    convert_to_tflite(*arguments, **options)


def turned(number: signal.Signals, *arguments: Any, **options: Any) -> None:
    """Or it made an error of its own of it, and the variant is one that cannot be made."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)
    raise ModelError("TensorFlow cannot express it")


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("way", [raised, lost, turned])
@pytest.mark.usefixtures("_signals_on_the_common_stack")
def test_a_signal_ends_a_conversion_whatever_a_library_makes_of_it(
    cli: Cli,
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[..., None],
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(variants, "convert_to_tflite", lambda *given, **more: way(number, *given, **more))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid")
    assert (outcome.status, outcome.error) == STATUS[number]
    assert list(tmp_path.iterdir()) == [scratch]
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("delay", [0, 2, 5, 8])
def test_nothing_is_left_whenever_it_comes(
    model_file: Path, clip: Path, tmp_path: Path, delay: float, number: signal.Signals
) -> None:
    output, scratch = tmp_path / "out" / "o.edgevid", tmp_path / "scratch"
    output.parent.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "edgevid", "convert", str(model_file), "-o", str(output), "--calib", str(clip)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    while process.poll() is None and not list(scratch.iterdir()):  # before that, Python itself is being started
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert list(scratch.iterdir()) == []
    if err.startswith("took") or "\ntook" in err:  # done before
        assert [path.name for path in output.parent.iterdir()] == ["o.edgevid"]
    else:
        status, message = STATUS[number]
        # Python ends by the signal itself where it met a library's own eval(); a shell calls both 130.
        assert process.returncode in (status, -number)
        assert err.strip().splitlines()[-1:] == [message]
        assert list(output.parent.iterdir()) == []

"""A conversion that is interrupted or terminated, at any moment: it says so, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevid.errors import ModelError
from edgevid_convert.converter import convert_model
from edgevid_convert.options import ConvertOptions
from tests.conftest import Outcome

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
STATUS = {signal.SIGINT: (130, "edgevid: interrupted"), signal.SIGTERM: (143, "edgevid: terminated")}


def kill_worker(number: signal.Signals) -> None:
    """Send a signal to the process that converts for this one."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"edgevid_convert.worker" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), number)


def crashing(at: str) -> Callable[[str, int, int | None], None]:
    """Return a callback of progress that has the converting process crash once, when it is told of a step."""
    told: list[str] = []

    def progress(what: str, done: int, total: int | None) -> None:
        if what == at and at not in told:
            kill_worker(signal.SIGSEGV)
        told.append(what)

    return progress


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_ends_a_conversion(
    cli: Cli, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def send() -> None:
        while not list(scratch.iterdir()):  # the conversion has begun
            time.sleep(0.01)
        time.sleep(0.2)  # Python's own TemporaryDirectory cannot be interrupted while it is made
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid")
    sender.join()
    assert (outcome.status, outcome.error) == STATUS[number]
    assert list(tmp_path.iterdir()) == [scratch]
    assert list(scratch.iterdir()) == []


def test_a_crash_of_one_variant_is_that_variants(model_file: Path, tmp_path: Path) -> None:
    options = ConvertOptions(model=model_file, output=tmp_path / "o.edgevid", formats=("tflite",))
    manifest = convert_model(options, crashing("converting to tflite-fp16")).manifest
    assert [variant.id for variant in manifest.variants] == ["tflite-fp32", "tflite-dynamic-int8"]
    assert manifest.left_out == {"tflite-fp16": "its converter crashed: the process died of SIGSEGV"}
    assert {path.name for path in options.output.iterdir()} == {
        "edgevid.json", "labels.txt", "tflite-fp32.tflite", "tflite-dynamic-int8.tflite",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["o.edgevid"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("loading the model", r"again.keras: the process that converts it died of SIGSEGV; --debug shows"),
        ("converting to tflite-fp32", r"tflite-fp32: its converter crashed: .* SIGSEGV; leave it out with"),
        ("comparing tflite-fp32 with Keras", r"tflite-fp32: its engine crashed: .* SIGSEGV; leave it out with"),
    ],
)
def test_a_crash_of_what_must_be_there_is_told(model_file: Path, tmp_path: Path, step: str, message: str) -> None:
    (tmp_path / "out").mkdir()
    model = tmp_path / "again.keras"  # one that is not loaded yet, which takes a while
    shutil.copyfile(model_file, model)
    options = ConvertOptions(
        model=model, output=tmp_path / "out" / "o.edgevid", formats=("tflite",), precisions=("fp32",)
    )
    with pytest.raises(ModelError, match=message):
        convert_model(options, crashing(step))
    assert list((tmp_path / "out").iterdir()) == []


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

"""The runtime is lean: importing it loads no engine and takes no time, and a bare install runs bundles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import read_jsonl

HEAVY = ("tensorflow", "keras", "onnx", "onnxruntime", "openvino", "tf2onnx", "ai_edge_litert", "cv2", "av", "numpy")
NEVER_ON_A_DEVICE = ("tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", "openvino", "torch")
ROOT = Path(__file__).parent.parent


def python(code: str, executable: str | Path = sys.executable, **environment: str) -> str:
    environment = {**os.environ, **environment}
    command = [str(executable), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(python("import edgevid, sys, json; print(json.dumps(list(sys.modules)))"))
    assert not set(loaded) & set(HEAVY)


def test_import_takes_less_than_a_fifth_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import edgevid; print(time.perf_counter() - t)"
    assert median(float(python(code)) for _ in range(5)) < 0.2


def test_running_a_bundle_loads_no_other_engine(bundle_path: Path, clip: Path) -> None:
    code = f"""
import sys, json
from edgevid import VideoClassifier
with VideoClassifier({str(bundle_path)!r}, variant="tflite-int8") as classifier:
    labels = [prediction.label for prediction in classifier.stream({str(clip)!r})]
print(json.dumps([labels, list(sys.modules)]))
"""
    labels, loaded = json.loads(python(code))
    assert len(labels) == 60
    assert not set(loaded) & set(NEVER_ON_A_DEVICE)


@pytest.mark.parametrize("variant", ["tflite-int8", "onnx-int8"])
def test_an_engine_leaves_nothing_behind_and_reports_to_nobody(bundle_path: Path, tmp_path: Path, variant: str) -> None:
    """ONNX Runtime's telemetry keeps a session file in the temporary folder: none is there when it is off."""
    code = f"""
import os
os.environ.pop("CI", None)  # where it is set, telemetry is off by itself
from edgevid import VideoClassifier
VideoClassifier({str(bundle_path)!r}, variant={variant!r}).close()
"""
    python(code, TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_help_of_every_command_loads_no_engine() -> None:
    code = """
import sys
from edgevid.cli import COMMANDS, main
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert end.code == 0
print(*sys.modules)
"""
    output = python(code)
    assert "Examples:" in output
    assert not set(output.splitlines()[-1].split()) & set(NEVER_ON_A_DEVICE)


@pytest.mark.slow
def test_a_bare_install_runs_a_bundle_carried_over(
    bundle_path: Path, model_file: Path, clip: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    executable = environment / "bin" / "python"
    subprocess.run([executable, "-m", "pip", "install", "--quiet", str(ROOT)], check=True, capture_output=True)
    installed = json.loads(
        python(
            "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))", executable
        )
    )
    assert not {name.lower().replace("-", "_") for name in installed} & {*NEVER_ON_A_DEVICE, "tensorflow_cpu"}
    edgevid = str(environment / "bin" / "edgevid")
    run = [edgevid, "run", str(bundle_path), "--source", str(clip), "--predictions", "-"]
    records = read_jsonl(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert [record["label"] for record in records[:20]] == ["red"] * 20
    for command, extra in (
        (["demo"], "all"),
        (["convert", str(model_file)], "convert"),
        (["bench", str(bundle_path), "--source", str(clip)], "bench"),
        ([*run, "--variant", "onnx-int8"], "onnx"),
    ):
        line = command if command[0] == edgevid else [edgevid, *command]
        refused = subprocess.run(line, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert f'pip install "edgevid[{extra}]"' in refused.stderr
        assert len(refused.stderr.splitlines()) == 1

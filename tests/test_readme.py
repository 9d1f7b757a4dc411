"""What the README and the pages of docs/ show is run as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevid.backends import BACKENDS, DEVICES
from edgevid.cli import COMMANDS
from edgevid.manifest import VARIANT_IDS
from edgevid_bench.output.writers import write_report
from tests.conftest import Outcome
from tests.reports import report, row

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.partition(" #")[0].partition(" |")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README + DOCS, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("edgevid ")
]
# Those that need a camera, and those that a test of their own covers.
RUNNABLE = [line for line in SHELL if not re.search(r"--camera|demo|edgevid health|rtsp://", line)]

SHORT_BENCH = ["--min-rounds", "1", "--max-rounds", "1", "--min-secs", "0.01", "--allow-disturbed", "--threads", "1"]


@pytest.fixture(autouse=True)
def _a_users_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bundle_path: Path,
    model_file: Path,
    labels_file: Path,
    clip: Path,
) -> None:
    """The files that the README speaks of, in the current folder."""
    (tmp_path / "clips").mkdir()
    for name in ("clip.mp4", "clips/day.mp4", "clips/night.mp4"):
        shutil.copyfile(clip, tmp_path / name)
    shutil.copyfile(model_file, tmp_path / "model.keras")
    shutil.copyfile(labels_file, tmp_path / "labels.txt")
    shutil.copytree(bundle_path, tmp_path / "model.edgevid")
    for name in ("pi5", "n100", "orin"):
        write_report(report(row("tflite-int8", 40.0, 1.0), cpu=name), tmp_path / f"{name}.json")
    (tmp_path / "edgevid.toml").write_text('bundle = "model.edgevid"\nsource = "clip.mp4"\nhealth = "health.json"\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    if "print" in code:
        assert len(capsys.readouterr().out.splitlines()) == 60


@pytest.mark.parametrize("line", RUNNABLE)
def test_the_commands_run(cli: Callable[..., Outcome], line: str) -> None:
    if "convert" in line:
        shutil.rmtree("model.edgevid")
    short = SHORT_BENCH if line.startswith("edgevid bench") else []
    outcome = cli(*shlex.split(line)[1:], *short)
    assert outcome.status == 0, outcome.err


def test_the_readme_knows_every_command_and_variant() -> None:
    for name in (*(f"edgevid {command}" for command in COMMANDS), *VARIANT_IDS, *BACKENDS, *DEVICES):
        assert name in README
    assert len(RUNNABLE) == 14
    assert len(PYTHON) == 2

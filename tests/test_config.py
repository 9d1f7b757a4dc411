"""``edgevid run --config edgevid.toml``, and the example that is shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevid.cli.config import keys_of
from edgevid.cli.run import run
from tests.conftest import Outcome, read_jsonl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Cli = Callable[..., Outcome]
EXAMPLE = Path(__file__).parent.parent / "examples" / "edgevid.toml"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write ``edgevid.toml`` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("edgevid.toml").write_text(text)
        return Path("edgevid.toml")

    return write


def test_a_file_is_as_good_as_a_command_line(
    cli: Cli, config: Callable[[str], Path], bundle_path: Path, clip: Path
) -> None:
    file = config(f"""
bundle = {json.dumps(str(bundle_path))}
source = {json.dumps(str(clip))}
predictions = "-"
window = 5             # a number, where the command line has a text
start = 1              # a whole one, where a number is meant
stride = 7
max-fps = 100.0
quiet = true
variant = "onnx-fp32"
backend = "onnxruntime"
provider = "cpu"
""")
    asked = [bundle_path, "--source", clip, "--predictions", "-", "--window", 5, "--start", 1, "--stride", 7]
    expected = cli("run", *asked, "--max-fps", 100, "--quiet", "--variant", "onnx-fp32")
    outcome = cli("run", "--config", file)
    assert (outcome.status, outcome.out, outcome.err) == (0, expected.out, "")
    assert len(read_jsonl(outcome.out)) == 4


def test_the_command_line_wins(cli: Cli, config: Callable[[str], Path], bundle_path: Path, clip: Path) -> None:
    file = config(f'bundle = "absent.edgevid"\nsource = {json.dumps(str(clip))}\nstride = 7\npredictions = "-"\n')
    assert len(read_jsonl(cli("run", bundle_path, "--config", file).out)) == 9
    assert len(read_jsonl(cli("run", bundle_path, "--config", file, "--stride", 30).out)) == 2
    assert len(read_jsonl(cli("run", bundle_path, "--stride=30", f"--config={file}").out)) == 2
    file = config('camera = 63\npredictions = "-"\n')
    assert "camera 63" in cli("run", bundle_path, "--config", file).error
    instead = cli("run", bundle_path, "--config", file, "--source", clip)  # of the camera
    assert instead.status == 0, instead.err


def test_lists_go_to_options_that_may_be_repeated(
    cli: Cli, config: Callable[[str], Path], bundle_path: Path, clip: Path
) -> None:
    file = config('engine-option = ["first=1", "second=2"]\n')
    refused = cli("run", bundle_path, "--source", clip, "--backend", "litert", "--config", file)
    assert "--engine-option first, second: litert on the CPU has none" in refused.error.replace("LiteRT", "litert")


def test_all_that_is_wrong_is_told_at_once(cli: Cli, config: Callable[[str], Path]) -> None:
    file = config("""
camra = 0
max-frames = "ten"
stride = 2.5
threads = true
force = 1
engine-option = "KEY=VALUE"
backend = "tflte"
source = ["a", "b"]
max_fps = 5

[window]
frames = 64
""")
    outcome = cli("run", "--config", file)
    assert (outcome.status, outcome.out) == (2, "")
    expected = [
        "camra: no such option; did you mean 'camera'?",
        'max-frames: "ten": expected a whole number',
        "stride: 2.5: expected a whole number",
        "threads: true: expected a whole number",
        "force: 1: expected true or false",
        'engine-option: "KEY=VALUE": expected a list, each item a text in quotes',
        "backend: 'tflte' is not one of 'auto', 'litert', 'onnxruntime'",
        'source: ["a", "b"]: expected a text in quotes',
        "max_fps: no such option; did you mean 'max-fps'?",
        'window: {"frames": 64}: expected a text in quotes',
    ]
    lines = outcome.err.splitlines()
    assert len(lines) == len(expected)
    for line, text in zip(lines, expected, strict=True):
        assert line.startswith(f"edgevid: edgevid.toml: {text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window 5\n", r"edgevid.toml: no TOML: Expected '=' after a key in a key/value pair (at line 1, column 8)"),
        ('stride = 2\nsource = "clip', "at line 2"),
        ("stride = 2\nstride = 3\n", "at line 2"),
        ("config = 'other.toml'\n", "config: no such option"),
        ("zebra = 1\n", "zebra: no such option; 'edgevid run --help' has them"),
        ("camera = 0\n", "--source and --camera: give one of them"),
    ],
)
def test_a_wrong_file_is_a_wrong_usage(cli: Cli, config: Callable[[str], Path], text: str, message: str) -> None:
    extra = "source = 'absent.mp4'\n" if text.startswith("camera") else ""
    outcome = cli("run", "--config", config(extra + text))
    assert outcome.status == 2
    assert message in outcome.error


def test_a_file_that_is_absent_or_no_text(cli: Cli, config: Callable[[str], Path]) -> None:
    missing = cli("run", "--config", "absent.toml")
    assert (missing.status, "absent.toml: No such file or directory; --config takes" in missing.error) == (2, True)
    config("").write_bytes(b"source = '\xff'\n")
    assert "edgevid.toml: no UTF-8 text, at byte 10" in cli("run", "--config", "edgevid.toml").error


def test_errors_are_told_as_the_file_wants_it(config: Callable[[str], Path]) -> None:
    config('log-format = "json"\nstride = "x"\nthreads = "y"\n')
    for arguments, count in ((["--config", "edgevid.toml"], 2), (["--config", "edgevid.toml", "--bogus"], 2)):
        command = [sys.executable, "-m", "edgevid", "run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert [line["level"] for line in read_jsonl(done.stderr)] == ["error"] * count
    command = [sys.executable, "-m", "edgevid", "run", "--config", "edgevid.toml", "--log-format", "text"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line[:22] for line in done.stderr.splitlines()] == ["edgevid: edgevid.toml:"] * 2
    config('log-format = "json"\n')
    command = [sys.executable, "-m", "edgevid", "run", "--config", "edgevid.toml", "--bogus"]
    (line,) = read_jsonl(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
    assert "--bogus" in line["message"]


def test_the_name_of_the_file_is_completed() -> None:
    environment = {**os.environ, "_EDGEVID_COMPLETE": "bash_complete"}
    for words, expected in (("edgevid run --config edge", "file,edge\n"), ("edgevid health /run", "file,/run\n")):
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        command = [sys.executable, "-c", "from edgevid.cli import cli; cli(prog_name='edgevid')"]
        assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout == expected
    environment |= {"COMP_WORDS": "edgevid run --config absent.toml --back", "COMP_CWORD": "4"}
    assert "--backend" in subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_example_has_every_option_and_no_other(cli: Cli, config: Callable[[str], Path], bundle_path: Path) -> None:
    lines = EXAMPLE.read_text().splitlines()
    # A line that is commented out shows an option, too; prose has no equals sign behind its first word.
    everything = "\n".join(line.removeprefix("#") if line.startswith("#") and " = " in line else line for line in lines)
    shown: dict[str, Any] = tomllib.loads(everything)
    known = keys_of(run)
    assert set(shown) <= set(known)
    missing = {str(parameter.name) for parameter in known.values()} - {str(known[key].name) for key in shown}
    assert not missing, f"examples/edgevid.toml lacks {missing}"
    refused = cli("run", bundle_path, "--config", config(everything)).err
    assert not [line for line in refused.splitlines() if line.startswith("edgevid: edgevid.toml")], refused
    overruled = ("--camera", 63, "--health", "health.json", "--reconnect-for", "500ms")
    as_shipped = cli("run", bundle_path, "--config", EXAMPLE, *overruled)
    assert "camera 63: it cannot be opened" in as_shipped.err

"""What is read is never written over, by whatever name or link; and no two outputs go into one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Cli = Callable[..., Outcome]
EDGEVID = (sys.executable, "-m", "edgevid")


@pytest.fixture
def own(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip that can be lost, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copyfile(clip, "own.mp4"))


def unlike(path: Path, how: str, name: str) -> Path:
    """Return another name of a file."""
    match how:
        case "itself":
            return path
        case "symlink":
            Path(name).symlink_to(path)
        case "hard link":
            os.link(path, name)
        case "other way":
            return Path("..") / Path.cwd().name / path
    return Path(name)


HOW = pytest.mark.parametrize("how", ["itself", "symlink", "hard link", "other way"])


@HOW
@pytest.mark.parametrize("source", ["own.mp4", "o*.mp4"])
def test_the_source_stays(cli: Cli, bundle_path: Path, own: Path, clip: Path, how: str, source: str) -> None:
    output = unlike(own, how, "other.mp4")
    outcome = cli("run", bundle_path, "--source", source, "--save", output, "--force")
    assert outcome.status == 2
    assert outcome.error == f"edgevid: --save {output}: it is the source itself, and would be lost; name another file"
    assert own.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_the_source_behind_stdin_stays(bundle_path: Path, own: Path, clip: Path, source: str) -> None:
    command = [*EDGEVID, "run", str(bundle_path), "--source", source, "--save", str(own), "--force"]
    with own.open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"edgevid: --save {own}: it is the source itself, and would be lost; name another file" in done.stderr
    assert own.read_bytes() == clip.read_bytes()


def test_an_image_of_the_source_stays(cli: Cli, bundle_path: Path, images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    image = folder / "img3.png"
    (tmp_path / "out.jsonl").symlink_to(image)
    for source in (folder, f"{folder}/*.png", image):
        outcome = cli("run", bundle_path, "--source", source, "--predictions", tmp_path / "out.jsonl", "--force")
        assert "out.jsonl: it is the source itself" in outcome.error
    outcome = cli("classify", folder, "--bundle", bundle_path, "--output", tmp_path / "out.jsonl", "--force")
    assert "out.jsonl: it is one of the clips" in outcome.error
    assert image.read_bytes() == (images / "img3.png").read_bytes()


def test_stdout_that_is_the_source(bundle_path: Path, own: Path, clip: Path) -> None:
    with own.open("ab") as stdout:
        command = [*EDGEVID, "run", str(bundle_path), "--source", str(own), "--predictions", "-"]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert "it is the source itself" in done.stderr
    assert own.read_bytes() == clip.read_bytes()


def test_a_pipe_and_a_device_are_no_file(bundle_path: Path, own: Path) -> None:
    """Both are pipes, or /dev/null, and yet nothing is lost."""
    command = [*EDGEVID, "run", str(bundle_path), "--source", str(own), "--predictions", "-", "--health", "health"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False).returncode == 0


@pytest.mark.parametrize(
    ("how", "there"),
    [(how, True) for how in ("itself", "symlink", "hard link", "other way")]
    + [(how, False) for how in ("itself", "symlink", "other way")],
)
def test_two_outputs_are_two_files(cli: Cli, bundle_path: Path, own: Path, how: str, there: bool) -> None:
    first = Path("out.jsonl")
    if there:
        first.touch()
    second = unlike(first, how, "link.jsonl")
    outcome = cli("run", bundle_path, "--source", own, "--predictions", first, "--events", second, "--force")
    assert outcome.status == 2
    assert f"--events {second}: --predictions is written to this file, too" in outcome.error
    assert not there or not first.read_bytes()


def test_names_that_some_disks_take_for_one(cli: Cli, bundle_path: Path, own: Path) -> None:
    outcome = cli("run", bundle_path, "--source", own, "--predictions", "out.jsonl", "--events", "OUT.jsonl")
    assert "--events OUT.jsonl: --predictions is written to this file, too" in outcome.error


@pytest.mark.parametrize("command", ["run", "classify"])
def test_the_bundle_stays(cli: Cli, bundle_path: Path, own: Path, command: str) -> None:
    bundle = Path(shutil.copytree(bundle_path, "own.edgevid"))
    Path("out.jsonl").symlink_to(bundle / "labels.txt")
    arguments = (
        ["run", bundle, "--source", own, "--predictions"]
        if command == "run"
        else [
            "classify",
            own,
            "--bundle",
            bundle,
            "--output",
        ]
    )
    outcome = cli(*arguments, "out.jsonl", "--force")
    assert "out.jsonl: it is a file of the bundle, and would be lost" in outcome.error
    assert (bundle / "labels.txt").read_bytes() == (bundle_path / "labels.txt").read_bytes()


def test_what_bench_tune_and_compare_read_stays(cli: Cli, bundle_path: Path, own: Path) -> None:
    truth = Path("truth.csv")
    truth.write_text("start,end,label\n0,1,red\n")
    Path("report.csv").symlink_to(own)
    for arguments, what in (
        (("bench", bundle_path, "--source", own, "--output", "report.csv"), "the source itself"),
        (("tune", bundle_path, "--clip", own, "--output", "report.csv"), "one of the clips"),
        (("tune", bundle_path, "--clip", own, "--truth", truth, "--output", truth), "the --truth"),
        (("compare", own, "--output", "report.csv"), "one of the reports"),
    ):
        outcome = cli(*arguments, "--force")
        assert f"it is {what}, and would be lost" in outcome.error
    outcome = cli("bench", bundle_path, "--source", own, "--output", "a.md", "--output", "./a.md")
    assert "--output a.md: --output is written to this file, too" in outcome.error
    assert truth.read_text().startswith("start,end,label")


@pytest.mark.parametrize("option", [None, "--labels", "--calib"])
def test_a_bundle_is_not_replaced_by_what_is_in_it(
    cli: Cli, bundle_path: Path, model_file: Path, own: Path, option: str | None
) -> None:
    bundle = Path(shutil.copytree(bundle_path, "own.edgevid"))
    shutil.copyfile(model_file, bundle / "model.keras")
    shutil.copyfile(own, bundle / "clip.mp4")
    inside = {None: bundle / "model.keras", "--labels": bundle / "labels.txt", "--calib": bundle / "clip.mp4"}[option]
    arguments = [model_file, option, inside] if option else [inside]
    outcome = cli("convert", *arguments, "--output", bundle, "--force")
    assert f"{inside}: it is in own.edgevid, and would be lost with it; name another --output" in outcome.error
    packed = next(bundle.glob("*.onnx"))
    outcome = cli("pack", packed, "--output", bundle, "--force")
    assert f"{packed}: it is in own.edgevid" in outcome.error
    assert packed.is_file()


# Standard streams that are closed from the start.


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "BUNDLE", "--source", "own.mp4", "--predictions", "-"],
        ["classify", "own.mp4", "--bundle", "BUNDLE"],
        ["inspect", "BUNDLE", "--json"],
        ["--version"],
    ],
)
def test_a_closed_stdout_is_one_line(bundle_path: Path, own: Path, arguments: list[str]) -> None:
    command = " ".join([*EDGEVID, *arguments, ">&-"]).replace("BUNDLE", str(bundle_path))
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "edgevid: stdout: it is closed; give results a place to go, /dev/null say\n"


def test_closed_stdin_and_stderr(bundle_path: Path, own: Path) -> None:
    command = " ".join([*EDGEVID, "run", str(bundle_path), "--source", "own.mp4", "--predictions", "-"])
    done = subprocess.run(f"{command} <&- 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 60
    done = subprocess.run(
        f"{command.replace('own.mp4', '-')} <&-", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "edgevid: source '-': standard input is closed; expected video" in done.stderr

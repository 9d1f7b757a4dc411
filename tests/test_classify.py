"""``edgevid classify``: one verdict a clip, for who has an archive of them."""

from __future__ import annotations

import csv
import hashlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome, read_jsonl, write_clip

Cli = Callable[..., Outcome]
FRAMES = {"red": ["red"] * 9 + ["blue"] * 3, "green": ["green"] * 10, "blue": ["blue"] * 8 + ["grey"] * 2}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, each mostly of the colour that it is called by."""
    folder = tmp_path_factory.mktemp("three")
    for color, frames in FRAMES.items():
        write_clip(folder / f"{color}.mp4", frames)
    return folder


@pytest.fixture
def archive(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and the clips in ``clips``, with one in a folder of its own and two that are damaged."""
    monkeypatch.chdir(tmp_path)
    clips = Path("clips")
    (clips / "more").mkdir(parents=True)
    for name, copy in (("red", "clip2"), ("blue", "clip10"), ("green", "more/green")):
        shutil.copyfile(three / f"{name}.mp4", clips / f"{copy}.mp4")
    (clips / "damaged.mp4").write_bytes((three / "red.mp4").read_bytes()[:300])
    (clips / "empty.avi").touch()
    return clips


def verdicts(path: str | Path) -> dict[str, dict[str, Any]]:
    records = read_jsonl(Path(path).read_text())
    found = {record["clip"]: record for record in records}
    assert len(found) == len(records)  # each clip once
    return found


# What is said of clips.


def test_each_clip_has_a_verdict_and_damaged_ones_an_error(cli: Cli, archive: Path, bundle_path: Path) -> None:
    outcome = cli("classify", archive, "--bundle", bundle_path, "--output", "out.jsonl", "--top-k", 2)
    assert outcome.status == 1
    assert outcome.error == "edgevid: 2 of 5 clips cannot be classified: clips/damaged.mp4, clips/empty.avi"
    assert (
        "clips/empty.avi: the file is empty; expected a video file such as MP4, MKV or AVI; passed over" in outcome.err
    )
    assert "5 of 5 clips: 32 frames in " in outcome.err
    found = verdicts("out.jsonl")
    names = ["clip2.mp4", "clip10.mp4", "damaged.mp4", "empty.avi", "more/green.mp4"]
    assert list(found) == [f"clips/{name}" for name in names]
    red = found["clips/clip2.mp4"]
    assert (red["label"], red["share"], red["frames"], red["broken"]) == ("red", 0.75, 12, 0)
    assert (red["seconds"], red["pooling"], red["score"]) == (
        pytest.approx(12 / 25),
        "mean",
        pytest.approx(0.75, abs=0.01),
    )
    assert red["pooled"]["vote"] == ["red", 0.75]
    assert red["top"] == [["red", red["score"]], ["blue", pytest.approx(0.25, abs=0.01)]]
    assert found["clips/more/green.mp4"]["label"] == "green"
    assert found["clips/clip10.mp4"]["label"] == "blue"
    assert "the file is empty" in found["clips/empty.avi"]["error"]
    assert "label" not in found["clips/empty.avi"]
    table = [line.split("\t") for line in outcome.out.splitlines()]
    assert table[0] == ["clip", "label", "score", "share", "frames", "seconds"]
    assert table[1] == ["clips/clip2.mp4", "red", f"{red['score']:.3f}", "0.750", "12", "0.48"]
    assert table[4][1].startswith("error: the file is empty")


def test_csv_has_the_same_columns(cli: Cli, archive: Path, bundle_path: Path) -> None:
    cli("classify", archive, "--bundle", bundle_path, "--output", "out.jsonl", "--top-k", 2)
    cli("classify", archive, "--bundle", bundle_path, "--output", "out.csv", "--top-k", 2)
    with Path("out.csv").open(newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    for clip, record in verdicts("out.jsonl").items():
        row = {name: value for name, value in rows[clip].items() if value}
        assert set(row) == set(record)
        for name, value in record.items():
            assert row[name] == (
                re.sub(r"'", '"', str(value)).replace(" ", "") if isinstance(value, list | dict) else str(value)
            )


def test_stdout_gets_json_lines_and_nothing_else(cli: Cli, archive: Path, bundle_path: Path) -> None:
    outcome = cli("classify", bundle_path, archive / "more", archive / "clip2.mp4", "--output", "-")
    assert outcome.status == 0, outcome.err
    assert [record["label"] for record in read_jsonl(outcome.out)] == ["green", "red"]


def test_a_terminal_gets_a_table(archive: Path, bundle_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "edgevid",
        "classify",
        str(bundle_path),
        str(archive / "more"),
        str(archive / "empty.avi"),
    ]
    process = subprocess.run(
        command, stdout=follower, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert process.returncode == 1
    assert re.search(r"clip +label +score +share +frames +seconds", shown)
    assert re.search(r"clips/more/green\.mp4 +green +(1\.000|0\.99\d) +1\.000 +10 +0\.40", shown)
    assert "\t" not in shown


def test_frames_are_picked_as_in_a_run(cli: Cli, archive: Path, bundle_path: Path) -> None:
    for options, frames, seconds in (([], 12, 0.48), (["--stride", 5], 3, 0.44), (["--max-fps", 5], 3, 0.44)):
        outcome = cli("classify", bundle_path, archive / "clip2.mp4", "--output", "-", *options)
        (record,) = read_jsonl(outcome.out)
        assert (record["frames"], record["seconds"]) == (frames, pytest.approx(seconds))


def test_broken_frames_are_counted(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "broken.mp4", ["red", "green"] * 60, g="12")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 6000] = bytes(range(256)) * 23 + bytes(112)
    path.write_bytes(data)
    outcome = cli("classify", bundle_path, path, "--output", "-")
    (record,) = read_jsonl(outcome.out)
    assert outcome.status == 0
    assert record["broken"] > 0
    assert record["frames"] + record["broken"] >= 110
    assert f"broken frames passed over: {record['broken']}" in outcome.err


# Which clips are meant.


def named(cli: Cli, bundle_path: Path, *names: object) -> list[str]:
    outcome = cli("classify", *names, "--bundle", bundle_path, "--backend", "null", "--output", "-")
    return [record["clip"] for record in read_jsonl(outcome.out)]


def test_folders_patterns_and_files(cli: Cli, archive: Path, bundle_path: Path) -> None:
    for absent in ("damaged.mp4", "empty.avi"):
        (archive / absent).unlink()
    (archive / "notes.txt").write_text("no video")
    (archive / "thumbnail.jpg").write_bytes(b"no video either")
    (archive / ".hidden.mp4").write_bytes(b"of a Mac, say")
    all_of_them = ["clips/clip2.mp4", "clips/clip10.mp4", "clips/more/green.mp4"]
    assert named(cli, bundle_path, "clips") == all_of_them
    assert named(cli, bundle_path, "clips/*.mp4") == all_of_them[:2]
    assert sorted(named(cli, bundle_path, "clips/**/*.mp4")) == sorted(all_of_them)
    assert named(cli, bundle_path, "clips/more", "./clips", "clips/clip?.mp4") == [all_of_them[2], *all_of_them[:2]]
    assert named(cli, bundle_path, "clips/m*") == all_of_them[2:]
    odd = archive / "odd[1].mp4"
    shutil.copyfile(archive / "clip2.mp4", odd)
    assert named(cli, bundle_path, odd) == [str(odd)]


def test_folders_of_images_are_clips_where_there_is_no_video(
    cli: Cli, images: Path, bundle_path: Path, tmp_path: Path
) -> None:
    for name in ("a", "b/c"):
        shutil.copytree(images, tmp_path / "frames" / name)
    outcome = cli("classify", tmp_path / "frames", images, bundle_path, "--output", "-")
    records = read_jsonl(outcome.out)
    folders = (tmp_path / "frames/a", tmp_path / "frames/b/c", images)
    assert [(record["clip"], record["frames"]) for record in records] == [(str(folder), 12) for folder in folders]
    assert {record["share"] for record in records} == {0.25}
    empty = tmp_path / "nothing"
    empty.mkdir()
    outcome = cli("classify", empty, images, bundle_path)
    assert outcome.status == 1
    assert f"{empty}: no videos and no images in it" in outcome.err


def test_a_name_that_is_no_text(cli: Cli, three: Path, bundle_path: Path, tmp_path: Path) -> None:
    try:
        shutil.copyfile(three / "red.mp4", os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    except OSError:
        pytest.skip("needs_byte_names: this file system has UTF-8 names only")
    output = tmp_path / "out.jsonl"
    for _ in range(2):
        outcome = cli("classify", tmp_path, bundle_path, "--output", output, "--resume")
        assert outcome.status == 0, outcome.err
        assert verdicts(output)[rf"{tmp_path}/caf\udce9.mp4"]["label"] == "red"
    assert "1 were done before" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'CLIP...'"),
        (["BUNDLE"], 2, "no clips named beside "),
        (["absent.mp4", "BUNDLE"], 1, "absent.mp4: no such file or folder; expected a video"),
        (["none*.mp4", "BUNDLE"], 1, "none*.mp4: no file has such a name"),
        (["clips/nothing", "BUNDLE"], 1, "clips/nothing: no videos and no images in it"),
        (["clips", "absent.edgevid"], 1, "absent.edgevid: no such bundle"),
        (["clips", "BUNDLE", "--bundle", "other.edgevid"], 2, "several bundles named"),
        (["clips", "BUNDLE", "--pool", "median"], 2, "'median' is not one of 'mean', 'max', 'log-mean', 'vote'"),
        (["clips", "BUNDLE", "--stride", "0"], 2, "stride 0: expected 1 or more"),
        (["clips", "BUNDLE", "--max-fps", "-1"], 2, "max-fps -1.0: expected 0 or more"),
        (["clips", "BUNDLE", "--top-k", "9"], 2, "top-k 9: expected 0 to 4"),
        (["-", "BUNDLE"], 2, "clip '-': expected files, folders or patterns"),
        (["rtsp://user:secret@host/live", "BUNDLE"], 2, "clip 'rtsp://***@host/live': expected files"),
        (["clips", "BUNDLE", "--output", "out.txt"], 2, "'out.txt': expected a name ending in .jsonl or .csv"),
        (["clips", "BUNDLE", "--output", "absent/out.csv"], 1, "the folder absent does not exist"),
        (["clips", "notes.csv", "BUNDLE", "--output", "notes.csv", "--force"], 2, "it is one of the clips"),
        (
            ["clips", "BUNDLE", "--output", "notes.csv"],
            1,
            "notes.csv: it exists already; name another file, or use --force",
        ),
        (["clips", "BUNDLE", "--output", "notes.csv", "--resume"], 2, "verdict 1 in it is none of 'edgevid classify'"),
        (["clips", "BUNDLE", "--output", "notes.csv", "--resume", "--force"], 2, "leave out --force"),
        (["clips", "BUNDLE", "--resume"], 2, "--resume: it goes on with an --output file"),
        (["clips", "BUNDLE", "--backend", "litert", "--variant", "onnx-int8"], 2, "onnx-int8"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, archive: Path, bundle_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (archive / "nothing").mkdir()
    Path("notes.csv").write_text("clip,remark\nred.mp4,nice\n")
    outcome = cli("classify", *(str(bundle_path) if word == "BUNDLE" else word for word in arguments))
    assert message in outcome.error
    assert outcome.status == status
    assert Path("notes.csv").read_text() == "clip,remark\nred.mp4,nice\n"


# Interrupted, and resumed.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_interrupted_goes_on(
    cli: Cli, clip: Path, bundle_path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    clips, output = tmp_path / "clips", tmp_path / "out.jsonl"
    clips.mkdir()
    for index in range(40):
        os.link(clip, clips / f"{index}.mp4")  # a link by name would be the same clip
    options = ["classify", str(clips), str(bundle_path), "--output", str(output), "--top-k", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgevid", *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not (output.exists() and output.read_bytes().count(b"\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in err
    assert number == signal.SIGKILL or b"the same command with --resume goes on" in err
    before = verdicts(output)
    assert 1 < len(before) < 40
    with output.open("ab") as file:  # as a kill, or a power cut, may leave it
        file.write(b'{"clip":"half a li')
    outcome = cli(*options, "--resume")
    assert outcome.status == 0, outcome.err
    assert f"{40 - len(before)} of 40 clips, {len(before)} were done before" in outcome.err
    assert len(outcome.out.splitlines()) == 41  # the table has them all
    after = verdicts(output)
    assert list(after) == [str(clips / f"{index}.mp4") for index in range(40)]
    assert {name: after[name] for name in before} == before
    known = ("clip", "modified")
    assert len({str({k: v for k, v in record.items() if k not in known}) for record in after.values()}) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_what_has_changed_or_failed_is_done_again(
    cli: Cli, archive: Path, three: Path, bundle_path: Path, suffix: str
) -> None:
    def run(*clips: str) -> tuple[Outcome, dict[str, dict[str, Any]]]:
        outcome = cli("classify", *clips, bundle_path, "--output", f"out{suffix}", "--resume")
        with Path(f"out{suffix}").open(newline="") as file:
            records = list(csv.DictReader(file)) if suffix == ".csv" else read_jsonl(file.read())
        return outcome, {record["clip"]: record for record in records}

    _, first = run("clips")
    with Path(f"out{suffix}").open("a") as file:
        file.write(Path(f"out{suffix}").read_text().splitlines()[-1][:50])  # half a line
    outcome, again = run("clips")
    assert "2 of 5 clips, 3 were done before" in outcome.err
    assert (outcome.status, again) == (1, first)  # what is damaged still is
    (archive / "empty.avi").unlink()
    shutil.copyfile(three / "green.mp4", archive / "damaged.mp4")  # as it should have been
    shutil.copyfile(three / "green.mp4", archive / "clip2.mp4")
    outcome, second = run("clips")
    assert outcome.status == 0, outcome.err
    assert "2 of 4 clips, 2 were done before" in outcome.err
    assert second.pop("clips/clip2.mp4")["label"] == second.pop("clips/damaged.mp4")["label"] == "green"
    assert first["clips/clip2.mp4"]["label"] == "red"
    assert second == {name: first[name] for name in ("clips/clip10.mp4", "clips/more/green.mp4", "clips/empty.avi")}
    _, third = run("clips/more")  # the others are kept, though not named this time
    assert len(third) == 5
    nothing_to_do = Path(f"out{suffix}").read_bytes()
    outcome, _ = run("clips")
    assert "0 of 4 clips, 4 were done before" in outcome.err
    assert Path(f"out{suffix}").read_bytes() == nothing_to_do
    other = cli("classify", "clips", bundle_path, "--output", f"out{suffix}", "--resume", "--pool", "max")
    assert other.status == 2
    assert "--pool mean --stride 1" in other.error
    assert Path(f"out{suffix}").read_bytes() == nothing_to_do
    assert cli("classify", "clips", bundle_path, "--output", f"out{suffix}", "--pool", "max", "--force").status == 0


# What comes from outside, on lines and in columns.

ODD_NAME, ODD_SHOWN = "tab\there\nand \x1b[31m.mp4", r"tab\there\nand \x1b[31m.mp4"


def test_the_table_has_a_line_a_clip_whatever_clips_and_labels_are_called(
    cli: Cli, three: Path, bundle_path: Path, tmp_path: Path
) -> None:
    shutil.copyfile(three / "red.mp4", tmp_path / ODD_NAME)
    (tmp_path / "broken\n.mp4").write_bytes(b"no video")
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "odd.edgevid"))
    relabel(bundle, {"red": "red\t\x1b]0;title\x07\u202e"})
    outcome = cli("classify", tmp_path / "*.mp4", "--bundle", bundle)
    rows = [line.split("\t") for line in outcome.out.split("\n")[:-1]]
    assert [len(row) for row in rows] == [6, 6, 6]
    assert rows[2][:2] == [f"{tmp_path}/{ODD_SHOWN}", r"red\t\x1b]0;title\x07\u202e"]
    assert rows[1][0] == rf"{tmp_path}/broken\n.mp4"
    outcome = cli("classify", tmp_path / "*.mp4", "--bundle", bundle, "--output", "-")
    assert read_jsonl(outcome.out)[1]["clip"] == f"{tmp_path}/{ODD_NAME}"
    assert read_jsonl(outcome.out)[1]["label"] == "red\t\x1b]0;title\x07\u202e"
    outcome = cli("run", bundle, "--source", tmp_path / ODD_NAME)
    assert outcome.status == 0
    assert ODD_SHOWN in outcome.out
    assert r"red\t\x1b]0;title\x07\u202e 0." in outcome.out
    outcome = cli("run", bundle, "--source", tmp_path / "broken\n.mp4")
    assert outcome.status == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(outcome.out + outcome.err)


def relabel(bundle: Path, names: dict[str, str]) -> None:
    """Give labels of a bundle other names."""
    labels, manifest = bundle / "labels.txt", bundle / "edgevid.json"
    before = labels.read_bytes()
    labels.write_text("".join(f"{names.get(name, name)}\n" for name in before.decode().splitlines()))
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, labels.read_bytes()))
    manifest.write_text(manifest.read_text().replace(old, new))

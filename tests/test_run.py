"""``edgevid run``, as a user types it."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from edgevid import backends
from tests.conftest import Outcome, read_jsonl, write_clip

Cli = Callable[..., Outcome]


def test_a_clip_becomes_predictions_and_annotated_video(
    cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path
) -> None:
    video, predictions = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    outcome = cli("run", bundle_path, "--source", clip, "--save", video, "--predictions", predictions, "--window", 5)
    assert outcome.status == 0
    records = read_jsonl(predictions.read_text())
    assert [record["frame"] for record in records] == list(range(60))
    assert records[8]["raw_label"] == "blue"  # the flicker in the clip
    assert [record["label"] for record in records[:20]] == ["red"] * 20  # is smoothed away
    assert [label for label, _ in itertools.groupby(record["label"] for record in records)] == ["red", "green", "blue"]
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60
    assert re.search(r"60 frames in [\d.]+ s, [\d.]+ frames per second", outcome.out)
    assert "label flips: raw 4 (120 a minute), smoothed 2 (60 a minute)" in outcome.out
    assert re.search(r"time per label: \w+ 0\.\d+ s", outcome.out)
    assert f"wrote {video}" in outcome.out
    assert "tflite-int8 on litert" in outcome.err


def test_window_1_classifies_every_frame_alone(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--window", 1, "--predictions", "-")
    assert "60 frames" in outcome.err  # the summary, out of the way of the predictions
    for record in read_jsonl(outcome.out):
        assert record["label"] == record["raw_label"]
        assert record["score"] == record["raw_score"]


def test_the_bundles_window_is_the_default(cli: Cli, bundle_path: Path, clip: Path) -> None:
    by_default = cli("run", bundle_path, "--source", clip, "--predictions", "-").out
    assert by_default == cli("run", bundle_path, "--source", clip, "--window", 8, "--predictions", "-").out
    assert by_default != cli("run", bundle_path, "--source", clip, "--window", 60, "--predictions", "-").out


@pytest.mark.parametrize("options", [["--workers", "1"], ["--workers", "2", "--threads", "1"], ["--threads", "2"]])
def test_labels_do_not_depend_on_threads(cli: Cli, bundle_path: Path, clip: Path, options: list[str]) -> None:
    expected = cli("run", bundle_path, "--source", clip, "--predictions", "-", "--workers", 1, "--threads", 1).out
    assert cli("run", bundle_path, "--source", clip, "--predictions", "-", *options).out == expected


@pytest.mark.parametrize("variant", ["tflite-fp32", "onnx-fp32", "onnx-int8", "tflite-int8-full"])
def test_variants_agree_on_the_labels(cli: Cli, bundle_path: Path, clip: Path, variant: str) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--variant", variant, "--predictions", "-", "--window", 1)
    labels = [record["label"] for record in read_jsonl(outcome.out)]
    assert labels == [*["red"] * 8, "blue", *["red"] * 11, *["green"] * 20, *["blue"] * 20]


def test_csv_stride_top_k_and_max_frames(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    outcome = cli(
        "run", bundle_path, "--source", clip, "--predictions", path, "--stride", 7, "--max-frames", 4, "--top-k", 2
    )
    assert outcome.status == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "7", "14", "21"]
    assert rows[0]["top"].startswith('[["red",')


def test_a_folder_of_images(cli: Cli, bundle_path: Path, images: Path) -> None:
    outcome = cli("run", bundle_path, "--source", images, "--window", 1, "--predictions", "-")
    labels = [record["label"] for record in read_jsonl(outcome.out)]
    assert labels == [label for label in ("red", "green", "blue", "grey") for _ in range(3)]


def test_the_null_backend_runs_the_whole_path(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--backend", "null", "--save", tmp_path / "out.mkv")
    assert outcome.status == 0
    assert "on null" in outcome.err


def test_quiet_says_nothing(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--quiet", "--predictions", "-")
    assert (outcome.status, outcome.err) == (0, "")
    assert len(read_jsonl(outcome.out)) == 60
    before_the_command = cli("--quiet", "run", bundle_path, "--source", clip)
    assert before_the_command.err == ""
    assert "60 frames" in before_the_command.out  # the result


def test_broken_frames_are_counted(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "broken.mp4", ["red", "green"] * 60, g="12")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 6000] = bytes(range(256)) * 23 + bytes(112)
    path.write_bytes(data)
    outcome = cli("run", bundle_path, "--source", path)
    assert outcome.status == 0
    assert re.search(r"broken frames passed over: [1-9]", outcome.out)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--source", "absent.mp4"], 1, "absent.mp4: no such file or folder; expected a video"),
        (["--camera", "63"], 1, "camera 63: it cannot be opened; "),
        ([], 2, "give one of --source FILE and --camera N"),
        (["--source", "rtsp://127.0.0.1:1/x", "--wait", "--save", "/absent/x.mp4"], 1, "/absent does not exist"),
        (["--source", "rtsp://127.0.0.1:1/x", "--wait", "--variant", "onnx-fp16"], 2, "onnx-fp16"),
        (["--source", "rtsp://127.0.0.1:1/x", "--wait", "--keep", "24h"], 2, "--keep: it deletes parts"),
        (["--camera", "abc"], 2, "camera 'abc': expected a number such as 0"),
        (["--camera", "CLIP"], 2, "for a file use --source"),
        (["--camera", "-1"], 2, "camera '-1': expected a number"),
        (["--camera", "99999999999999"], 2, "camera '99999999999999': expected a number"),
        (["--source", ""], 2, "source '': expected a video file"),
        (["--source", "gopher://host/clip.mp4"], 2, "source 'gopher://host/clip.mp4': expected one of http, https"),
        (["--source", "CLIP", "--camera", "0"], 2, "--source and --camera: give one of them"),
        (["--source", "CLIP", "--window", "0"], 2, "window '0': expected a whole number of predictions"),
        (["--source", "CLIP", "--window", "-3"], 2, "window '-3': expected a whole number of predictions"),
        (["--source", "CLIP", "--window", "many"], 2, "window 'many': expected a whole number of predictions"),
        (["--source", "CLIP", "--backend", "tflte"], 2, "'tflte' is not one of 'auto', 'litert', 'onnxruntime'"),
        (["--source", "CLIP", "--variant", "int8"], 2, "'int8' is not one of 'tflite-int8'"),
        (["--source", "CLIP", "--stride", "0"], 2, "stride 0: expected 1 or more"),
        (["--source", "CLIP", "--max-frames", "0"], 2, "max-frames 0: expected 1 or more"),
        (["--source", "CLIP", "--top-k", "5"], 2, "top-k 5: expected 0 to 4"),
        (["--source", "CLIP", "--threads", "-1"], 2, "threads -1: expected 1 to"),
        (["--source", "CLIP", "--workers", "-1"], 2, "workers -1: expected 1 or more"),
        (["--source", "CLIP", "--save", "out.gif"], 2, "expected a name ending in .mp4"),
        (["--source", "CLIP", "--predictions", "out.txt"], 2, "expected a name ending in .jsonl or .csv"),
        (["--source", "CLIP", "--save", "/absent/out.mp4"], 1, "the folder /absent does not exist"),
        (["--source", "CLIP", "--bogus"], 2, "No such option"),
        (["--source", "CLIP", "--show"], 1, "--show: this OpenCV opens no windows"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, bundle_path: Path, clip: Path, arguments: list[str], status: int, message: str
) -> None:
    outcome = cli("run", bundle_path, *(str(clip) if argument == "CLIP" else argument for argument in arguments))
    assert outcome.status == status
    assert message in outcome.error
    assert outcome.out == ""


def test_outputs_that_exist_are_kept(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    outcome = cli("run", bundle_path, "--source", clip, "--predictions", path)
    assert outcome.status == 1
    assert "exists already" in outcome.error
    assert path.read_text() == "precious"
    assert cli("run", bundle_path, "--source", clip, "--predictions", path, "--force").status == 0
    assert len(path.read_text().splitlines()) == 60


def test_what_is_read_is_never_written_over(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mp4"
    shutil.copyfile(clip, own)
    outcome = cli("run", bundle_path, "--source", own, "--save", own, "--force")
    assert outcome.status == 2
    assert "it is the source itself" in outcome.error
    assert own.read_bytes() == clip.read_bytes()
    outcome = cli(
        "run", bundle_path, "--source", own, "--save", tmp_path / "o.mp4", "--predictions", tmp_path / "o.mp4"
    )
    assert outcome.status == 2


@pytest.mark.parametrize("wrong", [["--stride", "0"], ["--max-frames", "0"], ["--predictions", "/absent/x.jsonl"]])
def test_a_run_that_cannot_begin_replaces_nothing(
    cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path, wrong: list[str]
) -> None:
    for name, option in (("keep.mp4", "--save"), ("keep.jsonl", "--predictions")):
        (tmp_path / name).write_text("precious")
        assert cli("run", bundle_path, "--source", clip, option, tmp_path / name, "--force", *wrong).status != 0
        assert (tmp_path / name).read_text() == "precious"


def test_a_reader_that_has_seen_enough_is_no_error(bundle_path: Path, clip: Path) -> None:
    command = f"{sys.executable} -m edgevid run {bundle_path} --source {clip} --predictions - | head -n 2"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert len(read_jsonl(done.stdout)) == 2
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # it may all have fitted into the pipe
    assert not [line for line in done.stderr.splitlines() if line.startswith("edgevid: ")]
    assert "Traceback" not in done.stderr


def test_letters_that_the_locale_lacks_do_not_stop_it(bundle_path: Path, clip: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["run", str(bundle_path), "--source", str(clip)], ["inspect", str(bundle_path)]):
        command = [sys.executable, "-m", "edgevid", *arguments]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr


def test_no_command_at_all_shows_the_help(cli: Cli) -> None:
    outcome = cli()
    assert outcome.status == 2
    assert "Commands:\n" in outcome.err


def test_a_clip_named_as_the_bundle_is_explained(cli: Cli, clip: Path) -> None:
    outcome = cli("run", clip)
    assert outcome.status == 2
    assert f"{clip} was read as BUNDLE" in outcome.error


def test_an_extra_that_is_not_installed_names_the_command(
    cli: Cli, bundle_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = dataclasses.replace(backends.BACKENDS["onnxruntime"], package="a_package_that_is_not_there")
    monkeypatch.setitem(backends.BACKENDS, "onnxruntime", entry)
    outcome = cli("run", bundle_path, "--source", clip, "--variant", "onnx-int8", "--backend", "onnxruntime")
    assert outcome.status == 1
    assert 'pip install "edgevid[onnx]"' in outcome.error


def test_debug_shows_the_traceback(cli: Cli, bundle_path: Path) -> None:
    outcome = cli("run", bundle_path, "--source", "absent.mp4", "--debug")
    assert outcome.status == 1
    assert "Traceback" in outcome.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_complete_files(
    bundle_path: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    clip = write_clip(tmp_path / "long.mp4", ["red", "blue"] * 50, height=360, width=640)
    looped = tmp_path / "clips"
    looped.mkdir()
    for index in range(40):
        shutil.copyfile(clip, looped / f"{index}.mp4")
    listing = tmp_path / "long.txt"
    listing.write_text("".join(f"file '{path}'\n" for path in sorted(looped.iterdir())))
    long_clip = tmp_path / "joined.mp4"
    _join(sorted(looped.iterdir()), long_clip)
    video, predictions = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(long_clip)]
    process = subprocess.Popen(
        [*command, "--save", str(video), "--predictions", str(predictions)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (predictions.exists() and predictions.stat().st_size > 10_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == status
    assert "Traceback" not in err
    records = read_jsonl(predictions.read_text())  # every line is whole
    assert 0 < len(records) < 4000
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(records)


def _join(clips: list[Path], output: Path) -> None:
    """Put clips behind one another without encoding them again."""
    with av.open(str(output), "w") as target:
        stream = None
        offset = 0
        for path in clips:
            with av.open(str(path)) as source:
                origin = source.streams.video[0]
                stream = stream or target.add_stream_from_template(origin)
                end = offset
                for packet in source.demux(origin):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + offset + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    target.mux(packet)
                offset = end


def test_a_part_of_a_file_is_classified_as_in_the_whole(cli: Cli, bundle_path: Path, clip: Path) -> None:
    def predicted(*options: object) -> list[dict[str, Any]]:
        outcome = cli("run", bundle_path, "--source", clip, "--window", 1, "--predictions", "-", *options)
        assert outcome.status == 0, outcome.err
        return read_jsonl(outcome.out)

    whole = predicted()
    assert predicted("--start", 0.5, "--end", 1.0) == [line for line in whole if 0.5 <= line["time"] < 1.0]
    assert len(predicted("--max-fps", 5)) == 10


def test_the_age_of_live_frames_is_told(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--realtime", "--max-fps", 10)
    assert outcome.status == 0, outcome.err
    found = re.search(r"age of a frame when its label came out: ([\d.]+) ms, p99 ([\d.]+) ms", outcome.out)
    assert found
    assert 0 < float(found[1]) <= float(found[2]) < 1000
    assert "age of a frame" not in cli("run", bundle_path, "--source", clip).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "3", "--end", "2"], "--start 3, --end 2: expected seconds from 0 up, the end after the start"),
        (["--max-fps", "-1"], "max-fps -1.0: expected 0 or more"),
        (["--batch", "4", "--realtime"], "--batch 4: a camera's frame would wait for others"),
        (["--workers", "2", "--realtime"], "--workers 2: a camera's frame is classified alone"),
    ],
)
def test_times_and_rates_that_cannot_be_meant(
    cli: Cli, bundle_path: Path, clip: Path, arguments: list[str], message: str
) -> None:
    outcome = cli("run", bundle_path, "--source", clip, *arguments)
    assert outcome.status == 2
    assert message in outcome.error


def test_the_command_alone_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-m", "edgevid", "run"], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "unexpected" not in done.stderr


def test_a_log_that_is_full_ends_nothing(bundle_path: Path, clip: Path) -> None:
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", str(clip), "--predictions", "-"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 0
    assert len(read_jsonl(done.stdout)) == 60

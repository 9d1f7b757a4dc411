"""``edgevid bench``: the report, and the statistics in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgevid.backends import available_cores
from edgevid.bundle import Bundle
from edgevid.measured import MeasuredRow, recall, remember
from edgevid_bench.machine import peak_rss_mb
from edgevid_bench.recommend import ranked, recommend
from tests.conftest import Outcome
from tests.reports import row

Cli = Callable[..., Outcome]
SHORT = ("--min-rounds", "2", "--max-rounds", "2", "--min-secs", "0.1", "--max-frames", "60", "--allow-disturbed")


def test_the_report_is_the_documented_one(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    outcome = cli(
        "bench", bundle_path, "--source", clip, "--variants", "tflite-int8,onnx-fp32", "--output", output, *SHORT
    )
    assert outcome.status == 0, outcome.err
    report = json.loads(output.read_text())
    assert set(report) >= {"machine", "bundle", "source", "method", "rows", "recommendation"}
    threads = range(1, min(available_cores(), 4) + 1)
    expected = {(b, v, t) for b, v in (("litert", "tflite-int8"), ("onnxruntime", "onnx-fp32")) for t in threads}
    assert {(each["backend"], each["variant"], each["threads"]) for each in report["rows"]} >= expected
    for each in report["rows"]:
        assert each["status"] == "ok"
        assert each["device"] == "cpu"
        for latency in (each["infer_ms"], each["label_ms"]):
            assert 0 < latency["p50"] <= (latency["p90"] or np.inf) <= (latency["p99"] or np.inf)
            assert latency["ci95"]["p50"][0] <= latency["p50"] <= latency["ci95"]["p50"][1]
            assert latency["count"] > 0
        assert each["label_ms"]["p50"] > each["infer_ms"]["p50"] * 0.9
        assert each["end_to_end_ci95"][0] <= each["end_to_end_fps"] <= each["end_to_end_ci95"][1]
        assert each["rounds"] == 2
        assert each["end_to_end_fps"] > 0
        assert 20 < each["peak_rss_mb"] < 1000
        assert each["load_ms"] > 0
        assert each["first_inference_ms"] > 0
        assert set(each["stage_cpu_ms"]) == {"decode", "preprocess", "infer", "smooth", "draw", "encode"}
        assert each["roofline_fps"] > 0
        assert each["efficiency"] > 0
        assert each["top1_agreement"] == each["smoothed_agreement"] == 1.0
        assert each["clip_smoothed_agreement"] == 1.0
    assert report["recommendation"]["sentence"] in outcome.out
    assert report["machine"]["cores"] == available_cores()
    assert "onnx-fp32" in outcome.out


def remembered(bundle_path: Path, *devices: str, **changes: object) -> None:
    """Remember one row of a bench on these devices."""
    row = MeasuredRow(
        backend="onnxruntime", device="cpu", variant="onnx-fp32", threads=1, end_to_end_fps=900.0, label_ms=1.0
    )
    remember(Bundle(bundle_path), devices, (msgspec.structs.replace(row, **changes),))


def test_run_goes_by_what_bench_measured_here(cli: Cli, bundle_path: Path, clip: Path) -> None:
    def chosen(*options: str) -> str:
        outcome = cli("run", bundle_path, "--source", clip, "--max-frames", 2, *options)
        assert outcome.status == 0, outcome.err
        return outcome.err

    assert "tflite-int8 on litert (cpu" in chosen()
    remembered(bundle_path, "cpu")
    assert "chose onnxruntime, cpu, onnx-fp32: the best that bench measured here, 900 frames per second" in chosen()
    for asked, ran in (("--variant", "tflite-fp32"), ("--backend", "litert")):
        told = chosen(asked, ran)
        assert ran in told
        assert "chose" not in told
    assert "chose litert, cpu, tflite-int8: no accelerator" in chosen("--device", "auto"), (
        "a bench of the CPU is no bench"
    )
    remembered(bundle_path, "cpu", "gpu")
    assert "chose onnxruntime, cpu, onnx-fp32" in chosen("--device", "auto")
    remembered(bundle_path, "cpu", "gpu", backend="openvino", device="gpu")  # a card that was taken out
    assert "chose litert, cpu, tflite-int8: no accelerator" in chosen("--device", "auto")


def test_a_rejected_variant_is_not_chosen_however_fast(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rejected.edgevid"
    shutil.copytree(bundle_path, folder)
    manifest = Bundle(folder).manifest
    variants = tuple(
        msgspec.structs.replace(each, rejected="loses too much") if each.id == "onnx-fp32" else each
        for each in manifest.variants
    )
    (folder / "edgevid.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, variants=variants)))
    remembered(folder, "cpu")
    assert "tflite-int8 on litert" in cli("run", folder, "--source", clip, "--max-frames", 2).err


@pytest.mark.slow
def test_only_a_full_bench_is_remembered(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two.edgevid"
    shutil.copytree(bundle_path, folder)
    manifest = Bundle(folder).manifest
    variants = tuple(each for each in manifest.variants if each.precision == "fp32")
    (folder / "edgevid.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, variants=variants)))
    quick: tuple[object, ...] = (
        "bench",
        folder,
        "--source",
        clip,
        "--min-rounds",
        1,
        "--max-rounds",
        1,
        "--min-secs",
        0.01,
    )
    quick += ("--max-frames", 5, "--allow-disturbed")
    assert cli(*quick, "--backends", "onnxruntime").status == 0
    assert recall(Bundle(folder)) is None
    assert cli(*quick).status == 0
    profile = recall(Bundle(folder))
    assert profile is not None
    rows = profile.best("cpu", live=False)
    assert {row.backend for row in rows} == {"litert", "onnxruntime", "openvino"}
    assert [row.end_to_end_fps for row in rows] == sorted((row.end_to_end_fps for row in rows), reverse=True)
    soonest = profile.best("cpu", live=True)
    assert soonest[0].label_ms == min(row.label_ms for row in rows)


def test_a_profile_of_other_versions_or_hardware_is_named_and_left_aside(
    cli: Cli, bundle_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(bundle_path, "cpu")
    run = ("run", bundle_path, "--source", clip, "--max-frames", 2)
    assert "chose onnxruntime" in cli(*run).err
    with monkeypatch.context() as changed:
        changed.setattr("edgevid.measured.version", lambda name: "99.1")
        outcome = cli(*run)
    assert "what bench measured is left aside: ai-edge-litert was" in outcome.err
    assert ", now 99.1" in outcome.err
    assert "tflite-int8 on litert" in outcome.err
    monkeypatch.setattr("edgevid.measured.cpu_model", lambda: "Cortex-A76")
    assert ", now Cortex-A76; run 'edgevid bench' again" in cli(*run).err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_complete_files_of_what_was_measured(
    bundle_path: Path, clip: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    outputs = [tmp_path / "report.json", tmp_path / "report.html"]
    options = ["--backends", "litert", "--devices", "cpu", "--variants", "tflite-int8,tflite-fp32", "--threads", "1"]
    options += ["--min-rounds", "500", "--max-rounds", "500", "--min-secs", "50", "--allow-disturbed"]
    options += [argument for path in outputs for argument in ("--output", str(path))]
    command = [sys.executable, "-m", "edgevid", "bench", str(bundle_path), "--source", str(clip), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        time.sleep(20)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to the process that measures, too
        else:
            process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == status, out
    assert "interrupted" in out
    report = json.loads(outputs[0].read_text())
    assert report["method"]["complete"] is False
    assert all(1 <= row["rounds"] < 500 for row in report["rows"])
    assert "not complete" in outputs[1].read_text()


def test_a_device_in_software_is_not_recommended() -> None:
    emulated = msgspec.structs.replace(row("tflite-fp32", 900, 1.0), emulated=True)
    best = recommend([emulated, row("tflite-int8", 100, 1.0)], max_drop=0.02)
    assert best is not None
    assert best.variant == "tflite-int8"


def test_a_named_device_that_ran_nothing_fails_the_gate(cli: Cli, bundle_path: Path, clip: Path) -> None:
    options = ["--backends", "openvino", "--devices", "cpu,gpu", "--variants", "onnx-fp32", "--threads", 1]
    outcome = cli("bench", bundle_path, "--source", clip, *options, *SHORT)
    assert outcome.status == 3
    assert "openvino gpu onnx-fp32 cannot run: device 'gpu': OpenVINO finds only CPU" in outcome.error


def test_a_row_that_cannot_run_says_why(
    cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from edgevid import backends

    entry = dataclasses.replace(backends.BACKENDS["onnxruntime"], package="a_package_that_is_not_there")
    monkeypatch.setitem(backends.BACKENDS, "onnxruntime", entry)
    output = tmp_path / "report.json"
    arguments = ["--source", clip, "--variants", "onnx-int8", "--threads", 1, "--output", output, *SHORT]
    outcome = cli("bench", bundle_path, "--backends", "onnxruntime", *arguments)
    assert outcome.status == 3
    assert "onnxruntime cpu onnx-int8 cannot run: " in outcome.error
    assert 'pip install "edgevid[onnx]"' in outcome.error
    (row,) = json.loads(output.read_text())["rows"]
    assert row["status"] == "unavailable"
    assert row["infer_ms"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--backends", "tflte"], 2, "backend 'tflte': expected some of litert, onnxruntime"),
        (["--variants", "int8"], 2, "variant 'int8': colors.edgevid has tflite-int8"),
        (["--threads", "0"], 2, "--threads '0': expected whole numbers from 1 up"),
        (["--threads", "two"], 2, "--threads 'two': expected whole numbers from 1 up"),
        (["--backends", "litert", "--variants", "onnx-int8"], 2, "nothing to measure: litert reads none of onnx-int8"),
        (["--min-rounds", "0"], 2, "Invalid value for '--min-rounds'"),
        (["--max-rounds", "2"], 2, "--max-rounds 2: expected --min-rounds, 3, or more"),
        (["--duration", "10"], 2, "--duration '10': expected a time such as 90s, 10m or 1h"),
        (
            ["--output", "report.pdf"],
            2,
            "--output report.pdf: expected a file name that ends in .json, .html, .md, .csv",
        ),
        (["--min-secs", "0"], 2, "Invalid value for '--min-secs'"),
        (
            ["--devices", "edgetpu", "--variants", "tflite-int8-full"],
            3,
            "nothing that was asked for can run here: litert",
        ),
        (["--baseline", "/dev/null"], 2, "expected a report of 'edgevid bench --output report.json'"),
        (["--source", "absent.mp4"], 1, "absent.mp4: no such file or folder"),
        (["--source", "rtsp://u:p@host/x"], 2, "source 'rtsp://***@host/x': expected a file here"),
        (["--output", "/absent/report.json"], 1, "the folder /absent does not exist"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, bundle_path: Path, arguments: list[str], status: int, message: str) -> None:
    outcome = cli("bench", bundle_path, *arguments)
    assert outcome.status == status
    assert message in outcome.error


def test_the_recommendation_is_the_fastest_that_keeps_the_labels() -> None:
    rows = [row("tflite-int8", 400, 0.94), row("onnx-int8", 300, 0.985), row("tflite-fp32", 200, 1.0)]
    best = recommend(rows, max_drop=0.02)
    assert best is not None
    assert best.variant == "onnx-int8"
    assert (
        "onnx-int8 · 1 thread: 300 ± 1.0 frames per second end to end, 98.5% of Keras' smoothed labels" in best.sentence
    )
    assert "tflite-int8 · 1 thread does 400, but it keeps only 94.0%" in best.sentence
    loose = recommend(rows, max_drop=0.1)
    assert loose is not None
    assert loose.variant == "tflite-int8"
    assert "nothing faster keeps within 10%" in loose.sentence
    assert recommend([row("tflite-int8", 400, None)], 0.02) is None
    once = recommend([row("tflite-int8", 400, 1.0, end_to_end_ci95=None)], 0.02)
    assert once is not None
    assert "400 frames per second end to end (measured once), 100.0%" in once.sentence
    assert recommend([msgspec.structs.replace(rows[0], status="failed")], 1.0) is None


def test_labels_lost_on_the_clip_count_like_those_lost_at_conversion() -> None:
    rows = [row("tflite-int8", 400, 1.0, clip_smoothed_agreement=0.9), row("tflite-fp32", 200, 1.0)]
    best = recommend(rows, max_drop=0.02)
    assert best is not None
    assert best.variant == "tflite-fp32"
    assert "does 400, but it keeps only 90.0%" in best.sentence


def test_a_disturbed_row_has_no_rank_and_is_not_recommended() -> None:
    disturbed = row("tflite-int8", 400, 1.0, disturbed=("the processor throttled 3 times",))
    rows = ranked([disturbed, row("tflite-fp32", 200, 1.0)])
    assert [each.rank for each in rows] == [1, None]
    best = recommend(rows, max_drop=0.02)
    assert best is not None
    assert best.variant == "tflite-fp32"


def test_rows_that_cannot_be_told_apart_share_a_rank_and_are_named() -> None:
    rows = ranked([row("tflite-int8", 400, 1.0, 9), row("onnx-int8", 390, 1.0, 9), row("tflite-fp32", 200, 1.0, 9)])
    assert [each.rank for each in rows] == [1, 1, 3]
    best = recommend(rows, max_drop=0.02)
    assert best is not None
    assert best.sentence.endswith("not told apart from it: litert · cpu · onnx-int8 · 1 thread")


def test_peak_memory_is_this_process() -> None:
    before = peak_rss_mb()
    block = np.ones(40_000_000, np.uint8)
    assert peak_rss_mb() >= max(before, block.nbytes / 1e6)


def test_variants_of_two_bundles_are_timed_beside_each_other(
    bundle_path: Path, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevid_bench.studies import beside

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["beside", *map(str, arguments)])
        beside.main()
        return capsys.readouterr().out

    options = ("--source", clip, "--rounds", 3, "--turns", 10)
    lines = run(bundle_path, bundle_path, *options).splitlines()
    assert [line.split()[0] for line in lines] == ["tflite-int8", "onnx-int8"]
    for line in lines:
        assert re.search(r"[\d.]+ ms, [\d.]+ ms; ratio [\d.]+ \(from [\d.]+ to [\d.]+, 3 rounds of 10 turns\)", line)
    with pytest.raises(SystemExit, match=r"edgevid: .*absent.edgevid"):
        run(bundle_path, bundle_path.with_name("absent.edgevid"), *options)

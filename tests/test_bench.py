"""``edgevid bench``: the report, and the statistics in it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgevid.backends import available_cores
from edgevid.bundle import Bundle
from edgevid.measured import MeasuredRow, measured_rows, remember
from edgevid_bench.machine import peak_rss_mb
from edgevid_bench.measure import median_interval
from edgevid_bench.report import InferMs, Row, recommend
from tests.conftest import Outcome

Cli = Callable[..., Outcome]
SHORT = ("--rounds", "2", "--seconds", "0.05", "--max-frames", "30")


def test_the_report_is_the_documented_one(cli: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    outcome = cli(
        "bench", bundle_path, "--source", clip, "--variants", "tflite-int8,onnx-fp32", "--output", output, *SHORT
    )
    assert outcome.status == 0, outcome.err
    report = json.loads(output.read_text())
    assert set(report) == {"machine", "bundle", "source", "method", "rows", "recommendation"}
    threads = range(1, min(available_cores(), 4) + 1)
    expected = {(b, v, t) for b, v in (("litert", "tflite-int8"), ("onnxruntime", "onnx-fp32")) for t in threads}
    assert {(row["backend"], row["variant"], row["threads"]) for row in report["rows"]} >= expected
    for row in report["rows"]:
        assert row["status"] == "ok"
        assert row["device"] == "cpu"
        latency = row["infer_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
        assert latency["ci95"][0] <= latency["p50"] <= latency["ci95"][1]
        assert row["end_to_end_fps"] > 0
        assert 20 < row["peak_rss_mb"] < 1000
        assert row["load_ms"] > 0
        assert row["first_inference_ms"] > 0
        assert set(row["stage_cpu_ms"]) == {"decode", "preprocess", "infer", "smooth", "draw", "encode"}
        assert row["roofline_fps"] > 0
        assert row["efficiency"] == pytest.approx(row["end_to_end_fps"] / row["roofline_fps"])
        assert row["top1_agreement"] == row["smoothed_agreement"] == 1.0
    assert report["recommendation"]["sentence"] in outcome.out
    assert report["machine"]["cores"] == available_cores()
    assert "onnx-fp32" in outcome.out


def remembered(bundle_path: Path, *devices: str, **changes: object) -> None:
    """Remember one row of a bench on these devices."""
    row = MeasuredRow(
        backend="onnxruntime", device="cpu", variant="onnx-fp32", threads=1, end_to_end_fps=900.0, infer_ms=1.0
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
    quick = ("bench", folder, "--source", clip, "--rounds", 1, "--seconds", 0.01, "--max-frames", 5)
    assert cli(*quick, "--backends", "onnxruntime").status == 0
    assert measured_rows(Bundle(folder), "cpu", live=False) == ()
    assert cli(*quick).status == 0
    rows = measured_rows(Bundle(folder), "cpu", live=False)
    assert {row.backend for row in rows} == {"litert", "onnxruntime", "openvino"}
    assert [row.end_to_end_fps for row in rows] == sorted((row.end_to_end_fps for row in rows), reverse=True)
    soonest = measured_rows(Bundle(folder), "cpu", live=True)
    assert soonest[0].infer_ms == min(row.infer_ms for row in rows)


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
        (["--rounds", "0"], 2, "Invalid value for '--rounds'"),
        (["--source", "absent.mp4"], 1, "absent.mp4: no such file or folder"),
        (["--output", "/absent/report.json"], 1, "the folder /absent does not exist"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, bundle_path: Path, arguments: list[str], status: int, message: str) -> None:
    outcome = cli("bench", bundle_path, *arguments)
    assert outcome.status == status
    assert message in outcome.error


def row(variant: str, fps: float, agreement: float | None) -> Row:
    return Row(
        backend="litert",
        device="cpu",
        variant=variant,
        threads=1,
        status="ok",
        infer_ms=InferMs(1, 1, 1, (1, 1)),
        end_to_end_fps=fps,
        file_bytes=1,
        smoothed_agreement=agreement,
    )


def test_the_recommendation_is_the_fastest_that_keeps_the_labels() -> None:
    rows = [row("tflite-int8", 400, 0.94), row("onnx-int8", 300, 0.985), row("tflite-fp32", 200, 1.0)]
    best = recommend(rows, max_drop=0.02)
    assert best is not None
    assert best.variant == "onnx-int8"
    assert "tflite-int8 does 400, but keeps only 94.0%" in best.sentence
    loose = recommend(rows, max_drop=0.1)
    assert loose is not None
    assert loose.variant == "tflite-int8"
    assert "but" not in loose.sentence
    assert recommend([row("tflite-int8", 400, None)], 0.02) is None
    assert recommend([msgspec.structs.replace(rows[0], status="failed")], 1.0) is None


def test_the_interval_of_the_median_covers_it() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        low, high = median_interval([generator.exponential(1.0, 400) for _ in range(2)])
        covered += low <= np.log(2) <= high
    assert covered >= 34


def test_peak_memory_is_this_process() -> None:
    before = peak_rss_mb()
    block = np.ones(40_000_000, np.uint8)
    assert peak_rss_mb() >= max(before, block.nbytes / 1e6)


def test_variants_of_two_bundles_are_timed_beside_each_other(
    bundle_path: Path, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevid_bench import beside

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

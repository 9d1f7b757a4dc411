"""The report in every format: what it says, and the page as a browser shows it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgevid_bench.output.charts import pareto_front
from edgevid_bench.output.writers import WRITERS, write_report
from edgevid_bench.report import Conditions, Minute, Report, Sustained, read_report
from tests.conftest import Outcome
from tests.reports import report, row

STATE = Conditions(load=1.9, temperature_c=68.0)
ROWS = (
    row("tflite-int8", 400.0, 0.99, energy_mj=21.5, watts=8.6, meter="VDD_IN", temperature_c=60.0),
    row("onnx-int8", 396.0, 0.985, half=8.0, backend="onnxruntime"),
    row("tflite-fp32", 200.0, 1.0, threads=2),
    row("tflite-fp16", 210.0, 0.9, disturbed=("other programs used 30% of the processor",)),
    msgspec.structs.replace(
        row("onnx-fp32", 1.0, 1.0), status="failed", reason="<script>alert(1)</script>", infer_ms=None
    ),
)
LONG = Sustained(
    row="litert cpu tflite-int8 × 1",
    minutes=tuple(Minute(until_s=60.0 * n, end_to_end_fps=400.0 - 30 * n, conditions=STATE) for n in (1, 2, 3)),
    kept=0.84,
)
REPORT = report(*ROWS, sustained=LONG)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Write a report in the format of a suffix; return what is in the file."""

    def write(suffix: str, made: Report = REPORT) -> str:
        write_report(made, tmp_path / f"report{suffix}")
        return (tmp_path / f"report{suffix}").read_text(encoding="utf-8")

    return write


def test_json_is_read_again_as_it_was(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == REPORT


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_the_choice_the_reasons_and_the_method_are_there(written: Callable[..., str], suffix: str) -> None:
    text = written(suffix)
    for told in (
        "litert · cpu · tflite-int8 · 1 thread: 400 ± 1.0 frames per second end to end",
        "not told apart from it: onnxruntime · cpu · onnx-int8 · 1 thread",
        "edgevid run flowers.edgevid --backend litert --device cpu --variant tflite-int8 --threads 1 --source CLIP",
        "not valid, other programs used 30% of the processor",
        "litert gpu: LiteRT finds no GPU",
        "edgevid bench flowers.edgevid --output report.json",
        "Cortex-A76",
        "randomized block design",
        "mJ a frame",
    ):
        assert told in text, told
    assert "accuracy" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL), "no row has one"


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_accelerators_go_by_their_names(written: Callable[..., str], suffix: str) -> None:
    rows = [row(variant, 40.0, 1.0, device="gpu", hardware="NVIDIA Orin") for variant in ("tflite-fp16", "tflite-fp32")]
    assert written(suffix, report(*rows)).count("gpu: NVIDIA Orin") == 1
    emulated = row("tflite-fp16", 4.0, 1.0, device="gpu", hardware="SwiftShader", emulated=True)
    assert "gpu: SwiftShader (emulated on the CPU)" in written(suffix, report(emulated))


def test_what_was_interrupted_says_so(written: Callable[..., str]) -> None:
    stopped = msgspec.structs.replace(REPORT, method=msgspec.structs.replace(REPORT.method, complete=False))
    assert "not complete" in written(".html", stopped)
    assert "not complete" in written(".md", stopped)
    assert json.loads(written(".json", stopped))["method"]["complete"] is False


def test_where_nothing_keeps_the_labels_that_is_what_is_said(written: Callable[..., str]) -> None:
    nothing = report(row("tflite-int8", 400.0, 0.9), row("tflite-fp32", 200.0, None))
    assert "Nothing to recommend" in written(".html", nothing)
    assert "no row is known to keep the Keras model's labels" in written(".md", nothing)
    noisy = report(row("tflite-int8", 400.0, 1.0, disturbed=("noise",)))
    assert "every row was disturbed" in written(".html", noisy)


def test_a_spreadsheet_has_numbers_and_reasons(written: Callable[..., str]) -> None:
    rows = list(csv.DictReader(written(".csv").splitlines()))
    assert [each["status"] for each in rows] == ["ok", "ok", "ok", "disturbed", "failed"]
    assert float(rows[0]["end-to-end fps"]) == 400
    assert float(rows[0]["mJ a frame"]) == 21.5
    assert rows[1]["mJ a frame"] == ""
    assert rows[4]["reason"] == "<script>alert(1)</script>"
    assert rows[4]["end-to-end fps"] == ""


def test_the_page_needs_nothing_else(written: Callable[..., str]) -> None:
    page = written(".html")
    assert "<script" not in page, "not even the one in a reason"
    assert re.findall(r"https?://|@import|url\(|<link rel=.stylesheet|src=", page) == []


def test_the_front_holds_what_no_other_row_beats_in_both() -> None:
    beaten = row("tflite-fp16", 150.0, 0.995)
    assert [each.variant for each in pareto_front([*ROWS[:3], beaten])] == ["tflite-int8", "tflite-fp32"]


def test_a_full_disk_leaves_no_half_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.write_text("the old one")

    def full(self: Path, *arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(REPORT, target)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert target.read_text() == "the old one"


def chromium(page: Path, *options: str) -> tuple[str, str]:
    """Open a page in headless Chromium; return what it writes on stdout, and on its console."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return shown.stdout, "\n".join(line for line in shown.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("made", [REPORT, report(row("tflite-int8", 400.0, None))], ids=["full", "one row"])
def test_a_browser_shows_the_page_without_a_complaint(tmp_path: Path, width: int, made: Report) -> None:
    path = tmp_path / "report.html"
    write_report(made, path)
    # A script of the test's own tells how wide the page came out.
    measure = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    path.write_text(path.read_text().replace("</body>", measure))
    shown, complaints = chromium(path, f"--window-size={width},900", "--dump-dom")
    assert complaints == ""
    found = re.search(r"<title>(\d+) of (\d+)</title>", shown)
    assert found
    assert int(found[1]) <= int(found[2]), "wider than the window"
    assert int(found[2]) <= width


@pytest.mark.needs_chromium
def test_the_page_prints(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path / "report.html")
    chromium(tmp_path / "report.html", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) in (1, 2, 3)


def older(cli_report: Path, factor: float, **machine: object) -> Path:
    """Write a report like another, whose rows were faster by a factor."""
    made = read_report(cli_report)
    rows = tuple(
        msgspec.structs.replace(
            each,
            end_to_end_fps=(each.end_to_end_fps or 0.0) * factor,
            end_to_end_ci95=tuple(bound * factor for bound in each.end_to_end_ci95 or ()),
        )
        for each in made.rows
    )
    path = cli_report.with_name("older.json")
    path.write_bytes(
        msgspec.json.encode(
            msgspec.structs.replace(made, rows=rows, machine=msgspec.structs.replace(made.machine, **machine))
        )
    )
    return path


def test_a_row_that_got_slower_fails_and_one_within_the_noise_does_not(
    cli: Callable[..., Outcome], bundle_path: Path, clip: Path, tmp_path: Path
) -> None:
    options = ["--source", clip, "--backends", "litert", "--variants", "tflite-int8", "--threads", 1]
    options += ["--min-rounds", 2, "--max-rounds", 2, "--min-secs", 0.2, "--max-frames", 60, "--allow-disturbed"]
    bench = ["bench", bundle_path, *options]
    first = tmp_path / "report.json"
    assert cli(*bench, "--output", first).status == 0

    slower = cli(*bench, "--baseline", older(first, 1000.0))
    assert slower.status == 3
    assert re.search(r"slower than 0.9 of the baseline: litert · cpu · tflite-int8 · 1 thread × 0.00", slower.error)

    faster = cli(*bench, "--baseline", older(first, 0.001))
    assert faster.status == 0, faster.err
    assert "against the baseline: litert · cpu · tflite-int8 · 1 thread × " in faster.out

    made = read_report(first)
    assert made.machine.calibration_ms
    slow_machine = older(first, 0.001, cpu="486", calibration_ms=made.machine.calibration_ms * 1e6)
    elsewhere = cli(*bench, "--baseline", slow_machine)
    assert elsewhere.status == 3, "a machine so slow promised a thousand times as much"

    other = cli(*bench[:-1], "--baseline", first, "--max-frames", 61)
    assert other.status == 2
    assert "the baseline and this bench cannot be compared: --max-frames is not the same" in other.error


def test_every_format_has_a_writer() -> None:
    assert set(WRITERS) == {".json", ".html", ".md", ".csv"}

"""``edgevid compare``: which machines meet a need, from their reports."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgevid_bench.output.writers import write_report
from edgevid_bench.report import Report
from tests.conftest import Outcome
from tests.reports import report, row

Cli = Callable[..., Outcome]
PI5 = report(row("tflite-int8", 41.0, 0.99, half=3.0), row("tflite-fp32", 15.0, 1.0), cpu="Cortex-A76")
N100 = report(
    row("tflite-int8", 120.0, 0.9),
    row("onnx-int8", 100.0, 0.99, half=2.0, backend="openvino", energy_mj=80.0, watts=8.0, meter="RAPL package"),
    cpu="Intel N100",
)
OLD = report(row("tflite-int8", 12.0, 0.99), cpu="Cortex-A53")


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Write reports into the current folder; return the names of their files."""
    monkeypatch.chdir(tmp_path)

    def write(**named: Report) -> list[str]:
        for name, each in named.items():
            write_report(each, Path(f"{name}.json"))
        return [f"{name}.json" for name in named]

    return write


def test_the_machines_that_are_fast_enough_come_first(cli: Cli, reports: Callable[..., list[str]]) -> None:
    files = reports(old=OLD, pi5=PI5, n100=N100)
    outcome = cli("compare", *files, "--need-fps", 30, "--price", "pi5=80", "--price", "n100=160")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["n100", "pi5", "old"]
    assert "openvino · cpu · onnx-int8" in lines[1], "the fastest that keeps the labels, not the fastest"
    assert "× 3.2" in lines[1]  # the lower end of the interval across benches, 96, over the need
    assert "12.5" in lines[1]  # frames a joule
    assert "0.44" in lines[2]  # frames per second, the lower end, over the price
    assert "2 of 3 reach 30 frames per second: n100 with openvino" in outcome.out
    assert "not enough: old with litert" in outcome.out


def test_enough_is_what_the_lower_end_of_the_interval_reaches(cli: Cli, reports: Callable[..., list[str]]) -> None:
    assert "1 of 1 reach 34 frames" in cli("compare", *reports(pi5=PI5), "--need-fps", 34).out
    outcome = cli("compare", *reports(pi5=PI5), "--need-fps", 36, "--force")
    assert "0 of 1 reach 36 frames per second; not enough: pi5" in outcome.out


def test_what_may_be_lost_can_be_said_again(cli: Cli, reports: Callable[..., list[str]]) -> None:
    files = reports(n100=N100)
    assert "tflite-int8" in cli("compare", *files, "--max-drop", 0.2).out
    strict = cli("compare", *files, "--max-drop", 0.001)
    assert strict.status == 0
    assert (
        "0 of 1 can run the model; not enough: n100, where no row is known to keep the Keras model's labels"
        in strict.out
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report(row("tflite-int8", 9, 1.0), model="d" * 64), "a and b cannot be compared: the model is not the same"),
        (report(row("tflite-int8", 9, 1.0), clip="d" * 64), "a and b cannot be compared: the clip is not the same"),
        (
            msgspec.structs.replace(PI5, method=msgspec.structs.replace(PI5.method, video=True)),
            "a and b cannot be compared: --video is not the same",
        ),
    ],
)
def test_what_is_not_the_same_is_refused(
    cli: Cli, reports: Callable[..., list[str]], other: Report, message: str
) -> None:
    outcome = cli("compare", *reports(a=PI5, b=other))
    assert outcome.status == 2
    assert message in outcome.error


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--price", "pi4=80"], 2, "--price pi4: expected one of pi5"),
        (["--price", "pi5"], 2, "--price 'pi5': expected a machine and what it costs, once each, such as pi5=80"),
        (["--price", "pi5=-1"], 2, "--price 'pi5=-1': expected"),
        (["--price", "pi5=nan"], 2, "--price 'pi5=nan': expected"),
        (["--price", "pi5=80", "--price", "pi5=90"], 2, "--price 'pi5=90': expected a machine and what it costs, once"),
        (["--output", "choice.pdf"], 2, "--output choice.pdf: expected a file name that ends in .html, .md, .csv"),
        (["absent.json"], 1, "absent.json: No such file"),
        (["pi5.json"], 2, "two reports have one file name"),
        (["damaged.json"], 2, "damaged.json: "),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, reports: Callable[..., list[str]], options: list[str], status: int, message: str
) -> None:
    Path("damaged.json").write_text('{"rows": []}')
    outcome = cli("compare", *reports(pi5=PI5), *options)
    assert outcome.status == status
    assert message in outcome.error


def test_a_page_a_table_and_a_spreadsheet(cli: Cli, reports: Callable[..., list[str]]) -> None:
    files = reports(pi5=PI5, n100=N100)
    outputs = [argument for name in ("c.html", "c.md", "c.csv") for argument in ("--output", name)]
    outcome = cli("compare", *files, "--need-fps", 30, *outputs)
    assert outcome.status == 0, outcome.err
    page = Path("c.html").read_text()
    assert "2 of 2 reach 30 frames per second" in page
    assert "Raspberry Pi 5 Model B" in page
    assert "| machine |" in Path("c.md").read_text()
    rows = list(csv.DictReader(Path("c.csv").read_text().splitlines()))
    assert [each["machine"] for each in rows] == ["n100", "pi5"]
    assert rows[0]["fps"] == "100"
    again = cli("compare", *files, "--output", "c.md")
    assert again.status == 1
    assert "c.md: it exists already" in again.error


def test_what_makes_it_unfair_is_said(cli: Cli, reports: Callable[..., list[str]]) -> None:
    other = msgspec.structs.replace(
        N100,
        bundle=msgspec.structs.replace(N100.bundle, manifest_sha256="e" * 64),
        method=msgspec.structs.replace(N100.method, complete=False, allow_disturbed=True),
    )
    told = cli("compare", *reports(pi5=PI5, n100=other)).out
    assert "different conversions of the model" in told
    assert "n100: the bench was interrupted" in told
    assert "n100: other programs may have run beside the bench" in told

"""How the rows are measured: in rounds, again where something disturbed them, on until they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgevid.backends.proof import Proof
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, GateError, UsageError
from edgevid_bench import measure, sustained
from edgevid_bench.baseline import changes, check_baseline
from edgevid_bench.candidates import Candidate
from edgevid_bench.measure import measure_rounds, request_for, run_bench
from edgevid_bench.options import BenchOptions
from edgevid_bench.report import Report
from edgevid_bench.trials import Trials, build_rows
from edgevid_bench.worker import Measured, Request, check_as_asked
from tests.reports import report, row

OPTIONS = BenchOptions(source="clip.mp4", min_rounds=3, max_rounds=9, min_secs=3.0)
GENERATOR = np.random.default_rng(1)


@pytest.fixture
def rows(bundle_path: Path) -> list[Candidate]:
    """Four rows of the tests' bundle, whose variants all keep the labels."""
    bundle = Bundle(bundle_path)
    return [
        Candidate("litert", "cpu", bundle.variant(name), threads)
        for name in ("tflite-int8", "tflite-fp32")
        for threads in (1, 2)
    ]


def measured(fps: float = 100.0, **changes: object) -> Measured:
    """Return what a process might have measured."""
    latencies = GENERATOR.normal(10, 1, 40).tolist()
    values = {
        "device": "cpu",
        "end_to_end_fps": fps * float(np.exp(GENERATOR.normal(0, 0.02))),
        "infer_ms": latencies,
        "label_ms": latencies,
        "raw_labels": ["red"] * 60,
        "smoothed_labels": ["red"] * 60,
        "calibration_ms": 3.0,
    }
    return msgspec.convert({**values, **changes}, Measured)


def rounds(
    rows: list[Candidate], one: Callable[[Candidate, int], Measured]
) -> tuple[dict[Candidate, Trials], list[str]]:
    """Measure rows by a function; return what was noted, and what was measured in which order."""
    trials, order = {each: Trials() for each in rows}, list[str]()

    def note(each: Candidate, number: int) -> Measured:
        order.append(f"{number} {each}")
        return one(each, number)

    measure_rounds(trials, OPTIONS, note, lambda what, done, total: None)
    return trials, order


def test_each_round_has_every_row_in_an_order_of_its_own(rows: list[Candidate]) -> None:
    _, order = rounds(rows, lambda each, number: measured(100 / each.threads**3))
    by_round = [[text[2:] for text in order if text.startswith(f"{number} ")] for number in range(3)]
    assert all(sorted(names) == sorted(map(str, rows)) for names in by_round)
    assert len(set(map(tuple, by_round))) > 1


def test_only_those_that_may_be_the_fastest_go_on(rows: list[Candidate]) -> None:
    speeds = dict(zip(rows, (100.0, 99.9, 40.0, 10.0), strict=True))
    trials, _ = rounds(rows, lambda each, number: measured(speeds[each]))
    assert [len(trials[each].undisturbed) for each in rows[2:]] == [3, 3]
    assert len(trials[rows[0]].undisturbed) == len(trials[rows[1]].undisturbed) > 3


def test_a_row_that_fails_is_not_tried_again(rows: list[Candidate]) -> None:
    trials, order = rounds(rows, lambda each, number: Measured(error="no") if each == rows[0] else measured())
    assert sum(str(rows[0]) in text for text in order) == 1
    (failed, *_) = build_rows(rows, trials, OPTIONS)
    assert (failed.status, failed.reason) == ("failed", "no")


def test_what_was_disturbed_is_measured_again_at_the_end_of_the_round(rows: list[Candidate]) -> None:
    bursts = iter(["the processor throttled 2 times"])

    def one(each: Candidate, number: int) -> Measured:
        noise = next(bursts, "") if each == rows[0] else ""
        return measured(50.0 if noise else 100.0, disturbances=[noise] if noise else [])

    trials, order = rounds(rows, one)
    assert order[4] == f"0 {rows[0]}"
    first = build_rows(rows, trials, OPTIONS)[0]
    assert first.valid
    assert first.repeated == 1
    assert first.end_to_end_fps == pytest.approx(100, rel=0.05), "what was disturbed does not count"


def test_a_row_that_is_always_disturbed_is_not_valid_and_does_not_blur_the_others(rows: list[Candidate]) -> None:
    def one(each: Candidate, number: int) -> Measured:
        if each == rows[0]:
            return measured(100.0 / (1 + number), disturbances=["the hypervisor took 30% of the processor"])
        return measured(100.0 / each.threads)

    trials, _ = rounds(rows, one)
    disturbed, *others = build_rows(rows, trials, OPTIONS)
    assert disturbed.disturbed == ("the hypervisor took 30% of the processor",)
    assert not disturbed.valid
    for each in others:
        assert each.valid
        assert each.end_to_end_ci95
        assert each.end_to_end_ci95[1] < 1.1 * each.end_to_end_ci95[0]


def test_a_short_burst_costs_a_row_rounds_and_not_its_validity(rows: list[Candidate]) -> None:
    def one(each: Candidate, number: int) -> Measured:
        return measured(disturbances=["noise"] if number == 0 and each == rows[3] else [])

    trials, _ = rounds(rows, one)
    assert build_rows(rows, trials, OPTIONS)[3].valid


def test_labels_are_compared_with_the_fp32_variant_on_the_clip(rows: list[Candidate]) -> None:
    labels = {"int8": ["red"] * 54 + ["blue"] * 6, "fp32": ["red"] * 60}
    trials, _ = rounds(rows, lambda each, number: measured(smoothed_labels=labels[each.variant.precision]))
    shares = [each.clip_smoothed_agreement for each in build_rows(rows, trials, OPTIONS)]
    assert shares == pytest.approx([0.9, 0.9, 1.0, 1.0])


@pytest.fixture
def bench(bundle_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Run a bench of two rows whose measurements are made up."""

    def run(one: Callable[[Request], Measured], **changes: object) -> Report:
        monkeypatch.setattr(measure, "in_own_process", one)
        values = {"source": str(clip), "backends": ("litert",), "devices": ("cpu",), "threads": (1,), **changes}
        options = BenchOptions(variants=("tflite-int8", "tflite-fp32"), **values)  # type: ignore[arg-type]
        return run_bench(Bundle(bundle_path), options, lambda what, done, total: None)

    return run


def test_ctrl_c_keeps_what_was_measured(bench: Callable[..., Report]) -> None:
    calls = iter(range(100))

    def one(request: Request) -> Measured:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return measured()

    made = bench(one)
    assert not made.method.complete
    assert sorted(each.rounds for each in made.rows) == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        bench(lambda request: (_ for _ in ()).throw(KeyboardInterrupt))


def minutes(*lines: str, then: BaseException | None = None) -> Callable[..., Iterator[bytes]]:
    """Return what a long run writes, line by line, and how it ends."""

    def stream(module: str, stdin: bytes) -> Iterator[bytes]:
        for number, line in enumerate(lines):
            minute = {"until_s": 60.0 * (number + 1), "end_to_end_fps": float(line), "conditions": {}}
            yield msgspec.json.encode({"minute": minute, "error": ""}) + b"\n"
        if then:
            raise then

    return stream


@pytest.mark.parametrize(
    ("end", "complete", "error"),
    [
        (None, True, ""),
        (KeyboardInterrupt(), False, ""),
        (BackendError("its process died of SIGKILL"), True, "SIGKILL"),
    ],
    ids=["to the end", "Ctrl-C", "out of memory"],
)
def test_a_long_run_is_kept_however_it_ends(
    bench: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, end: BaseException | None, complete: bool, error: str
) -> None:
    monkeypatch.setattr(sustained, "stream_module", minutes("100", "90", "80", then=end))
    made = bench(lambda request: measured(), duration_s=180.0)
    assert made.method.complete is complete
    assert made.sustained
    assert [minute.end_to_end_fps for minute in made.sustained.minutes] == [100, 90, 80]
    assert made.sustained.kept == pytest.approx(0.8)
    assert error in made.sustained.error
    assert len(made.rows) == 2


def test_a_long_run_of_a_real_row_is_told_stretch_by_stretch(bundle_path: Path, clip: Path) -> None:
    bundle = Bundle(bundle_path)
    each = Candidate("litert", "cpu", bundle.variant("tflite-int8"), 1)
    request = request_for(bundle, each, BenchOptions(source=str(clip), min_secs=0.3))
    long = sustained.LongRun()
    long.go_on(request, str(each), 3.0, lambda what, done, total: None)
    assert long.result
    assert long.result.error == ""
    assert 4 <= len(long.result.minutes) <= 7
    assert all(minute.end_to_end_fps > 0 for minute in long.result.minutes)
    broken = sustained.LongRun()
    broken.go_on(msgspec.structs.replace(request, variant="tflite-int4"), str(each), 3.0, lambda *progress: None)
    assert broken.result
    assert "tflite-int4" in broken.result.error


@pytest.mark.parametrize(
    ("variant", "device", "precision", "message"),
    [
        ("tflite-int8", "cpu", "int8 and float32", ""),
        ("tflite-int8", "cpu", "float32", "it computes in float32, which is not int8"),
        ("tflite-int8", "cpu", "int8 weights × float32 and float32", "which is not int8"),
        ("tflite-int8-full", "npu", "int8-full", ""),
        ("tflite-fp32", "gpu", "float16", "it computes in float16, which is not fp32"),
        ("onnx-fp32", "cpu", "float32 and bfloat16", "which is not fp32"),
        ("tflite-dynamic-int8", "cpu", "int8 weights × float32 and float32", ""),
        ("tflite-fp16", "gpu", "float16", ""),
        ("onnx-fp32", "gpu", "not told", ""),
        ("tflite-int8", "npu", "int8", "it runs on cpu, not on npu"),
    ],
)
def test_what_runs_elsewhere_or_in_another_precision_is_refused(
    rows: list[Candidate], bundle_path: Path, variant: str, device: str, precision: str, message: str
) -> None:
    request = request_for(Bundle(bundle_path), rows[0], OPTIONS)
    request = msgspec.structs.replace(request, variant=variant, device=device)
    proof = Proof("cpu" if "runs on cpu" in message else device, precision, {}, None, {})
    if not message:
        check_as_asked(proof, request)
        return
    with pytest.raises(BackendError, match=message):
        check_as_asked(proof, request)


def test_a_row_is_slower_only_beyond_the_noise_of_both() -> None:
    old = report(row("tflite-int8", 100.0, 1.0, half=1.0))
    for fps, half, slower in ((85.0, 1.0, True), (85.0, 20.0, False), (95.0, 1.0, False), (120.0, 1.0, False)):
        (change,) = changes(report(row("tflite-int8", fps, 1.0, half=half)), old)
        assert change.slower(0.9) is slower, (fps, half)


def test_a_row_that_cannot_be_judged_is_no_row_that_passed() -> None:
    old = report(row("tflite-int8", 100.0, 1.0), row("tflite-fp32", 50.0, 1.0))
    disturbed = row("tflite-int8", 100.0, 1.0, disturbed=("noise",))
    with pytest.raises(GateError, match=r"no row can be compared with the baseline: .* not valid: noise"):
        check_baseline(report(disturbed), old, 0.9)
    once = row("tflite-int8", 100.0, 1.0, across_ci95=None)
    with pytest.raises(GateError, match=r"give more --min-rounds"):
        check_baseline(report(once), old, 0.9)
    told = check_baseline(report(row("tflite-int8", 99.0, 1.0)), old, 0.9)
    assert told[-1] == "in the baseline only: litert · cpu · tflite-fp32 · 1 thread"
    gone = msgspec.structs.replace(row("tflite-int8", 1.0, 1.0), status="failed", reason="no such engine")
    with pytest.raises(GateError, match=r"does not run any more: no such engine"):
        check_baseline(report(gone), old, 0.9)


def test_another_machine_is_compared_by_the_calibration_work() -> None:
    old = report(row("tflite-int8", 100.0, 1.0))
    new = report(row("tflite-int8", 50.0, 1.0), cpu="Cortex-A53")
    half_as_fast = msgspec.structs.replace(new, machine=msgspec.structs.replace(new.machine, calibration_ms=8.0))
    (change,) = changes(half_as_fast, old)
    assert change.ratio == pytest.approx(1.0)
    unknown = msgspec.structs.replace(new, machine=msgspec.structs.replace(new.machine, calibration_ms=None))
    with pytest.raises(UsageError, match="no calibration"):
        changes(unknown, old)

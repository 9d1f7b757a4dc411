"""Whether edgevid got slower: the frame path alone, and with an engine, against a baseline kept in the repository.

    python -m edgevid_bench.guard                    exits with 3 where a row got slower
    python -m edgevid_bench.guard --update           measures the baseline again, after a change that is meant

The rows are those of ``edgevid bench``: the backend ``null``, which is all of edgevid without an engine, and
``litert`` with the fp32 variant of the sample. Speeds are compared as ratios to the calibration work, so that the
baseline holds on other machines, though not to the percent: processors differ in what they are good at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from edgevid.bundle import Bundle
from edgevid.cli.terminal import Terminal
from edgevid.errors import EdgevidError
from edgevid_bench.baseline import check_baseline
from edgevid_bench.measure import run_bench
from edgevid_bench.options import BenchOptions
from edgevid_bench.output.writers import write_report
from edgevid_bench.report import Report, read_report
from edgevid_convert.cli import convert_quietly, quiet_unless_debug
from edgevid_convert.options import ConvertOptions

BASELINE = Path(__file__).parent.parent / "baseline.json"
FAIL_BELOW = 0.5  # what another processor of the same kind may differ by is no regression


def main() -> int:
    """Measure, and compare with the baseline or replace it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="measure the baseline again")
    parser.add_argument("--fail-below", type=float, default=FAIL_BELOW)
    asked = parser.parse_args()
    try:
        lines = _updated(measured()) if asked.update else _compared(measured(), asked.fail_below)
    except EdgevidError as error:
        sys.stderr.write(f"edgevid: {error}\n")
        return error.exit_status
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _updated(report: Report) -> list[str]:
    write_report(report, BASELINE)
    return [f"wrote {BASELINE.name}"]


def _compared(report: Report, fail_below: float) -> list[str]:
    # The sample model is the same, but its file has another date in it each time.
    baseline = msgspec.structs.replace(read_report(BASELINE), bundle=report.bundle)
    return check_baseline(report, baseline, fail_below, calibrated=True)


def measured() -> Report:
    """Return a report of the two rows, for the sample model in fp32 and the sample clip."""
    with TemporaryDirectory() as folder:
        bundle = _fp32_sample(Path(folder))
        options = BenchOptions(
            source="sample:bikes",
            backends=("null", "litert"),
            devices=("cpu",),
            variants=("tflite-fp32",),
            threads=(1,),
            min_rounds=5,
            max_rounds=5,
            min_secs=5.0,
            allow_disturbed=True,  # CI's machines are never quiet, and each row is compared with its own interval
        )
        report = run_bench(bundle, options, lambda what, done, total: None, "python -m edgevid_bench.guard --update")
    if not report.method.complete:
        raise KeyboardInterrupt
    return msgspec.structs.replace(report, bundle=msgspec.structs.replace(report.bundle, path=bundle.path.name))


def _fp32_sample(folder: Path) -> Bundle:
    terminal = Terminal(quiet=True)
    with quiet_unless_debug(terminal):
        from edgevid_convert.lite0 import MEAN, STD, save_sample_model  # TensorFlow comes with it, and says so

        save_sample_model(folder / "lite0.keras")
    options = ConvertOptions(
        model=folder / "lite0.keras",
        output=folder / "lite0.edgevid",
        calib=("sample:carphone",),
        formats=("tflite",),
        precisions=("fp32",),
        mean=(MEAN,),
        std=(STD,),
    )
    return convert_quietly(options, terminal)


if __name__ == "__main__":
    sys.exit(main())

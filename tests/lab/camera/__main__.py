"""Cameras against real V4L2 drivers: formats, colours, latency, damage and messages, as a report in Markdown.

    python -m tests.lab.camera > benchmarks/reports/camera-lab.md

Boots a small virtual machine (vm.sh says what it needs) twice: with vivid, the kernel's test driver, and with a USB
webcam in software behind the real uvcvideo. Takes ten minutes; the processor is emulated, so of times only the ratios
hold. With --against, an earlier version is measured as well: the runtime folder of another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.lab.camera.pictures import write_pictures

ROOT = Path(__file__).parents[3]
DRIVERS = {"vivid": "modprobe vivid n_devs=1", "webcam": "modprobe vhci-hcd; modprobe uvcvideo"}
LIMIT_S = 900

Found = dict[str, Any]


def measured(runtime: Path) -> Found:
    """Return what was found of the edgevid in a folder, by driver and subject."""
    found: Found = {}
    for driver, loads in DRIVERS.items():
        with TemporaryDirectory() as folder:
            out = Path(folder)
            (out / "pictures").mkdir()
            write_pictures(out / "pictures")
            program = shlex.join([sys.executable, "-m", "tests.lab.camera.guest", driver, "/out"])
            paths = shlex.quote(f"{runtime.resolve()}:{ROOT}")
            command = f"{loads}; cd {shlex.quote(str(ROOT))} && PYTHONPATH={paths} {program}"
            machine = [str(Path(__file__).with_name("vm.sh")), command]
            subprocess.run(
                machine, env={**os.environ, "OUT": folder, "LIMIT": str(LIMIT_S)}, stdout=sys.stderr, check=False
            )
            lines = (out / f"{driver}.jsonl").read_text().splitlines()
            found[driver] = {key: value for line in lines for key, value in json.loads(line).items()}
    return found


def in_row(what: str, cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join([what, *(cell.replace('|', '¦') for cell in cells)])} |"


def table(title: str, versions: list[str], rows: dict[str, list[str]]) -> Iterator[str]:
    """Yield a table, a column a version."""
    yield from (in_row(title, versions), in_row("---", ["---"] * len(versions)))
    yield from (in_row(what, cells) for what, cells in rows.items())
    yield ""


def beside(found: list[Found], driver: str, subject: str) -> dict[str, list[str]]:
    """Return what was found of a subject, a cell for each version."""
    each = [one.get(driver, {}).get(subject, {}) for one in found]
    return {what: [str(one.get(what, "–")) for one in each] for what in each[-1]}


def latency_cell(row: Found) -> str:
    """Return the ages of one row of the latency table."""
    if row.get("told") is None:
        return "nothing"
    return (
        f"{row['told']:.0f} told, {row['true']:.0f} in truth (apart: median {row['apart_median']:.0f}, 90 % within "
        f"{row['apart_90']:.0f}); of {row['sent']} frames {row['labels']} classified, {row['dropped']} told as dropped"
    )


def damage_cell(row: Found) -> str:
    """Return what became of JPEGs that were spoilt."""
    return f"{row['classified']} classified, {row['broken']} told as broken" if row else "nothing"


def report(found: list[Found], versions: list[str]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from ("# Cameras against real V4L2 drivers", "")
    yield f"Of {time.strftime('%Y-%m-%d')}, by `python -m tests.lab.camera`."
    yield "In a virtual machine whose processor is emulated: of times only the ratios hold."
    yield from ("", "## Formats (vivid)", "", "Largest error of the eight colour bars, in grey levels of 191.", "")
    yield from table("format", versions, beside(found, "vivid", "formats"))
    yield from (
        "## Colours (vivid)",
        "",
        "Likewise, where the driver says that its colours are others than BT.601.",
        "",
    )
    yield from table("colours", versions, beside(found, "vivid", "colours"))
    yield from ("## Age of a label (software webcam, 30 frames a second)", "", "In ms, medians of 12 s.", "")
    ages = [one.get("webcam", {}).get("latency", {}) for one in found]
    yield from table(
        "what is slow", versions, {way: [latency_cell(one.get(way, {})) for one in ages] for way in ages[-1]}
    )
    yield from ("## Damaged JPEGs (software webcam)", "")
    each = [one.get("webcam", {}).get("damage", {}) for one in found]
    spoilt = {f"{how}, 20 in a row": [damage_cell(one.get(how, {})) for one in each] for how in each[-1]}
    yield from table("spoilt", versions, spoilt)
    yield from ("## Messages", "", "The exit status of `edgevid run` is in brackets.", "")
    said = {**beside(found, "vivid", "messages"), **beside(found, "webcam", "messages")}
    for driver, subject, what in (
        ("webcam", "first", "the first frames are garbage: what is classified first"),
        ("webcam", "reopened", "closed and opened at once, ten times"),
        ("webcam", "unplugged", "unplugged and plugged in again"),
        ("vivid", "doctor", "lines about cameras in `doctor`"),
    ):
        said[what] = [str(one.get(driver, {}).get(subject, "–")) for one in found]
    yield from table("what is done", versions, said)


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the runtime folder of an earlier version")
    runtimes = {"now": ROOT / "runtime"}
    if before := parser.parse_args().against:
        runtimes = {"before": before, **runtimes}
    found = [measured(runtime) for runtime in runtimes.values()]
    sys.stdout.writelines(f"{line}\n" for line in report(found, list(runtimes)))


if __name__ == "__main__":
    main()

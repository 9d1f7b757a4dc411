"""``edgevid doctor``: what this machine can run, and what to do for the rest."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.table import Table

from edgevid.cli.terminal import Terminal, common_options
from edgevid.doctor import BackendRow, Diagnosis, diagnose

__all__ = ["doctor"]

EPILOG = """
\b
Examples:
  edgevid doctor
  edgevid doctor --json > machine.json
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
@common_options
@click.pass_obj
def doctor(terminal: Terminal, as_json: bool) -> None:
    """Say which backends can use which devices here, why not, and what to do about it.

    Also: the CPU and what it is good at, its clock and temperature, OpenCV, cameras, and codecs. Changes nothing.
    """
    with terminal.progress("backends") as progress:
        task = progress.add_task("looking", total=None)
        found = diagnose(lambda what, done, total: progress.update(task, description=what, completed=done, total=total))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        return
    terminal.result(*_machine_lines(found), "", _table(found.backends), *_advice_lines(found))


def _machine_lines(found: Diagnosis) -> list[str]:
    about = {
        "edgevid": f"{found.versions['edgevid']}, Python {found.versions['python']}, {found.versions['system']}",
        "CPU": f"{found.cpu}, cores: {found.cores}",
        "it has": ", ".join(found.features) or "nothing that Linux names here",
        "governor": found.governor or "not told",
        "temperature": "not told" if found.temperature_c is None else f"{found.temperature_c:.0f} °C",
        "OpenCV": f"{', '.join(found.opencv) or 'none'}; --show {'works' if found.windows else 'cannot open windows'}",
        "cameras": "; ".join(f"{camera.path} {camera.name}" for camera in found.cameras) or "none",
        "decodes": ", ".join(found.decoders),
        "encodes": f"{', '.join(found.encoders)}  (compiled in; some need their hardware)",
    }
    lines = [f"{name:<12} {text}" for name, text in about.items()]
    return lines + [f"{camera.path:<12} {text}" for camera in found.cameras for text in camera.formats]


def _table(rows: tuple[BackendRow, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("backend", "device", "usable"):
        table.add_column(column, no_wrap=True)
    table.add_column("with, or why not")
    for row in rows:
        table.add_row(row.backend, row.device, "yes" if row.usable else "no", row.hardware or row.reason)
    return table


def _advice_lines(found: Diagnosis) -> list[str]:
    for_what: dict[str, list[str]] = {}
    for row in found.backends:
        if row.remedy:
            for_what.setdefault(row.remedy, []).append(f"{row.backend} {row.device}")
    more = [f"  {', '.join(rows)}: {remedy}" for remedy, rows in for_what.items()]
    mend = [f"  {line}" for line in found.advice]
    usable = ", ".join(dict.fromkeys(row.backend for row in found.backends if row.usable))
    return [
        *(["", "to use more, where you have the hardware:", *more] if more else []),
        *(["", "to mend:", *mend] if mend else []),
        "",
        f"{usable} can run here; which is fastest for a model:  edgevid bench MODEL.edgevid",
    ]

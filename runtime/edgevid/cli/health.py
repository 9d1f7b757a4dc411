"""``edgevid health``: whether a run that writes a health file is well, for the checks of containers."""

from __future__ import annotations

import time
from pathlib import Path

import click

from edgevid.cli.terminal import Terminal, common_options, completing_paths
from edgevid.errors import EdgevidError, UsageError
from edgevid.service import boot_id, read_health
from edgevid.units import time_seconds

EPILOG = """
\b
Examples:
  edgevid run --camera 0 --health /run/edgevid/health.json
  edgevid health /run/edgevid/health.json --max-age 30s
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completing_paths())
@click.option("--max-age", metavar="TIME", default="10s", show_default=True, help="How old the file may be.")
@common_options
@click.pass_obj
def health(terminal: Terminal, file: Path, max_age: str) -> None:
    """Exit with 0 if the run that writes FILE (run --health) is running and FILE is fresh, else with 1.

    One line says how it is. Ages go by the clock that counts from the start of the machine, so that a wrong date does
    no harm.
    """
    most = time_seconds(max_age)
    if most is None:
        raise UsageError(f"--max-age {max_age}: expected a time such as 10s or 2m")
    found = read_health(file)
    age = time.monotonic() - found.monotonic
    if found.boot != boot_id():
        raise EdgevidError(f"{file}: from before the machine was last started; is 'edgevid run' running?")
    if age > most:
        raise EdgevidError(f"{file}: {age:.0f} s old, at most {most:g} s expected: {found.source} ended or hangs")
    if found.state != "running":
        raise EdgevidError(f"{file}: {found.state} since {found.since}: {found.message or found.source}")
    shown = "no label yet" if found.label is None else f"{found.label} {found.score:.2f}"
    terminal.result(f"running: {found.source}, {found.frames} frames, {found.fps:.1f} a second, {shown}")

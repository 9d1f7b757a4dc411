"""The options of a run that is a service: its configuration, its log, its health, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from edgevid.cli.terminal import LOG_FORMATS, adding, completing_paths

__all__ = ["ServiceOptions", "service_options", "signature_option"]


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """The options below, as given; ``--config`` and ``--log-format`` have done their work before (config.py)."""

    health: Path | None
    require_signature: str | None


signature_option = click.option(
    "--require-signature",
    metavar="KEY.pub",
    envvar="EDGEVID_REQUIRE_SIGNATURE",
    show_envvar=True,
    shell_complete=completing_paths(),
    help="Run only a bundle that was signed by this minisign key: a file, or the key itself.",
)

service_options = adding(
    click.option(
        "--config",
        metavar="FILE.toml",
        shell_complete=completing_paths(),
        expose_value=False,
        help="Take options from a file: their names without dashes in front, and bundle. The command line wins.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(LOG_FORMATS),
        default=LOG_FORMATS[0],
        show_default=True,
        expose_value=False,
        help="How messages and errors are written to stderr; json: one object a line.",
    ),
    click.option(
        "--health",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        shell_complete=completing_paths(),
        help="Say in this file, about once a second, how the run goes; 'edgevid health FILE' reads it.",
    ),
    signature_option,
)

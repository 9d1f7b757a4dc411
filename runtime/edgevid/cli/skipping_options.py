"""The options of ``run`` that skip static frames."""

from __future__ import annotations

import click

from edgevid.cli.terminal import adding
from edgevid.errors import UsageError
from edgevid.static import STATIC_THRESHOLD

__all__ = ["skipping_options", "static_threshold"]

skipping_options = adding(
    click.option(
        "--skip-static",
        is_flag=True,
        help="Have frames that barely differ from the last classified one take over its probabilities, for a second at "
        "most; audited, and turned off where labels suffer.  Example: --camera 0 --skip-static",
    ),
    click.option(
        "--static-threshold",
        type=float,
        metavar="N",
        help="How much each of 32 × 32 blocks may differ, in grey levels of 0–255.  Example: "
        f"--skip-static --static-threshold 2  [default: {STATIC_THRESHOLD:g}]",
    ),
)


def static_threshold(skip_static: bool, given: float | None) -> float:
    """Return the threshold: as given, else the default.

    Raises:
        UsageError: it is given where nothing is skipped.
    """
    if given is not None and not skip_static:
        raise UsageError(f"--static-threshold {given:g}: it is for --skip-static; give both or none")
    return STATIC_THRESHOLD if given is None else given

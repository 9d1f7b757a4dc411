"""Numbers on the command line."""

from __future__ import annotations

import math

import click

__all__ = ["comma_numbers"]


def comma_numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Return numbers with commas between them; for click."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f"{text!r}: expected a number, or numbers with commas between them", param=parameter)
    return numbers

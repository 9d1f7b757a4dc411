"""The options that say how the label is steadied, and when it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click
from msgspec.structs import replace

from edgevid.cli.terminal import adding
from edgevid.decisions import Decisions
from edgevid.errors import UsageError
from edgevid.manifest import Manifest
from edgevid.methods import METHODS, Smoothing, changed
from edgevid.smoothing import GAPS
from edgevid.units import time_seconds
from edgevid.window import parse_window

__all__ = ["SmoothingOptions", "smoothing_options", "take_smoothing"]


def _window(ctx: click.Context, parameter: click.Parameter, value: Any) -> str | None:
    return None if value is None else str(parse_window(value))


def _seconds(ctx: click.Context, parameter: click.Parameter, text: Any) -> float | None:
    if text is None:
        return None
    seconds = 0.0 if str(text) in ("0", "0s") and parameter.name == "hold" else time_seconds(str(text))
    if seconds is None:
        raise UsageError(f"{parameter.opts[0]} {text}: expected a time such as 0.5s or 500ms")
    return seconds


smoothing_options = adding(
    click.option(
        "--window",
        metavar="K|TIME",
        callback=_window,
        help="Smooth over the last K predictions, or over the last 2s, say, which does not depend on the frame rate; "
        "1 for none.  [default: the bundle's]",
    ),
    click.option(
        "--method",
        type=click.Choice(list(METHODS)),
        help="How predictions become one: the window's mean, vote, max or log-mean; exponential, which fades them with "
        "--half-life; or hmm, which weighs them against --stay.  [default: the bundle's]",
    ),
    click.option(
        "--half-life",
        metavar="TIME",
        callback=_seconds,
        help="Of exponential: then a prediction counts half.  [default: 1s]",
    ),
    click.option(
        "--stay",
        type=float,
        metavar="P",
        help="Of hmm: how probably the label stays from frame to frame.  [default: 0.99]",
    ),
    click.option(
        "--enter", type=float, metavar="S", help="A label begins at this score, 0 to 1; else it is uncertain."
    ),
    click.option("--leave", type=float, metavar="S", help="It ends below this score.  [default: --enter]"),
    click.option("--margin", type=float, metavar="S", help="It begins only so much above the second best."),
    click.option("--hold", metavar="TIME", callback=_seconds, help="It goes on for 0.5s, say, at least."),
    click.option(
        "--gap",
        type=click.Choice(GAPS),
        default=GAPS[0],
        show_default=True,
        help="What an interruption does to the window: empty it, or let as much of it go as the interruption is long.",
    ),
    click.option("--top-k", type=int, default=0, help="Write the N best labels of each frame too."),
)


@dataclass(frozen=True)
class SmoothingOptions:
    """The options above, as given; None where the bundle's default holds."""

    window: str | None
    method: str | None
    half_life: float | None
    stay: float | None
    enter: float | None
    leave: float | None
    margin: float | None
    hold: float | None
    gap: str
    top_k: int

    def of(self, manifest: Manifest) -> dict[str, Any]:
        """Return what a classifier of this bundle is told; raises as :meth:`smoothing` and :meth:`decisions` do."""
        return {
            "smoothing": self.smoothing(manifest.smoothing),
            "decisions": self.decisions(manifest.decisions),
            "gap": self.gap,
            "top_k": self.top_k,
        }

    def smoothing(self, default: Smoothing) -> Smoothing:
        """Return how the label is steadied.

        Raises:
            UsageError: a parameter is out of range, or is given with a method that has no such thing.
        """
        return changed(default, method=self.method, window=self.window, half_life_s=self.half_life, stay=self.stay)

    def decisions(self, default: Decisions) -> Decisions:
        """Return when a label begins and ends.

        Raises:
            UsageError: a score is out of range.
        """
        given = {"enter": self.enter, "leave": self.leave, "margin": self.margin, "hold_s": self.hold}
        return replace(default, **{name: value for name, value in given.items() if value is not None})


def take_smoothing(options: dict[str, Any]) -> SmoothingOptions:
    """Take the values of the options out of all that a command was given."""
    return SmoothingOptions(**{name: options.pop(name) for name in SmoothingOptions.__annotations__})

"""The picture of a tuning: flips a minute over the delay of a decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from edgevid.methods import METHODS
from edgevid_bench.tuning.tradeoff import RAW, Point

__all__ = ["draw"]

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLORS = dict(zip(METHODS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"), strict=True))
MARKERS = dict(zip(METHODS, "osD^vP", strict=True))


def draw(points: Sequence[Point], chosen: Point, title: str, delay_of: str, path: Path) -> None:
    """Draw every point, a line a method, the knee and no smoothing at all, into a .png or .svg file.

    Args:
        points: what was measured.
        chosen: the knee.
        title: what it was measured on.
        delay_of: what the delay counts from, for the axis.
        path: the file.

    Raises:
        OSError: it cannot be written.
    """
    figure = Figure(figsize=(8, 5), dpi=144, layout="constrained")
    axes = figure.subplots()
    for method in METHODS:
        own = sorted(
            (p for p in points if p.smoothing.method == method and p.smoothing != RAW), key=lambda p: p.delay_s
        )
        if own:
            axes.plot(
                [p.delay_s for p in own],
                [p.flips for p in own],
                color=COLORS[method],
                marker=MARKERS[method],
                markersize=5,
                linewidth=1.2,
                label=method,
            )
    raw = next(point for point in points if point.smoothing == RAW)
    axes.plot(raw.delay_s, raw.flips, "kx", markersize=8, label="no smoothing", linestyle="none")
    axes.plot(
        chosen.delay_s, chosen.flips, "o", markersize=16, markerfacecolor="none", markeredgecolor="black", label="knee"
    )
    axes.annotate(
        f"{chosen.smoothing}\n{chosen.flips:.1f} flips a minute, within {chosen.delay_s:.2f} s",
        (chosen.delay_s, chosen.flips),
        xytext=(0.25, 0.75),  # above the curves, which fall
        textcoords="axes fraction",
        bbox={"facecolor": "white", "edgecolor": "none"},
        arrowprops={"arrowstyle": "-", "color": "grey"},
    )
    axes.set(xlabel=f"delay {delay_of}, seconds (90 % are within it)", ylabel="label flips a minute", title=title)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    axes.set_ylim(bottom=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})

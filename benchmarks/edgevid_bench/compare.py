"""Which machines meet a need, and how: several reports of one model and one clip, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgevid.errors import UsageError
from edgevid_bench.figures import half_width, number
from edgevid_bench.output.lines import nothing
from edgevid_bench.recommend import kept_labels, recommend
from edgevid_bench.report import Report, Row, check_same

__all__ = ["COLUMNS", "Standing", "compare", "remarks", "verdict"]


@dataclass(frozen=True)
class Standing:
    """A machine in a comparison.

    Attributes:
        name: what the report's file is called.
        report: its report.
        row: its fastest row that keeps the labels; None if it has none.
        need_fps: the frames per second that are needed; 0 for none in particular.
        price: what it costs, in a currency that is the same for all; None where it was not given.
    """

    name: str
    report: Report
    row: Row | None
    need_fps: float
    price: float | None

    @property
    def fps(self) -> float:
        """Frames per second that the machine reaches in any case: the lower end of the 95 % interval across benches.

        Where that is not known, what was measured.
        """
        if self.row is None:
            return 0.0
        return self.row.across_ci95[0] if self.row.across_ci95 else self.row.end_to_end_fps or 0.0

    @property
    def enough(self) -> bool:
        """Whether it meets the need."""
        return self.row is not None and self.fps >= self.need_fps

    @property
    def head_room(self) -> float | None:
        """How many times the need it reaches; None where nothing in particular is needed."""
        return self.fps / self.need_fps if self.need_fps and self.row else None

    @property
    def fps_a_watt(self) -> float | None:
        """Frames per second a watt, which is frames a joule; None where the machine has no meter."""
        return 1e3 / self.row.energy_mj if self.row and self.row.energy_mj else None

    @property
    def fps_a_price(self) -> float | None:
        """Frames per second for each unit of the price; None where there is no price."""
        return self.fps / self.price if self.row and self.price else None


def _of_row(column: Callable[[Row], str]) -> Callable[[Standing], str]:
    return lambda standing: "–" if standing.row is None else column(standing.row)


# head: the cell of a machine.
COLUMNS: dict[str, Callable[[Standing], str]] = {
    "machine": lambda standing: standing.name,
    "what it is": lambda standing: standing.report.machine.board or standing.report.machine.cpu,
    "cores": lambda standing: str(standing.report.machine.cores),
    "enough": lambda standing: "yes" if standing.enough else "no",
    "head-room": lambda standing: "–" if standing.head_room is None else f"× {number(standing.head_room, 1)}",
    "with": _of_row(lambda row: row.name),
    "fps": _of_row(lambda row: number(row.end_to_end_fps)),
    "± fps": _of_row(lambda row: number(half_width(row))),
    "label p50 ms": _of_row(lambda row: number(row.label_ms.p50 if row.label_ms else None, 1)),
    "p99": _of_row(lambda row: number(row.label_ms.p99 if row.label_ms else None, 1)),
    "labels kept": _of_row(lambda row: number(kept_labels(row), 3)),
    "peak MB": _of_row(lambda row: number(row.peak_rss_mb)),
    "watts": _of_row(lambda row: number(row.watts, 1)),
    "fps a watt": lambda standing: number(standing.fps_a_watt, 1),
    "price": lambda standing: "–" if standing.price is None else f"{standing.price:g}",
    "fps a price": lambda standing: number(standing.fps_a_price, 2),
}


def compare(
    reports: Mapping[str, Report], need_fps: float, max_drop: float | None, prices: Mapping[str, float]
) -> list[Standing]:
    """Return how each machine stands, those that meet the need first, the fastest of them first.

    Args:
        reports: the reports by the names of the machines.
        need_fps: frames per second, end to end, that are needed; 0 for none in particular.
        max_drop: how much smoothed agreement may be lost; None for what each report was made with.
        prices: what some of the machines cost.

    Raises:
        UsageError: the reports are of different models, clips or kinds of run, or a price is of no machine.
    """
    (first, shown), *others = reports.items()
    for name, report in others:
        check_same(first, shown, name, report)
    for name in prices:
        if name not in reports:
            raise UsageError(f"--price {name}: expected one of {', '.join(reports)}")
    standings = [
        Standing(name, report, _best(report, max_drop), need_fps, prices.get(name)) for name, report in reports.items()
    ]
    return sorted(standings, key=lambda standing: (not standing.enough, -standing.fps))


def _best(report: Report, max_drop: float | None) -> Row | None:
    best = recommend(report.rows, report.method.max_drop if max_drop is None else max_drop)
    return next((row for row in report.rows if best and row.key == best.key), None)


def verdict(standings: Sequence[Standing]) -> str:
    """Return which machines meet the need, in a sentence."""
    able = [standing for standing in standings if standing.enough]
    need = f"reach {standings[0].need_fps:g} frames per second" if standings[0].need_fps else "can run the model"
    told = f"{len(able)} of {len(standings)} {need}"
    if able:
        told += f": {', '.join(_told(standing) for standing in able)}"
    short = [standing for standing in standings if not standing.enough]
    if short:
        told += f"; not enough: {', '.join(_told(standing) for standing in short)}"
    return told


def _told(standing: Standing) -> str:
    if standing.row is None:
        return f"{standing.name}, where {nothing(standing.report)}"
    room = "" if standing.head_room is None else f", × {number(standing.head_room, 1)} of the need"
    return f"{standing.name} with {standing.row.name} ({number(standing.row.end_to_end_fps)}{room})"


def remarks(standings: Sequence[Standing]) -> list[str]:
    """Return what makes the comparison less than fair."""
    found = []
    if len({standing.report.bundle.manifest_sha256 for standing in standings}) > 1:
        found.append("the bundles are different conversions of the model, which may be why figures differ")
    for standing in standings:
        if not standing.report.method.complete:
            found.append(f"{standing.name}: the bench was interrupted")
        if standing.row and standing.row.across_ci95 is None:
            found.append(f"{standing.name}: measured once, so that its noise is not known")
        if standing.report.method.allow_disturbed:
            found.append(f"{standing.name}: other programs may have run beside the bench")
    meters = {standing.row.meter for standing in standings if standing.row and standing.row.meter}
    if len(meters) > 1:
        found.append(f"watts are of different things: {', '.join(sorted(meters))}")
    versions = {standing.report.machine.versions.get("edgevid") for standing in standings}
    if len(versions) > 1:
        found.append(f"the reports are of several versions of edgevid: {', '.join(sorted(map(str, versions)))}")
    return found

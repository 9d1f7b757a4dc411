"""Whether rows got slower than in an earlier report, beyond the noise of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevid.errors import GateError, UsageError
from edgevid_bench.figures import number
from edgevid_bench.intervals import Interval
from edgevid_bench.report import Machine, Report, Row, check_same

__all__ = ["Change", "changes", "check_baseline"]


@dataclass(frozen=True)
class Change:
    """A row, now and in an earlier report.

    Attributes:
        row: as it is now.
        ratio: its speed now ÷ what the earlier one promises here; 0 where it does not run any more.
        interval: the 95 % interval of that ratio; None where one of the two is not known so well.
        why_not: why it cannot be judged; empty if it can.
    """

    row: Row
    ratio: float
    interval: Interval | None = None
    why_not: str = ""

    def slower(self, fail_below: float) -> bool:
        """Return whether it got slower than ``fail_below`` of what it was, and not by chance."""
        if self.why_not:
            return False
        return self.ratio < fail_below and (self.interval is None or self.interval[1] < 1)


def changes(new: Report, old: Report, calibrated: bool = False) -> list[Change]:
    """Return how the rows changed that both reports have.

    Args:
        new: the report of now.
        old: the earlier one.
        calibrated: speeds are compared as ratios to those of the calibration work on either machine, which the
            reports of two machines always are.

    Raises:
        UsageError: the reports are of different things, or have no valid row in common.
    """
    check_same("the baseline", old, "this bench", new)
    scale = 1.0
    if calibrated or _computer(new.machine) != _computer(old.machine):
        if not (new.machine.calibration_ms and old.machine.calibration_ms):
            raise UsageError("the baseline is of another machine, and has no calibration to compare it by")
        scale = old.machine.calibration_ms / new.machine.calibration_ms
    promised = {row.key: row for row in old.rows if row.valid and row.end_to_end_fps}
    found = [_change(row, promised[row.key], scale) for row in new.rows if row.key in promised]
    if not found:
        raise UsageError("the baseline has no valid row in common with this bench; give the same options as then")
    return found


def check_baseline(new: Report, old: Report, fail_below: float, calibrated: bool = False) -> list[str]:
    """Return how the rows changed, a line each.

    Raises:
        GateError: a row got slower than ``fail_below`` of what it was, beyond the noise; or no row can be judged.
        UsageError: the reports cannot be compared.
    """
    found = changes(new, old, calibrated)
    if slower := [change for change in found if change.slower(fail_below)]:
        raise GateError(f"slower than {fail_below:g} of the baseline: {'; '.join(map(_told, slower))}")
    if all(change.why_not for change in found):
        raise GateError(f"no row can be compared with the baseline: {'; '.join(map(_told, found))}")
    now = {change.row.key for change in found}
    gone = [row.name for row in old.rows if row.valid and row.key not in now]
    lines = [f"against the baseline: {_told(change)}" for change in found]
    return [*lines, f"in the baseline only: {', '.join(gone)}"] if gone else lines


def _change(row: Row, old: Row, scale: float) -> Change:
    if row.status != "ok":
        return Change(row, 0.0)
    promised = (old.end_to_end_fps or 0.0) * scale
    ratio = (row.end_to_end_fps or 0.0) / promised
    now, then = row.across_ci95, old.across_ci95
    if row.disturbed:
        return Change(row, ratio, why_not=f"not valid: {', '.join(row.disturbed)}")
    if now is None or then is None:
        return Change(row, ratio, why_not="measured once, so that its noise is not known; give more --min-rounds")
    # The two are independent: their errors add in squares, on the scale of logarithms.
    error = math.hypot(*(math.log(high / low) / 2 for low, high in (now, then)))
    return Change(row, ratio, (ratio * math.exp(-error), ratio * math.exp(error)))


def _told(change: Change) -> str:
    if change.row.status != "ok":
        return f"{change.row.name} does not run any more: {change.row.reason}"
    speed = f"{change.row.name} × {number(change.ratio)} ({number(change.row.end_to_end_fps)} frames per second"
    if change.interval is None:
        return f"{speed}); {change.why_not}"
    low, high = change.interval
    return f"{speed}; 95 % of × {number(low)} to × {number(high)})"


def _computer(machine: Machine) -> tuple[str, str, int]:
    return machine.cpu, machine.board, machine.cores

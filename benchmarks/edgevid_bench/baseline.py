"""Whether rows got slower than in an earlier report, beyond the noise of both."""

from __future__ import annotations

from dataclasses import dataclass

from edgevid.errors import GateError, UsageError
from edgevid_bench.report import Machine, Report, Row

__all__ = ["Change", "changes", "check_baseline"]


@dataclass(frozen=True)
class Change:
    """A row, now and in an earlier report.

    Attributes:
        row: as it is now.
        ratio: its speed now ÷ what the earlier one promises here; 0 where it does not run any more.
        beyond_noise: whether their 95 % intervals do not overlap.
    """

    row: Row
    ratio: float
    beyond_noise: bool

    def slower(self, fail_below: float) -> bool:
        """Return whether it got slower than ``fail_below`` of what it was, and not by chance."""
        return self.beyond_noise and self.ratio < fail_below


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
    for what, now, before in (
        ("the model", new.bundle.source_sha256, old.bundle.source_sha256),
        ("the clip", new.source.sha256, old.source.sha256),
        ("--video", new.method.video, old.method.video),
        ("--max-frames", new.method.max_frames, old.method.max_frames),
    ):
        if now != before:
            raise UsageError(f"the baseline is of something else: {what} is another; make one with the same")
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
        GateError: a row got slower than ``fail_below`` of what it was, beyond the noise.
        UsageError: the reports cannot be compared.
    """
    found = changes(new, old, calibrated)
    slower = [change for change in found if change.slower(fail_below)]
    if slower:
        told = "; ".join(_told(change) for change in slower)
        raise GateError(f"slower than {fail_below:g} of the baseline: {told}")
    return [f"against the baseline: {_told(change)}" for change in found]


def _change(row: Row, old: Row, scale: float) -> Change:
    if row.status != "ok":
        return Change(row, 0.0, beyond_noise=True)
    promised = (old.end_to_end_fps or 0.0) * scale
    now, then = row.end_to_end_ci95, old.end_to_end_ci95
    apart = bool(now and then and (now[1] < then[0] * scale or now[0] > then[1] * scale))
    return Change(row, (row.end_to_end_fps or 0.0) / promised, apart and row.valid)


def _told(change: Change) -> str:
    if change.row.status != "ok":
        return f"{change.row.name} does not run any more: {change.row.reason}"
    noise = "" if change.beyond_noise else ", within the noise"
    return f"{change.row.name} × {change.ratio:.2f} ({change.row.end_to_end_fps:.0f} frames per second{noise})"


def _computer(machine: Machine) -> tuple[str, str, int]:
    return machine.cpu, machine.board, machine.cores

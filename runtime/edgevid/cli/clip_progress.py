"""How far ``edgevid classify`` has come, and what it amounted to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.progress import Progress

from edgevid.cli.terminal import Terminal
from edgevid.errors import SourceError
from edgevid.sinks.verdicts import Record, printable
from edgevid.sources.archive import Clip

__all__ = ["ClipProgress", "ClipTally"]

MOST_NAMED = 3


class ClipProgress:
    """Shows how many clips are done, and how many frames of the one at hand."""

    def __init__(self, progress: Progress, clips: int, kept: int) -> None:
        self._progress, self._done = progress, kept
        self._clips = progress.add_task("clips", total=clips, completed=kept, unit="clips")
        self._frames = progress.add_task("", total=None, unit="frames")

    def begin(self, clip: Clip) -> Callable[[int, int | None], None]:
        """Return what is to be told of every frame of a clip."""
        self._progress.reset(self._frames, description=printable(clip.name), total=None)

        def on_frame(done: int, expected: int | None) -> None:
            self._progress.update(self._frames, completed=done, total=expected)
            part = min(1.0, done / expected) if expected else 0.0  # so that the time left is known within a long clip
            self._progress.update(self._clips, completed=self._done + part)

        return on_frame

    def end(self) -> None:
        """Count a clip as done."""
        self._done += 1
        self._progress.update(self._clips, completed=self._done)


@dataclass
class ClipTally:
    """Counts what was classified, from when it is made."""

    started: float = field(default_factory=time.perf_counter)
    done: int = 0
    frames: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, record: Record, terminal: Terminal) -> None:
        """Count a clip, and say what is wrong with it, if anything is."""
        self.done += 1
        self.frames += record.get("frames", 0)
        if "error" in record:
            self.failed.append(record["clip"])
            terminal.message(f"{record['error']}; passed over")
        elif record["broken"]:
            terminal.message(f"{record['clip']}: broken frames passed over: {record['broken']}")

    def summary(self, clips: int, kept: int) -> str:
        """Return what it amounted to, for reading."""
        elapsed = time.perf_counter() - self.started
        before = f", {kept} were done before" if kept else ""
        speed = self.frames / elapsed if elapsed else 0.0
        return (
            f"{self.done} of {clips} clips{before}: {self.frames} frames in {elapsed:.2f} s, "
            f"{speed:.1f} frames per second"
        )

    def check(self, clips: int) -> None:
        """Raise SourceError if clips failed."""
        if self.failed:
            named = ", ".join(self.failed[:MOST_NAMED])
            more = len(self.failed) - MOST_NAMED
            others = f" and {more} more" if more > 0 else ""
            raise SourceError(f"{len(self.failed)} of {clips} clips cannot be classified: {named}{others}")

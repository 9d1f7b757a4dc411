"""What a bench is asked to do; loads nothing that the [bench] extra brings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALL_STAGES", "BenchOptions"]

STAGES = ("decode", "preprocess", "infer", "smooth")
VIDEO_STAGES = ("draw", "encode")
ALL_STAGES = STAGES + VIDEO_STAGES


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how.

    Attributes:
        backends: names in the table of backends.
        variants: ids of variants of the bundle.
        devices: where each backend shall run, of those that it can.
        threads: threads of one inference, on the CPU; empty for one to the number of cores.
        source: the clip.
        batch: how many frames one inference takes.
        rounds: how often each row is measured, in a new process each time.
        seconds: how long bare inference is timed, a row and round.
        max_frames: how many frames of the clip a round runs through.
        video: whether runs from end to end write annotated video.
        max_drop: how much smoothed agreement the recommendation may lose.
        seed: of the order of the rows within a round.
    """

    source: str
    backends: tuple[str, ...]
    variants: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    threads: tuple[int, ...] = ()
    batch: int = 1
    rounds: int = 3
    seconds: float = 1.0
    max_frames: int = 500
    video: bool = False
    max_drop: float = 0.02
    seed: int = 0

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a run from end to end."""
        return ALL_STAGES if self.video else STAGES

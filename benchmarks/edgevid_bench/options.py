"""What a bench is asked to do; loads nothing that the [bench] extra brings."""

from __future__ import annotations

from dataclasses import dataclass

from edgevid.errors import UsageError

__all__ = ["ALL_STAGES", "STAGES", "VIDEO_STAGES", "BenchOptions"]

STAGES = ("decode", "preprocess", "infer", "smooth")
VIDEO_STAGES = ("draw", "encode")
ALL_STAGES = STAGES + VIDEO_STAGES


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how.

    Attributes:
        source: the clip.
        backends: names in the table of backends; empty for all that are installed.
        variants: ids of variants of the bundle; empty for all.
        devices: where each backend shall run, of those that it can; empty for all that can be used here.
        threads: threads of one inference, on the CPU; empty for one to the number of cores.
        batch: how many frames one inference takes.
        min_rounds: how often each row is measured at least, in a new process each time.
        max_rounds: how often at most, where a row cannot be told from the fastest.
        min_secs: how long each row runs from end to end at least, all rounds together.
        max_frames: how many frames of the clip a pass runs through.
        video: whether runs from end to end write annotated video.
        max_drop: how much smoothed agreement the recommendation may lose.
        allow_disturbed: take what was measured while other programs or a hypervisor took the processor, too.
        duration_s: how long the recommended row runs in the end, to see whether it keeps its speed.
        seed: of the order of the rows within a round.
    """

    source: str
    backends: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    batch: int = 1
    min_rounds: int = 3
    max_rounds: int = 12
    min_secs: float = 2.0
    max_frames: int = 500
    video: bool = False
    max_drop: float = 0.02
    allow_disturbed: bool = False
    duration_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_rounds < self.min_rounds:
            raise UsageError(f"--max-rounds {self.max_rounds}: expected --min-rounds, {self.min_rounds}, or more")

    @property
    def full(self) -> bool:
        """Whether nothing was left out that could be chosen."""
        chosen = self.backends or self.devices or self.variants or self.threads or self.video
        return not chosen and self.batch == 1

    @property
    def secs_a_round(self) -> float:
        """How long a row runs from end to end in each round, at least."""
        return self.min_secs / self.min_rounds

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a run from end to end."""
        return ALL_STAGES if self.video else STAGES

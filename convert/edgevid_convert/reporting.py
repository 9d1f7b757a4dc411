"""What a conversion says while it works, how far it has come and at which variant, and what it is told of crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Crashed", "Progress", "Reporter", "Stage"]

# Called with what is being done, how far it has come, and how far it has to go (None: unknown).
Progress: TypeAlias = Callable[[str, int, int | None], None]
Stage: TypeAlias = Literal["converting", "comparing", "improving"]


@dataclass(frozen=True)
class Crashed:
    """What crashed in earlier tries at the same conversion, each by its variant's id, with the reason.

    Attributes:
        variants: those whose converter or engine crashed: they are left out.
        searches: those whose improvement crashed: they stay as they were converted.
    """

    variants: Mapping[str, str] = field(default_factory=dict)
    searches: Mapping[str, str] = field(default_factory=dict)


class Reporter:
    """Passes on progress, and which variant is being worked on: should the process crash, it was that one's work.

    Args:
        progress: called as the work goes on.
        at: called with a variant's id and what is done to it; with None and the last stage when that is over.
    """

    def __init__(
        self,
        progress: Progress = lambda what, done, total: None,
        at: Callable[[str | None, Stage], None] = lambda variant_id, stage: None,
    ) -> None:
        self._progress, self._at = progress, at

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Pass on how far the work has come."""
        self._progress(what, done, total)

    @contextmanager
    def on(self, variant_id: str, stage: Stage) -> Iterator[None]:
        """Say that what is done in the block is done to one variant."""
        self._at(variant_id, stage)
        yield
        self._at(None, stage)

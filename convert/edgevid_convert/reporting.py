"""What a conversion says while it works: how far it has come, and at which variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

__all__ = ["Progress", "Reporter", "Stage"]

# Called with what is being done, how far it has come, and how far it has to go (None: unknown).
Progress: TypeAlias = Callable[[str, int, int | None], None]
Stage: TypeAlias = Literal["converting", "comparing", "improving"]


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

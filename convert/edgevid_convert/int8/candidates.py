"""What the search needs of a format: its operators, and a file with some of them in float and the others in int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid_convert.int8.ranges import Range, Seen

__all__ = ["Answers", "Candidates", "Operator", "Unit", "units"]

# From an input tensor, float32 (1, height, width, channels), to the model's output, float32 (classes,).
Answers: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Operator:
    """An operator of a float model: its own name, its kind, and the names of the activations it reads and writes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Unit:
    """An activation, and the operators that must compute in float for it to be a float: its writer and its readers."""

    activation: str
    operators: frozenset[str]


class Candidates(Protocol):
    """Makes int8 files of one float model, in one format."""

    suffix: str

    @property
    def operators(self) -> Sequence[Operator]:
        """The operators, in the order of computation."""
        ...

    def observe(self, frames: Sequence[npt.NDArray[np.float32]]) -> dict[str, Seen]:
        """Return what each activation of the float model is over the frames."""
        ...

    def write(self, path: Path, ranges: Mapping[str, Range], in_float: frozenset[str]) -> None:
        """Write the model in int8, but for the operators of the names ``in_float``."""
        ...

    def opened(self, path: Path, threads: int) -> Answers:
        """Return what a file answers, on this many threads."""
        ...


def units(operators: Sequence[Operator]) -> list[Unit]:
    """Return one unit an activation, the input first, in the order of computation."""
    written_by = {operator.output: operator.name for operator in operators}
    names = dict.fromkeys(name for operator in operators for name in (*operator.inputs, operator.output))
    found = []
    for name in names:
        touching = {operator.name for operator in operators if name in operator.inputs}
        if name in written_by:
            touching.add(written_by[name])
        found.append(Unit(name, frozenset(touching)))
    return found

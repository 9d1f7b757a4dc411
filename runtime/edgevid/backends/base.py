"""What every inference engine does here: load one variant, then turn its input tensor into its output tensor."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgevid.bundle import Bundle
from edgevid.errors import UsageError
from edgevid.manifest import Variant

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Backend", "BackendOptions", "available_cores"]


@dataclass(frozen=True)
class BackendOptions:
    """How a backend shall run.

    Attributes:
        device: where; only ``cpu`` so far.
        threads: how many threads one inference uses; 0 for one a core.
    """

    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise UsageError(f"threads {self.threads}: expected 1 or more, or 0 for one a core")

    @property
    def thread_count(self) -> int:
        """The number of threads, resolved."""
        return self.threads or available_cores()


class Backend(ABC):
    """One variant, loaded in one engine on one device.

    Fill :attr:`input` in place, then call :meth:`infer`. A backend is used by one thread at a time.

    Attributes:
        name: the backend's name in the table.
        device: where it runs, as proven.
        threads: how many threads one inference uses.
        input: the input tensor, of shape (1, height, width, channels) and the variant's input dtype.
    """

    name: str
    device: str
    threads: int
    input: npt.NDArray[Any]

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        self.device = options.device
        self.threads = options.thread_count
        self.input = np.zeros(variant.input.shape, variant.input.dtype)

    @abstractmethod
    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (1, classes).

        The array may be the engine's own: it is valid until the next call.

        Raises:
            BackendError: the engine failed.
        """

    def close(self) -> None:  # noqa: B027 - an engine that holds nothing has nothing to release
        """Release what the engine holds; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

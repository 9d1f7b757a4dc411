"""What every inference engine does here: load one variant, then turn its input tensor into its output tensor."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgevid.backends.proof import Proof
from edgevid.bundle import Bundle
from edgevid.errors import UsageError
from edgevid.manifest import Variant

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Backend", "BackendOptions", "Usable", "available_cores"]

MOST_BATCH = 1024
MOST_THREADS_A_CORE = 4  # more only wait for each other, and old engines spin while they do
NUMBERED = frozenset({"gpu", "npu"})


@dataclass(frozen=True)
class BackendOptions:
    """How a backend shall run.

    Attributes:
        device: where: ``cpu``, ``gpu``, ``npu`` or ``edgetpu``; which of several comes after a colon, as in ``gpu:1``
            or ``edgetpu:usb``.
        threads: how many threads one inference uses on the CPU; 0 for one a core.
        allow_partial: accept that a device has not every compute-heavy operator.
        delegate: an external TFLite delegate, a shared library; with litert and tflite.
        provider: an execution provider, with onnxruntime; None for the best one for the device.
        engine_options: what is passed to the delegate, the execution provider or OpenVINO, as it is.
        batch: how many frames at once; more than 1 needs a variant with a free batch.
    """

    device: str = "cpu"
    threads: int = 0
    allow_partial: bool = False
    delegate: str | None = None
    provider: str | None = None
    engine_options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    batch: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MOST_BATCH:
            raise UsageError(f"batch {self.batch}: expected 1 to {MOST_BATCH}")
        most = MOST_THREADS_A_CORE * available_cores()
        if not 0 <= self.threads <= most:
            raise UsageError(f"threads {self.threads}: expected 1 to {most}, or 0 for one a core")
        kind, colon, which = self.device.partition(":")
        if colon and (kind == "cpu" or not which or (kind in NUMBERED and not which.isdecimal())):
            raise UsageError(f"device {self.device!r}: expected a device such as cpu, gpu, gpu:1, npu or edgetpu:usb")
        if self.delegate and self.device != "cpu":
            raise UsageError(f"--delegate {self.delegate}: it is the device; leave --device {self.device} out")
        if self.delegate and self.batch > 1:
            raise UsageError(f"batch {self.batch}: a delegate takes one frame at a time")

    @property
    def thread_count(self) -> int:
        """The number of threads, resolved."""
        return self.threads or available_cores()

    @property
    def device_kind(self) -> str:
        """The device, without which of several."""
        return self.device.partition(":")[0]

    @property
    def which_device(self) -> str:
        """Which of several devices; empty for any."""
        return self.device.partition(":")[2]


@dataclass(frozen=True)
class Usable:
    """Whether a backend can use a device of this machine.

    Attributes:
        device: the device.
        reason: why it cannot; empty if it can.
        remedy: what to do about it, one line.
        hardware: the device's own name.
    """

    device: str
    reason: str = ""
    remedy: str = ""
    hardware: str = ""


class Backend(ABC):
    """One variant, loaded in one engine on one device.

    Fill :attr:`input` in place, then call :meth:`infer`. A backend is used by one thread at a time.

    Attributes:
        name: the backend's name in the table.
        threads: how many threads one inference uses on the CPU.
        batch: how many frames at once.
        proof: where its operators run, as the engine reports it.
    """

    name: str
    threads: int
    batch: int
    proof: Proof

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        self.threads = options.thread_count
        self.batch = options.batch
        self._input = np.zeros((options.batch, *variant.input.shape[1:]), variant.input.dtype)

    @property
    def device(self) -> str:
        """The device, as proven."""
        return self.proof.device

    @property
    def input(self) -> npt.NDArray[Any]:
        """The input tensor, of shape (batch, height, width, channels) and the variant's input dtype, to be written.

        It may be the engine's own memory: ask for it anew for each frame, and do not keep it.
        """
        return self._input

    @abstractmethod
    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (batch, classes).

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

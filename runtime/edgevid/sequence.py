"""Models of several frames at a time: the ring of the last frames, and the class probabilities of their window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.backends import Backend, BackendOptions, backend_entry, load_backend
from edgevid.bundle import Bundle
from edgevid.engine import Engine
from edgevid.errors import UsageError
from edgevid.manifest import OutputSpec, SequenceSpec, Tensor, Variant, check_hop
from edgevid.postprocess import Postprocessor

__all__ = ["FrameRing", "WindowModel", "head_model", "window_model"]


class FrameRing:
    """Keeps the rows of the last frames, preallocated; a row is what a window holds of one frame.

    Until it is full, its first frame stands for those that are missing.

    Args:
        frames: how many it keeps.
        row: one, whose shape and dtype all have.
    """

    def __init__(self, frames: int, row: npt.NDArray[Any]) -> None:
        self._rows = np.zeros((frames, *row.shape), row.dtype)
        self.count = 0

    def push(self, row: npt.NDArray[Any]) -> None:
        """Add the row of the next frame."""
        if self.count:
            self._rows[self.count % len(self._rows)] = row
        else:
            self._rows[:] = row
        self.count += 1

    def copy_to(self, out: npt.NDArray[Any]) -> None:
        """Write the rows into ``out``, of shape (frames, ...), the oldest first."""
        oldest = self.count % len(self._rows)
        newer = len(self._rows) - oldest
        out[:newer] = self._rows[oldest:]
        out[newer:] = self._rows[:oldest]

    def clear(self) -> None:
        """Forget every frame."""
        self.count = 0


class WindowModel:
    """From the rows of frames, in order, to the class probabilities of the window that ends with each.

    The window is classified every ``hop`` frames, and between them the last answer stands. Until as many frames are
    there as the model takes, it is classified with each, the first standing for those that are missing. What comes of
    that is not what the model was trained on, so that it counts only for the share of frames that are there; the rest
    says nothing, that is all classes alike or, with sigmoids, none.

    Args:
        spec: how many frames make a window.
        backend: takes a window, of shape (1, frames, ...).
        tensor: what the backend answers with.
        output: what that is.
        hop: how many frames lie between two windows.
    """

    def __init__(self, spec: SequenceSpec, backend: Backend, tensor: Tensor, output: OutputSpec, hop: int) -> None:
        self.hop, self.frames, self.backend = hop, spec.frames, backend
        self._postprocess = Postprocessor(output, tensor)
        self._ring = FrameRing(spec.frames, backend.input[0, 0])
        self._answer = np.zeros(output.classes, np.float32)
        self._nothing = 0.0 if output.multi_label else 1 / output.classes

    def __call__(self, row: npt.NDArray[Any], gap_s: float = 0.0) -> Probabilities:
        """Add a frame's row and return the class probabilities, float32 (classes,), that stand now.

        The array is this object's own: it changes with the next call.

        Args:
            row: what :class:`edgevid.engine.Engine` answered to the frame.
            gap_s: how many seconds of the stream are missing before it; any are a new beginning.

        Raises:
            BackendError: the engine failed.
        """
        if gap_s:
            self.reset()
        self._ring.push(row)
        after_the_first = self._ring.count - self.frames
        if after_the_first <= 0 or after_the_first % self.hop == 0:
            self._ring.copy_to(self.backend.input[0])
            self._postprocess(self.backend.infer(), self._answer)
        if after_the_first < 0:
            missing = -after_the_first / self.frames
            self._answer *= 1 - missing
            self._answer += missing * self._nothing
        return self._answer

    def of(self, rows: npt.NDArray[Any]) -> Probabilities:
        """Return the class probabilities of one whole window of rows, of shape (frames, ...), whatever came before."""
        self.backend.input[0] = rows
        return self._postprocess(self.backend.infer())

    def reset(self) -> None:
        """Forget every frame, as at the start of another stream."""
        self._ring.clear()

    def close(self) -> None:
        """Release the engine; safe to call twice."""
        self.backend.close()


def window_model(
    bundle: Bundle, engine: Engine, backend: str, options: BackendOptions, hop: int | None = None
) -> WindowModel | None:
    """Return what makes class probabilities of an engine's rows; None where they are class probabilities already.

    Args:
        bundle: the engine's.
        engine: one of those whose rows it gets.
        backend: the engine's.
        options: the engine's.
        hop: how many frames lie between two windows; None for the bundle's.

    Raises:
        UsageError: ``hop`` is out of range, or given for a model of single frames.
        BackendError: the head cannot be loaded.
    """
    manifest = bundle.manifest
    spec = manifest.sequence
    if spec is None or (spec.frames == 1 and hop is not None):
        if hop is not None:
            raise UsageError(f"hop {hop}: {bundle.path.name} classifies single frames, not windows; leave it out")
        return None
    if not manifest.takes_windows:
        return head_model(bundle, engine.variant, backend, options, hop)
    return _of(bundle, spec, engine.backend, engine.variant, hop)


def head_model(
    bundle: Bundle, variant: Variant, backend: str, options: BackendOptions, hop: int | None = None
) -> WindowModel:
    """Load the head of a split model in the backend of a variant, on one thread of the CPU: it is small.

    Raises:
        UsageError: the bundle has none in a format that the backend reads, or ``hop`` is out of range.
        BackendError: it cannot be loaded.
    """
    spec = bundle.manifest.sequence
    assert spec is not None, "a split model has its parts in the manifest"
    heads = {head.format: head for head in spec.heads}
    for name in (backend_entry(backend).formats[0], variant.format):
        if name in heads:
            on_cpu = replace(options, device="cpu", threads=1, batch=1, delegate=None, provider=None, engine_options={})
            return _of(bundle, spec, load_backend(backend, bundle, heads[name], on_cpu), heads[name], hop)
    raise UsageError(f"variant {variant.id!r}: {bundle.path.name} has no head in its format, only {', '.join(heads)}")


def _of(bundle: Bundle, spec: SequenceSpec, backend: Backend, variant: Variant, hop: int | None) -> WindowModel:
    every = spec.hop if hop is None else check_hop(hop)
    return WindowModel(spec, backend, variant.output, bundle.manifest.output, every)

"""What a model's first layers do to its input, and what its first batch normalization saw of it in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid_convert.engine import opened_graph, tf
from edgevid_convert.loading.frozen import Statistics

__all__ = ["FirstLayers", "InnerMap"]

Numbers = npt.NDArray[np.float64]
# They scale and shift each pixel alike, or only move it or its channels; FusedBatchNorm does so after training.
PIXELWISE_OPERATORS = frozenset(
    {"Add", "AddV2", "BiasAdd", "Cast", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Identity", "Mul"}
    | {"MirrorPad", "Neg", "Pad", "PadV2", "RealDiv", "ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2"}
    | {"StridedSlice", "Sub", "Transpose"}
)
MOST_STEPS = 12  # from the input to the first batch normalization
SMALLEST_VARIANCE = 1e-6
NORMAL = 6.0  # no usual normalization of grey levels goes beyond ±6


@dataclass(frozen=True)
class InnerMap:
    """What reaches the first convolution, a number a channel: ``scale`` × input + ``offset``."""

    scale: Numbers
    offset: Numbers

    def range_of(self, low: Numbers | float, high: Numbers | float) -> tuple[float, float]:
        """Return the smallest and largest value at the first convolution for inputs from ``low`` to ``high``."""
        ends = np.concatenate([self.scale * low + self.offset, self.scale * high + self.offset])
        return float(ends.min()), float(ends.max())

    @property
    def normalizes(self) -> bool:
        """Whether it takes grey levels 0–255 to the small numbers that networks are trained on."""
        low, high = self.range_of(0.0, 255.0)
        return -NORMAL <= low < high <= NORMAL

    def __str__(self) -> str:
        """Say it as the manifest says it, the way of ``--mean`` and ``--std``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return f"(pixel − {_shown(-self.offset / self.scale)}) / {_shown(1 / self.scale)}"


class FirstLayers:
    """The first layers of a frozen classifier.

    Args:
        graph: a GraphDef with one Placeholder in use, the image; all variables are constants.
    """

    def __init__(self, graph: Any) -> None:
        self._nodes = {node.name: node for node in graph.node}
        self._users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in _inputs(node):
                self._users.setdefault(name, []).append(node)
        image = next(node for node in graph.node if node.op == "Placeholder" and node.name in self._users)
        self._image = image.name
        self._shape = tuple(dimension.size for dimension in image.attr["shape"].shape.dim)
        self._session = opened_graph(graph)

    def inner_map(self) -> InnerMap:
        """Return what the operators before the first convolution make of the input; 1 and 0 where there are none."""
        name = self._image
        while (node := self._only_user(name)) is not None and node.op in PIXELWISE_OPERATORS:
            name = node.name
        black, grey, white = (self._centre(name, level) for level in (0.0, 127.5, 255.0))
        if black is None or grey is None or white is None or not np.allclose(grey, (black + white) / 2, atol=1e-3):
            return InnerMap(np.ones(self._shape[-1]), np.zeros(self._shape[-1]))
        return InnerMap((white - black) / 255, black)

    def statistics(self) -> Statistics | None:
        """Return those of the first batch normalization, where there is one that was trained.

        They are gone from a graph whose constants were folded: there, take them before, and measure after.
        """
        try:
            return self._found_statistics()
        except tf.errors.InvalidArgumentError:  # what scales the channels is computed from the image
            return None

    def _found_statistics(self) -> Statistics | None:
        name = self._image
        for _ in range(MOST_STEPS):
            node = self._only_user(name)
            if node is None:
                return None
            if node.op.startswith("FusedBatchNorm"):
                if node.attr["is_training"].b:  # by the numbers of this very image, as Keras 2 normalizes layers
                    return None
                scale, offset, mean, variance = (self._constant(other) for other in list(_inputs(node))[1:5])
                return _statistics(node.name, mean, variance, scale / np.sqrt(variance), offset)
            if node.op == "Mul" and (found := self._unfused(node, name)) is not None:
                return found
            name = node.name
        return None

    def divergence(self, seen: Statistics, tensors: Sequence[npt.NDArray[np.float32]]) -> float | None:
        """Return how far the first batch normalization is from what it saw in training; None where it is gone.

        That is the Kullback-Leibler divergence between two normal distributions, the one of its output on ``tensors``
        and the one in training: the median over its channels, in nats. With the preprocessing of training it is well
        below 1.

        Args:
            seen: what it saw.
            tensors: input tensors, float32 (1, height, width, channels).
        """
        if seen.tensor not in self._nodes:
            return None
        answers = np.stack([self._asked(seen.tensor, tensor) for tensor in tensors])
        if answers.shape[-1] != len(seen.mean):  # channels first
            answers = np.moveaxis(answers, 2, -1)
        pixels = answers.reshape(-1, answers.shape[-1])
        variance = np.maximum(seen.variance, SMALLEST_VARIANCE)
        ratio = pixels.var(axis=0) / variance
        shift = (pixels.mean(axis=0) - np.array(seen.mean)) ** 2 / variance
        return float(np.median((ratio + shift - 1 - np.log(np.maximum(ratio, 1e-12))) / 2))

    def _unfused(self, node: Any, name: str) -> Statistics | None:
        """Return the statistics, if ``node`` is where x × s + (beta − mean × s) begins, s = gamma / √variance."""
        factor = next((other for other in _inputs(node) if other != name), name)
        ancestors = self._ancestors(factor)
        if self._image in ancestors:  # computed from the image, as layer normalization does it
            return None
        root = next((other for other in ancestors if self._nodes[other].op == "Rsqrt"), None)
        times_factor = [user for user in self._users[factor] if user.op == "Mul" and user is not node]
        addition = self._only_user(node.name)
        if root is None or not times_factor or addition is None or addition.op not in ("Add", "AddV2"):
            return None
        factors = self._asked(factor)
        if factors.ndim > 1 and factors.shape[-1] != factors.size:  # of another axis, such as the width
            return None
        mean = next(other for other in _inputs(times_factor[0]) if other != factor)
        added = next(other for other in _inputs(addition) if other != node.name)
        mean, variance, scale, offset = map(self._constant, (mean, next(_inputs(self._nodes[root])), factor, added))
        return _statistics(addition.name, mean, variance, scale, offset + mean * scale)

    def _ancestors(self, name: str) -> list[str]:
        found, waiting = [], [name]
        while waiting:
            found.append(name := waiting.pop())
            waiting += _inputs(self._nodes[name])
        return found

    def _only_user(self, name: str) -> Any | None:
        users = [node for node in self._users.get(name, ()) if node.op != "Shape"]
        return users[0] if len(users) == 1 else None

    def _constant(self, name: str) -> Numbers:
        return self._asked(name).reshape(-1)

    def _asked(self, name: str, image: npt.NDArray[np.float32] | None = None) -> Numbers:
        """Return the output of an operator, for an image if it depends on one."""
        feeds = {} if image is None else {f"{self._image}:0": image}
        values: Numbers = self._session.run(f"{name}:0", feeds).astype(np.float64)
        return values

    def _centre(self, name: str, level: float) -> Numbers | None:
        """Return what a uniform image becomes at a tensor, one number a channel, away from any padding."""
        values = self._asked(name, np.full(self._shape, level, np.float32))
        channels = self._shape[-1]
        if values.ndim == 4 and values.shape[1] == channels != values.shape[3]:
            values = values.transpose(0, 2, 3, 1)
        if values.ndim != len(self._shape) or values.shape[-1] != channels:
            return None
        centre: Numbers = values[tuple(size // 2 for size in values.shape[:-1])]
        return centre


def _statistics(tensor: str, mean: Numbers, variance: Numbers, scale: Numbers, beta: Numbers) -> Statistics | None:
    if not mean.any() and len(set(variance)) == 1:  # as it was initialized: it has seen nothing yet
        return None
    return Statistics(tensor, tuple(beta.tolist()), tuple((variance * scale**2).tolist()))


def _inputs(node: Any) -> Any:
    """Yield the names of the operators that a node takes its data from."""
    return (name.split(":")[0] for name in node.input if not name.startswith("^"))


def _shown(values: Numbers) -> str:
    texts = [f"{value:.4g}" if value else "0" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"

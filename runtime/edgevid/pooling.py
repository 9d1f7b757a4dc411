"""From the class probabilities of many frames to one array of scores: the pooling methods of video classification.

They are the baselines of the literature, which asks how well a model of single images does on videos: the mean over
frames of the probabilities (Karpathy et al., "Large-scale Video Classification with Convolutional Neural Networks",
CVPR 2014), their maximum (Yue-Hei Ng et al., "Beyond Short Snippets", CVPR 2015), a product of experts (Hinton,
"Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002), and a vote.

Whole clips and windows of a stream are pooled by them. All work frame by frame, at O(classes) a frame in time and in
memory. Another is a class with these two methods, and a
row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from edgevid.arrays import Probabilities, Scores

__all__ = ["FEATURE_POOLINGS", "POOLINGS", "PRESENT", "Pooling", "least_probability"]

PRESENT = 0.5  # of a sigmoid: from here on a class is there
UNSEEN = 1e-3  # what a frame leaves for all classes together of which it sees nothing


def least_probability(classes: int, multi_label: bool) -> float:
    """Return what no probability counts below where probabilities are multiplied: an equal share of 0.001."""
    return UNSEEN / (2 if multi_label else classes)


class Pooling:
    """The mean over frames of the probabilities; of all that is said of a clip the one to begin with.

    Args:
        classes: how many there are.
        multi_label: the model answers to each class on its own, with a sigmoid.
    """

    combine: np.ufunc = np.add

    def __init__(self, classes: int, multi_label: bool) -> None:
        self.classes, self.multi_label = classes, multi_label

    def write(self, probabilities: Probabilities, row: Scores) -> None:
        """Write what one frame adds, of shape (classes,), into ``row``; ``combine`` adds it to the total."""
        np.copyto(row, probabilities)

    def finish(self, total: Scores, weight: float, scores: Scores) -> None:
        """Write what a total amounts to, of shape (classes,), into ``scores``.

        Args:
            total: of rows, combined.
            weight: how many frames they are; or, where rows were weighted, the sum of the weights.
            scores: where to.
        """
        np.divide(total, weight, out=scores)


class Max(Pooling):
    """The highest probability of any frame: for what is seen rarely, but then clearly."""

    combine = np.maximum

    def finish(self, total: Scores, weight: float, scores: Scores) -> None:
        """Write the highest probabilities."""
        np.copyto(scores, total)


class LogMean(Pooling):
    """The normalized geometric mean, a product of experts: a class that many frames rule out has little chance.

    It is the softmax of the mean logits, since softmax(mean(log p)) = softmax(mean(z)) for p = softmax(z). In a CNN
    with one dense layer at its end z = W f + b, so that it is also what this layer answers to the mean of the frames'
    features f: average pooling of the penultimate features, without access to them. With a sigmoid it is the sigmoid
    of the mean logits.

    Small probabilities of int8 models are 0, and a single 0 would outweigh all other frames; so would the tiny ones of
    models that are too sure of themselves. So none counts for less than an equal share of 0.001 among the classes, and
    the above holds exactly where none is smaller.
    """

    def __init__(self, classes: int, multi_label: bool) -> None:
        super().__init__(classes, multi_label)
        self._least = least_probability(classes, multi_label)
        self._rest = np.zeros(classes, np.float64)

    def write(self, probabilities: Probabilities, row: Scores) -> None:
        """Write the logarithms; with a sigmoid the logits."""
        np.copyto(row, probabilities)  # whose 32 bits would round the limits
        np.clip(row, self._least, 1 - self._least if self.multi_label else 1, out=row)
        if self.multi_label:
            np.subtract(1, row, out=self._rest)
            np.divide(row, self._rest, out=row)
        np.log(row, out=row)

    def finish(self, total: Scores, weight: float, scores: Scores) -> None:
        """Write the softmax, or sigmoid, of the mean."""
        np.divide(total, weight, out=scores)
        if self.multi_label:
            np.negative(scores, out=scores)
            np.exp(scores, out=scores)
            np.add(scores, 1, out=scores)
            np.reciprocal(scores, out=scores)
        else:
            np.subtract(scores, scores.max(), out=scores)
            np.exp(scores, out=scores)
            np.divide(scores, scores.sum(), out=scores)


class Vote(Pooling):
    """The share of frames whose own label it is; with a sigmoid, of those where it is 0.5 or more."""

    def write(self, probabilities: Probabilities, row: Scores) -> None:
        """Write one vote; with a sigmoid, one for each class that is there."""
        if self.multi_label:
            np.greater_equal(probabilities, PRESENT, out=row)
        else:
            row.fill(0)
            row[probabilities.argmax()] = 1


POOLINGS: Mapping[str, type[Pooling]] = MappingProxyType(
    {"mean": Pooling, "max": Max, "log-mean": LogMean, "vote": Vote}
)
# Of the features before the last layer, which then makes class probabilities of what was pooled: of bundles cut there.
FEATURE_POOLINGS: Mapping[str, np.ufunc] = MappingProxyType({"feature-mean": np.add, "feature-max": np.maximum})

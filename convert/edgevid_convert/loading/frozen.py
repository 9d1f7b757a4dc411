"""What loading a model comes to: graphs without variables, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.manifest import Activation, OutputSpec

__all__ = ["FrozenGraph", "FrozenModel", "Statistics"]

Values: TypeAlias = npt.NDArray[np.float32]


class Statistics(msgspec.Struct, frozen=True):
    """What the first batch normalization gave in training: a mean and a variance a channel.

    Attributes:
        tensor: the name of the operator with its output.
        mean, variance: of that output.
    """

    tensor: str
    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenGraph:
    """A function of one tensor, as one graph without variables.

    Attributes:
        graph: TensorFlow's GraphDef: the placeholder ``image``, float32 of a fixed shape that begins with 1, and the
            node ``output``, float32 (1, n).
    """

    graph: Any

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what it takes."""
        (placeholder,) = (node for node in self.graph.node if node.name == "image")
        return tuple(int(dimension.size) for dimension in placeholder.attr["shape"].shape.dim)

    @cached_property
    def _session(self) -> Any:
        from edgevid_convert.engine import opened_graph

        return opened_graph(self.graph)

    def __call__(self, tensor: Values) -> Values:
        """Return the answer to one tensor of :attr:`input_shape`, float32 (1, n)."""
        answer: Values = self._session.run("output:0", {"image:0": tensor})
        return answer

    def save_frozen(self, folder: Path) -> None:
        """Write the graph as a SavedModel whose signature names its input ``image`` and its output ``output``."""
        from edgevid_convert.engine import tf

        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(self.graph, name=""), [])
        function = imported.prune("image:0", "output:0")
        spec = tf.TensorSpec(self.input_shape, tf.float32, name="image")
        module = tf.Module()
        module.serve = tf.function(lambda image: {"output": function(image)}, input_signature=[spec], autograph=False)
        # Without gradients, which nothing here needs: swish has one of its own that a frozen graph cannot save.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), module.serve.get_concrete_function(), options)


@dataclass(frozen=True, kw_only=True)
class FrozenModel(FrozenGraph):
    """A classifier of images, or of windows of frames, of a fixed size.

    Its graph takes one image, (1, height, width, channels), or one window, (1, frames, height, width, channels). Where
    there is a ``head`` the model is split: the graph answers to one frame with features, (1, features), and the head
    makes class scores of those of a window, (1, frames, features), or of an image, (1, 1, features).

    Attributes:
        height, width, channels: the image's size.
        classes: how many classes the model tells apart.
        binary: whether it answers with one number, the score of the second of two classes.
        activation: what its last layer makes of its logits.
        statistics: what the first batch normalization saw in training, where there is one.
        frames: how many make a window; 0 for a model of images.
        head: see above.
        written_by: the kind of file it was read from, and which Keras wrote that.
        notes: what was done to its layers so that converters can express them, a line each.
    """

    height: int
    width: int
    channels: Literal[1, 3]
    classes: int
    activation: Activation
    binary: bool = False
    statistics: Statistics | None = None
    frames: int = 0
    head: FrozenGraph | None = None
    written_by: str = ""
    notes: tuple[str, ...] = ()

    @property
    def output(self) -> OutputSpec:
        """What the model answers with."""
        return OutputSpec(classes=self.classes, activation=self.activation, binary=self.binary)

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """The shape of what the whole model classifies: (height, width, channels), of a window after its frames."""
        image = self.height, self.width, self.channels
        return (self.frames, *image) if self.frames else image

    def answer(self, tensor: Values) -> Values:
        """Return the whole model's own answer, (1, classes): the reference that variants are held against.

        Args:
            tensor: an image or a window: float32, 1 and :attr:`picture_shape`.
        """
        return self.completed(self)(tensor)

    def completed(self, answers: Callable[[Values], Values]) -> Callable[[Values], Values]:
        """Return a function of what the whole model takes, with ``answers`` in place of the graph.

        Args:
            answers: as the graph, or a conversion of it, answers to one tensor: (1, n) or (n,).
        """
        head = self.head
        if head is None:
            return answers

        def of_window(tensor: Values) -> Values:
            frames = tensor.reshape(-1, 1, self.height, self.width, self.channels)
            return head(np.stack([answers(frame) for frame in frames]).reshape(head.input_shape))

        return of_window

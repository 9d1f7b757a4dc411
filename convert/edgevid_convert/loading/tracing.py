"""Freezes an opened model for images of one size, and holds the frozen graph against the model itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError, UsageError
from edgevid_convert.causes import cause_of
from edgevid_convert.engine import tf
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.loading.activation import Operator, activation_of
from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.loading.graphs.channels import with_channels_last
from edgevid_convert.loading.graphs.float32 import computes_in_float32, in_float32
from edgevid_convert.loading.graphs.freezing import INPUT_NAME, OUTPUT_NAME, frozen_graph, plain_graph
from edgevid_convert.loading.graphs.rewriting import with_common_operators
from edgevid_convert.loading.model import Request
from edgevid_convert.loading.opened import Opened

__all__ = [
    "PROBE_SIZES",
    "check_no_loop",
    "checked",
    "freeze",
    "frozen_function",
    "only",
    "scores_of",
    "shown",
    "traced",
]

PROBE_SIZES = (0.1, 1.0, 10.0, 100.0)  # of the noise that a model is asked about
PICTURES = 12  # of grey levels, that it is asked about besides
TOLERANCE = 1e-3  # of the largest answer
COARSE_TOLERANCE = 0.1  # the same for a model that computed in fewer bits than float32 has
LAST_BITS, MAGNIFIED = 2.0**-21, 30
LOOP = re.compile(r"^(Stateless)?While$|^(Ref)?Enter$|^TensorList")
EXPECTED = "expected one image, (batch, height, width, 1 or 3 channels) or (batch, height, width)"


@dataclass(frozen=True)
class ImageInput:
    """How an image, channels last, becomes what a model takes.

    Attributes:
        height, width, channels: of the image.
        axes: the order in which the model has the axes of (batch, height, width, channels).
        shape: what it has in their place, if it is no image: (batch, height, width) or (batch, pixels); else None.
    """

    height: int
    width: int
    channels: Literal[1, 3]
    axes: tuple[int, ...] = (0, 1, 2, 3)
    shape: tuple[int, ...] | None = None

    def __call__(self, image: Any) -> Any:
        """Return the tensor that the model takes for a channels-last image."""
        if self.shape is not None:
            return tf.reshape(image, self.shape)
        return image if self.axes == (0, 1, 2, 3) else tf.transpose(image, self.axes)


def freeze(opened: Opened, path: Path, request: Request) -> FrozenModel:
    """Return a model of one channels-last image as a graph.

    Raises:
        ModelError: it is no image classifier, answers at random, or not as it did before.
        UsageError: its input size is open, or ``request`` contradicts it.
    """
    image_input = _image_input(path, opened.shape, request.image_size)
    height, width, channels = image_input.height, image_input.width, image_input.channels

    def classify(image: Any) -> Any:
        answer = opened.call(tf.cast(image_input(image), opened.dtype))
        return scores_of(path, tf.cast(only(path, answer), tf.float32))

    function = traced(path, classify, (1, height, width, channels), f"an image of {height}×{width}×{channels}")
    plain, graph = frozen_function(path, function)
    units = int(function.outputs[0].shape[-1])
    frozen = FrozenModel(
        height=height,
        width=width,
        channels=channels,
        classes=max(2, units),
        binary=units == 1,
        activation="logits",
        statistics=FirstLayers(plain).statistics(),
        graph=graph,
    )
    return checked(path, frozen, classify, opened.dtype, plain, request)


def traced(path: Path, function: Any, shape: tuple[int, ...], what: str) -> Any:
    """Return the ConcreteFunction of a function of one float32 tensor.

    Raises:
        ModelError: it does not run on such a tensor, which is ``what``.
    """
    try:
        return _traced(function, tf.TensorSpec(shape, tf.float32, name=INPUT_NAME))
    except (ValueError, TypeError, AttributeError, NotImplementedError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: it does not run on {what}: {cause_of(error)}; try --image-size") from error


def frozen_function(path: Path, function: Any) -> tuple[Any, Any]:
    """Return the GraphDef of a ConcreteFunction as it is, but in float32, and in few and common operators.

    Raises:
        ModelError: TensorFlow cannot freeze it, it answers at random, or it holds a loop.
    """
    plain = _plain(path, function)
    graph = _frozen(path, plain if computes_in_float32(plain) else in_float32(plain))
    check_no_loop(path, graph)
    return plain, graph


def checked(
    path: Path, frozen: FrozenModel, classify: Callable[[Any], Any], dtype: Any, plain: Any, request: Request
) -> FrozenModel:
    """Return the model with what its scores are, once it answers as ``classify``, which it was made of.

    Args:
        path: the model's, for messages.
        frozen: the model.
        classify: a function of one float32 tensor.
        dtype: of what the model takes.
        plain: the GraphDef that was frozen.
        request: what the child was asked to load.

    Raises:
        ModelError: it does not.
        UsageError: what its scores are cannot be told.
    """
    answers = _checked_answers(path, frozen, classify, dtype, 1 if computes_in_float32(plain) else COARSE_TOLERANCE)
    last = frozen.head or frozen
    activation = request.activation or activation_of(path, _operators(last.graph), OUTPUT_NAME, answers)
    if frozen.binary and activation == "softmax":
        raise UsageError(f"{path}: --activation softmax: it has one unit; expected sigmoid or logits")
    return replace(frozen, activation=activation)


def _traced(function: Any, spec: Any) -> Any:
    """Return the ConcreteFunction, without inner calls where that is possible: some converters lose them."""
    with _inlining():
        try:
            traced = tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
            return _without_unread(function, spec) if _random_node(traced.graph.as_graph_def()) else traced
        except Exception:  # noqa: BLE001 - a function of the model's own may need TensorFlow's reading of its Python code
            tf.config.run_functions_eagerly(False)
            return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def _without_unread(function: Any, spec: Any) -> Any:
    """Return the ConcreteFunction of only what the answer reads.

    Some layers that augment draw their random numbers at inference too, and then do nothing with them.
    """
    wrapped = tf.compat.v1.wrap_function(function, [spec])
    pruned = wrapped.prune(wrapped.inputs[0], wrapped.outputs[0])
    pruned.outputs[0].set_shape(wrapped.outputs[0].shape)  # which an answer of a SavedModel's function has lost
    return pruned


@contextmanager
def _inlining() -> Iterator[None]:
    """Have functions called while tracing become part of the trace.

    Keras puts grouped and channels-first convolutions into functions that XLA must compile.
    """
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def only(path: Path, answer: Any) -> Any:
    """Return the one tensor of an answer that may be a list or a dict."""
    answers = list(answer.values()) if isinstance(answer, dict) else answer
    if not isinstance(answers, list | tuple):
        return answers
    if len(answers) != 1:
        raise ModelError(f"{path}: {len(answers)} outputs; expected one, the classes: cut the others off")
    return answers[0]


def _image_input(path: Path, stated: Sequence[int | None], image_size: tuple[int, int] | None) -> ImageInput:
    """Return how an image becomes what a model of the stated input shape takes.

    Raises:
        ModelError: that is no image.
        UsageError: its size is open, or ``image_size`` contradicts it.
    """
    shape = tuple(stated) or (None, None, None, None)
    if len(shape) == 2:
        return _flat_input(path, shape, image_size)
    if len(shape) == 3:  # grey, without an axis for its one channel
        height, width = _size(path, stated, (shape[1], shape[2]), image_size)
        return ImageInput(height, width, 1, shape=(1, height, width))
    if len(shape) != 4:
        raise ModelError(f"{path}: input of shape {shown(stated)}; {EXPECTED}")
    axes = (0, 1, 2, 3)
    if shape[1] in (1, 3) and shape[3] not in (1, 3):
        axes, shape = (0, 3, 1, 2), (shape[0], shape[2], shape[3], shape[1])
    if shape[3] not in (1, 3, None):
        raise ModelError(f"{path}: input of shape {shown(stated)}; {EXPECTED}")
    height, width = _size(path, stated, (shape[1], shape[2]), image_size)
    return ImageInput(height, width, 1 if shape[3] == 1 else 3, axes)


def _flat_input(path: Path, shape: Sequence[int | None], image_size: tuple[int, int] | None) -> ImageInput:
    pixels = shape[1]
    for channels in (1, 3) if image_size and pixels else ():
        height, width = image_size or (0, 0)
        if height * width * channels == pixels:
            return ImageInput(height, width, 1 if channels == 1 else 3, shape=(1, pixels))
    raise ModelError(
        f"{path}: input of shape {shown(shape)}; {EXPECTED}; for pixels in one row give --image-size H,W, of which "
        "H × W or 3 × H × W is their number"
    )


def _size(
    path: Path,
    stated: Sequence[int | None],
    own: tuple[int | None, int | None],
    image_size: tuple[int, int] | None,
) -> tuple[int, int]:
    height, width = image_size or own
    if height is None or width is None:
        raise UsageError(f"{path}: input of shape {shown(stated)} leaves the size open; give --image-size H,W")
    if own[0] not in (None, height) or own[1] not in (None, width):
        raise UsageError(f"--image-size {height},{width}: the model takes {own[0]},{own[1]}; leave it out")
    return height, width


def scores_of(path: Path, answer: Any) -> Any:
    """Return an answer as one score a class, (1, classes).

    Raises:
        ModelError: it is something else.
    """
    shape = answer.shape
    sizes = tuple(shape[1:]) if shape.rank else (None,)  # a SavedModel leaves the batch open
    if None in sizes or shape[0] not in (1, None) or prod(sizes) != max(sizes, default=1):
        found = shown(shape) if shape.rank is not None else "(unknown)"
        raise ModelError(
            f"{path}: output of shape {found}; expected one score a class, such as (batch, classes): a feature map "
            "needs its pooling and classification layers"
        )
    return answer if tuple(shape) == (1, *sizes) and len(sizes) == 1 else tf.reshape(answer, (1, prod(sizes)))


def check_no_loop(path: Path, graph: Any) -> None:
    """Refuse a loop: what it carries from one step to the next, neither TFLite nor ONNX has."""
    if loop := next((node for node in graph.node if LOOP.search(node.op)), None):
        raise ModelError(
            f"{path}: {loop.name} is a loop, as TensorFlow saves recurrent layers, and TFLite and ONNX "
            "have no operator for it; convert the .keras or .h5 file, in which such layers are unrolled"
        )


def _plain(path: Path, function: Any) -> Any:
    try:
        return plain_graph(function)
    except Exception as error:
        _check_repeatable(path, function.graph.as_graph_def())  # random numbers have a state, which does not freeze
        raise ModelError(f"{path}: TensorFlow cannot freeze it: {cause_of(error)}") from error


def _frozen(path: Path, plain: Any) -> Any:
    try:
        graph = _without_detours(with_channels_last(with_common_operators(frozen_graph(plain))))
    except Exception as error:
        _check_repeatable(path, plain)
        raise ModelError(f"{path}: TensorFlow cannot freeze it: {cause_of(error)}") from error
    _check_repeatable(path, graph)
    return graph


def _without_detours(graph: Any) -> Any:
    """Return the graph without the image's cast to integers and straight back, with which a model of uint8 begins.

    Grey levels are whole numbers, which it leaves as they are; in a quantized graph it would cut levels off.
    """
    nodes = {node.name: node for node in graph.node}
    turned = {node.name for node in graph.node if node.op == "Transpose" and node.input[0] == INPUT_NAME}
    for node in graph.node:
        if node.op != "Cast" or nodes[INPUT_NAME].attr["dtype"].type != node.attr["DstT"].type:
            continue
        before = nodes.get(node.input[0])
        if before is not None and before.op == "Cast" and before.input[0] in {INPUT_NAME, *turned}:
            node.op, node.input[0] = "Identity", before.input[0]
            node.attr["T"].type = node.attr["DstT"].type
            for name in ("SrcT", "DstT", "Truncate"):
                node.attr.pop(name, None)
    return tf.compat.v1.graph_util.extract_sub_graph(graph, [OUTPUT_NAME])


def _check_repeatable(path: Path, graph: Any) -> None:
    node = _random_node(graph)
    if node is not None:
        raise ModelError(
            f"{path}: it answers at random ({node.name} is a {node.op}): a layer that augments or drops out was "
            "saved as in training; convert the .keras file, where it can be turned off"
        )


def _random_node(graph: Any) -> Any | None:
    """Return the first operator of a GraphDef that draws random numbers, in its functions too."""
    nodes = (*graph.node, *(node for function in graph.library.function for node in function.node_def))
    return next((node for node in nodes if "Random" in node.op or "Multinomial" in node.op), None)


def _operators(graph: Any) -> dict[str, Operator]:
    return {
        node.name: Operator(node.op, [name.partition(":")[0].lstrip("^") for name in node.input])
        for node in graph.node
        if node.op != "Const"
    }


def _checked_answers(
    path: Path, frozen: FrozenModel, classify: Callable[[Any], Any], dtype: Any, coarser: float
) -> npt.NDArray[np.float32]:
    """Return the frozen graph's answers to noise and pictures, (inputs, n); those to noise must be the model's own.

    ``coarser`` is 1, or the tolerance in place of the usual one; for the rest see :func:`checked`.
    """
    generator = np.random.default_rng(0)
    shape = (1, *frozen.picture_shape)
    answers = []
    for size in PROBE_SIZES:
        noise = generator.normal(0, size, shape) if dtype.is_floating else generator.integers(0, 256, shape)
        image = noise.astype(np.float32)
        answer, expected = frozen.answer(image), np.asarray(classify(tf.constant(image)))
        # Folding constants rounds anew, and a badly scaled model magnifies that, as it does the last bits of its input.
        nearly = np.asarray(classify(tf.constant(image * np.float32(1 + LAST_BITS))))
        tolerance = TOLERANCE if coarser == 1 else coarser
        slack = max(tolerance * max(1.0, np.abs(expected).max()), MAGNIFIED * np.abs(nearly - expected).max())
        error = np.abs(answer - expected).max()
        if not error <= slack and np.isfinite(expected).all():
            raise ModelError(
                f"{path}: frozen for conversion it answers otherwise than before (max abs error {error:.1e})"
            )
        answers.append(answer)
    for index in range(PICTURES):
        levels = generator.uniform(0, 255, (*shape[:-1], 1)) if index % 2 else generator.uniform(0, 255, shape)
        scale = 1.0 if index % 3 else 1 / 255
        answers.append(frozen.answer((levels * np.ones(shape) * scale).astype(np.float32)))
    return np.concatenate(answers)


def shown(shape: Sequence[int | None]) -> str:
    """Return a shape for reading."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"

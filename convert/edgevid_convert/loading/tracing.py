"""Freezes an opened model for images of one size, and holds the frozen graph against the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError, UsageError, first_line
from edgevid.manifest import Activation
from edgevid_convert.engine import tf
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.loading.channels import with_channels_last
from edgevid_convert.loading.freezing import INPUT_NAME, OUTPUT_NAME, frozen_graph, plain_graph
from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.loading.opening import Opened

__all__ = ["PROBE_SIZES", "check_output", "checked", "freeze", "frozen_function", "only", "shown", "traced"]

# What may stand between the last activation and the output.
TRANSPARENT_OPERATORS = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "NoOp"})
ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
PROBE_SIZES = (0.1, 1.0, 10.0, 100.0)  # of the noise that a model is asked about
TOLERANCE = 1e-3  # of the largest answer
LAST_BITS, MAGNIFIED = 2.0**-21, 30
CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 1, 2, 3)


def freeze(opened: Opened, path: Path, image_size: tuple[int, int] | None) -> FrozenModel:
    """Return a model of one channels-last image as a graph.

    Raises:
        ModelError: it is no image classifier, answers at random, or not as it did before.
        UsageError: its input size is open, or ``image_size`` contradicts it.
    """
    axes, shape = _as_channels_last(opened.shape)
    height, width, channels = _image_shape(path, opened.shape, shape, image_size)

    def classify(image: Any) -> Any:
        turned = image if axes == CHANNELS_LAST else tf.transpose(image, axes)
        return tf.cast(only(path, opened.call(tf.cast(turned, opened.dtype))), tf.float32)

    function = traced(path, classify, (1, height, width, channels), f"an image of {height}×{width}×{channels}")
    check_output(path, function.outputs[0].shape)
    plain, graph = frozen_function(path, function)
    frozen = FrozenModel(
        height=height,
        width=width,
        channels=channels,
        classes=int(function.outputs[0].shape[-1]),
        activation="logits",
        statistics=FirstLayers(plain).statistics(),
        graph=graph,
    )
    return checked(path, frozen, classify, opened.dtype)


def traced(path: Path, function: Any, shape: tuple[int, ...], what: str) -> Any:
    """Return the ConcreteFunction of a function of one float32 tensor.

    Raises:
        ModelError: it does not run on such a tensor, which is ``what``.
    """
    try:
        return _traced(function, tf.TensorSpec(shape, tf.float32, name=INPUT_NAME))
    except (ValueError, TypeError, AttributeError, NotImplementedError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: it does not run on {what}: {_cause(error)}; try --image-size") from error


def frozen_function(path: Path, function: Any) -> tuple[Any, Any]:
    """Return the GraphDef of a ConcreteFunction as it is, and in few and common operators.

    Raises:
        ModelError: TensorFlow cannot freeze it, or it answers at random.
    """
    plain = _plain(path, function)
    return plain, _frozen(path, plain)


def checked(path: Path, frozen: FrozenModel, classify: Any, dtype: Any) -> FrozenModel:
    """Return the model with what its last layer is, once it answers as ``classify``, which it was made of.

    Raises:
        ModelError: it does not.
    """
    answers = _checked_answers(path, frozen, classify, dtype)
    last = frozen.head or frozen
    return replace(frozen, activation=_activation(last.graph, answers))


def _traced(function: Any, spec: Any) -> Any:
    """Return the ConcreteFunction, without inner calls where that is possible: some converters lose them."""
    with _inlining():
        try:
            return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
        except Exception:  # noqa: BLE001 - a function of the model's own may need TensorFlow's reading of its Python code
            tf.config.run_functions_eagerly(False)
            return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


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


def _as_channels_last(shape: Sequence[int | None]) -> tuple[tuple[int, ...], Sequence[int | None]]:
    """Return the axes that turn an image into what the model takes, and the model's input shape, channels last."""
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        return CHANNELS_FIRST, (shape[0], shape[2], shape[3], shape[1])
    return CHANNELS_LAST, shape or (None, None, None, None)


def _image_shape(
    path: Path, stated: Sequence[int | None], shape: Sequence[int | None], image_size: tuple[int, int] | None
) -> tuple[int, int, Literal[1, 3]]:
    if len(shape) != 4 or shape[3] not in (1, 3, None):
        raise ModelError(f"{path}: input of shape {shown(stated)}; expected one image, (batch, height, width, 1 or 3)")
    channels: Literal[1, 3] = 1 if shape[3] == 1 else 3
    if image_size is None:
        if shape[1] is None or shape[2] is None:
            raise UsageError(f"{path}: input of shape {shown(stated)} leaves the size open; give --image-size H,W")
        return shape[1], shape[2], channels
    height, width = image_size
    if shape[1] not in (None, height) or shape[2] not in (None, width):
        raise UsageError(f"--image-size {height},{width}: the model takes {shape[1]},{shape[2]}; leave it out")
    return height, width, channels


def check_output(path: Path, shape: Any) -> None:
    """Refuse an answer that is not one score a class."""
    if shape.rank != 2 or shape[-1] is None or shape[-1] < 2:
        found = shown(shape) if shape.rank is not None else "(unknown)"
        raise ModelError(
            f"{path}: output of shape {found}; expected (batch, classes) with 2 classes or more. "
            "A single sigmoid must become two classes, a feature map needs its pooling and classification layers"
        )


def _plain(path: Path, function: Any) -> Any:
    try:
        return plain_graph(function)
    except Exception as error:
        _check_repeatable(path, function.graph.as_graph_def())  # random numbers have a state, which does not freeze
        raise ModelError(f"{path}: TensorFlow cannot freeze it: {first_line(error)}") from error


def _frozen(path: Path, plain: Any) -> Any:
    try:
        graph = _without_detours(with_channels_last(frozen_graph(plain)))
    except Exception as error:
        _check_repeatable(path, plain)
        raise ModelError(f"{path}: TensorFlow cannot freeze it: {first_line(error)}") from error
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
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        if "Random" in node.op or "Multinomial" in node.op:
            raise ModelError(
                f"{path}: it answers at random ({node.name} is a {node.op}): a layer that augments or drops out was "
                "saved as in training; convert the .keras file, where it can be turned off"
            )


def _checked_answers(path: Path, frozen: FrozenModel, classify: Any, dtype: Any) -> npt.NDArray[np.float32]:
    """Return the frozen graph's answers to noise, float32 (probes, classes), which must be the model's own."""
    generator = np.random.default_rng(0)
    shape = (1, *frozen.picture_shape)
    answers = []
    for size in PROBE_SIZES:
        noise = generator.normal(0, size, shape) if dtype.is_floating else generator.integers(0, 256, shape)
        image = noise.astype(np.float32)
        answer, expected = frozen.answer(image), np.asarray(classify(tf.constant(image)))
        # Folding constants rounds anew, and a badly scaled model magnifies that, as it does the last bits of its input.
        nearly = np.asarray(classify(tf.constant(image * np.float32(1 + LAST_BITS))))
        slack = max(TOLERANCE * max(1.0, np.abs(expected).max()), MAGNIFIED * np.abs(nearly - expected).max())
        error = np.abs(answer - expected).max()
        if not error <= slack:
            raise ModelError(
                f"{path}: frozen for conversion it answers otherwise than before (max abs error {error:.1e})"
            )
        answers.append(answer)
    return np.concatenate(answers)


def _activation(graph: Any, answers: npt.NDArray[np.float32]) -> Activation:
    """Return what the last layer makes of its logits: read from the graph, else told from a few answers."""
    nodes = {node.name: node for node in graph.node}
    node = nodes[OUTPUT_NAME]
    while node.op in TRANSPARENT_OPERATORS and node.input:
        node = nodes[node.input[0].partition(":")[0].lstrip("^")]
    if node.op in ACTIVATIONS:
        return ACTIVATIONS[node.op]
    sums_to_one = np.abs(answers.sum(axis=1) - 1) < 1e-3
    return "softmax" if (answers >= 0).all() and sums_to_one.all() else "logits"


def shown(shape: Sequence[int | None]) -> str:
    """Return a shape for reading."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _cause(error: Exception) -> str:
    """Return the last line of what TensorFlow says: before it stands where in Keras' code it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(("Arguments", "•"))), "no reason given")[:300]

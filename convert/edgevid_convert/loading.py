"""From a model file to one function, frozen: image in, class probabilities or logits out."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError, UsageError, first_line
from edgevid.manifest import Activation
from edgevid_convert.engine import keras, tf

__all__ = ["TracedModel", "load_model"]

INPUT_NAME = "image"
OUTPUT_NAME = "output"
# What may stand between the last activation and the output.
TRANSPARENT_OPERATORS = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "NoOp"})
ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
PROBE_SIZES = (0.1, 1.0, 10.0, 100.0)  # of the noise that a model is asked about
SAVED_MODEL_FILE = "saved_model.pb"


@dataclass(frozen=True)
class TracedModel:
    """A classifier as TensorFlow functions of one image of a fixed size.

    Attributes:
        height, width, channels: the image's size.
        function: the model itself, as Keras or the SavedModel computes it; float32 (1, height, width, channels).
        owner: keeps the model's variables alive.
    """

    height: int
    width: int
    channels: Literal[1, 3]
    function: Any
    owner: Any

    @cached_property
    def frozen(self) -> Any:
        """The function with its variables turned into constants, and every inner function inlined."""
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        return convert_variables_to_constants_v2(self.function)

    @cached_property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return int(self.function.structured_outputs[OUTPUT_NAME].shape[-1])

    @cached_property
    def activation(self) -> Activation:
        """What the last layer makes of its logits: read from the frozen graph, else told from a few answers."""
        operator = self.frozen.outputs[0].op
        while operator.type in TRANSPARENT_OPERATORS and operator.inputs:
            operator = operator.inputs[0].op
        if operator.type in ACTIVATIONS:
            return ACTIVATIONS[operator.type]
        generator = np.random.default_rng(0)
        shape = (1, self.height, self.width, self.channels)
        answers = np.concatenate([self(generator.normal(0, size, shape).astype(np.float32)) for size in PROBE_SIZES])
        sums_to_one = np.abs(answers.sum(axis=1) - 1) < 1e-3
        return "softmax" if (answers >= 0).all() and sums_to_one.all() else "logits"

    def save_frozen(self, folder: Path) -> None:
        """Write the frozen function as a SavedModel whose signature names its input and its output."""
        spec = tf.TensorSpec((1, self.height, self.width, self.channels), tf.float32, name=INPUT_NAME)
        frozen = self.frozen
        module = tf.Module()
        module.serve = tf.function(
            lambda image: {OUTPUT_NAME: frozen(image)[0]}, input_signature=[spec], autograph=False
        )
        tf.saved_model.save(module, str(folder), signatures=module.serve.get_concrete_function())

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the model's own answer, float32 (1, classes): the reference that variants are held against."""
        answer: npt.NDArray[np.float32] = self.function(tf.constant(images))[OUTPUT_NAME].numpy()
        return answer


def load_model(path: Path, image_size: tuple[int, int] | None = None) -> TracedModel:
    """Load a ``.keras``, ``.h5`` or SavedModel classifier and trace it for images of one size.

    Args:
        path: the file, or the SavedModel's folder.
        image_size: height and width; None for what the model states.

    Raises:
        ModelError: it cannot be read, or is no image classifier.
        UsageError: the model leaves its input size open and ``image_size`` is None, or they contradict.
    """
    call, shape, owner = _load_saved_model(path) if path.is_dir() else _load_keras(path)
    height, width, channels = _image_shape(path, shape, image_size)

    def classify(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(call(image), tf.float32)}

    try:
        spec = tf.TensorSpec((1, height, width, channels), tf.float32, name=INPUT_NAME)
        function = tf.function(classify, input_signature=[spec], autograph=False).get_concrete_function()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(
            f"{path}: it does not run on an image of {height}×{width}×{channels}: {_cause(error)}; try --image-size"
        ) from error
    model = TracedModel(height, width, channels, function, owner)
    _check_output(path, function.structured_outputs[OUTPUT_NAME].shape)
    return model


def _load_keras(path: Path) -> tuple[Callable[[Any], Any], Sequence[int | None], Any]:
    _check_container(path)
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        if "Lambda" in str(error):
            raise ModelError(
                f"{path}: it holds a Lambda layer, which is Python code; save the model with a layer of its own instead"
            ) from error
        raise ModelError(f"{path}: Keras cannot load it: {first_line(error)}") from error
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs) or "none stated"
        raise ModelError(f"{path}: {len(inputs)} inputs ({names}); expected one image input")
    if len(outputs) != 1:
        names = ", ".join(tensor.name for tensor in outputs)
        raise ModelError(f"{path}: {len(outputs)} outputs ({names}); expected one, the classes: cut the others off")
    dtype = inputs[0].dtype

    def call(image: Any) -> Any:
        answer = model(tf.cast(image, dtype), training=False)
        if isinstance(answer, dict):
            return next(iter(answer.values()))
        return answer[0] if isinstance(answer, list | tuple) else answer

    return call, tuple(inputs[0].shape), model


def _load_saved_model(path: Path) -> tuple[Callable[[Any], Any], Sequence[int | None], Any]:
    if not (path / SAVED_MODEL_FILE).is_file():
        raise ModelError(f"{path}: no {SAVED_MODEL_FILE} in it; expected a .keras or .h5 file, or a SavedModel folder")
    try:
        owner = tf.saved_model.load(str(path))
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot load it: {first_line(error)}") from error
    signatures = dict(owner.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise ModelError(f"{path}: it has no signature to call; save it with one, as model.export() does")
    signature = signatures[name]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1:
        raise ModelError(f"{path}: {len(inputs)} inputs ({', '.join(inputs)}); expected one image input")
    if len(outputs) != 1:
        raise ModelError(f"{path}: {len(outputs)} outputs ({', '.join(outputs)}); expected one, the classes")
    (input_name, spec), output_name = next(iter(inputs.items())), next(iter(outputs))
    shape = tuple(spec.shape) if spec.shape.rank is not None else ()
    return lambda image: signature(**{input_name: tf.cast(image, spec.dtype)})[output_name], shape, owner


def _check_container(path: Path) -> None:
    """Say what a file that cannot be a model is, before Keras says it in a paragraph."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(8)
    if suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a Keras model (a .keras file is a ZIP archive); save it with model.save()")
    if suffix in {".h5", ".hdf5"} and head != b"\x89HDF\r\n\x1a\n":
        raise ModelError(f"{path}: not an HDF5 file; save the model with model.save()")
    if suffix not in {".keras", ".h5", ".hdf5"}:
        raise ModelError(f"{path}: unknown kind of model file; expected .keras, .h5, .hdf5 or a SavedModel folder")


def _image_shape(
    path: Path, shape: Sequence[int | None], image_size: tuple[int, int] | None
) -> tuple[int, int, Literal[1, 3]]:
    if len(shape) != 4 or shape[3] not in (1, 3, None):
        raise ModelError(f"{path}: input of shape {_shown(shape)}; expected one image, (batch, height, width, 1 or 3)")
    channels: Literal[1, 3] = 1 if shape[3] == 1 else 3
    stated_height, stated_width = shape[1], shape[2]
    if image_size is None:
        if stated_height is None or stated_width is None:
            raise UsageError(f"{path}: input of shape {_shown(shape)} leaves the size open; give --image-size H,W")
        return stated_height, stated_width, channels
    height, width = image_size
    if stated_height not in (None, height) or stated_width not in (None, width):
        raise UsageError(f"--image-size {height},{width}: the model takes {stated_height},{stated_width}; leave it out")
    return height, width, channels


def _check_output(path: Path, shape: Any) -> None:
    if shape.rank != 2 or shape[-1] is None or shape[-1] < 2:
        raise ModelError(
            f"{path}: output of shape {_shown(shape)}; expected (batch, classes) with 2 classes or more. "
            "A single sigmoid must become two classes, a feature map needs its pooling and classification layers"
        )


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _cause(error: Exception) -> str:
    """Return the last line of what TensorFlow says: before it stands where in Keras' code it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(("Arguments", "•"))), "no reason given")[:300]

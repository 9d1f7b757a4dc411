"""Opens a model with Keras or TensorFlow, in the child process: what it takes, and how to ask it."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevid.errors import ModelError, UsageError, first_line
from edgevid_convert.engine import keras, tf

__all__ = ["Opened", "open_model"]

# How Keras says, deep in a long text, that it does not know a name.
WINDOW_RANK = 5  # batch, frames, height, width, channels
STRANGER = re.compile(r"(?:Could not locate \w+|Unknown \w+:?) '([\w>]+)'")


@dataclass(frozen=True)
class Opened:
    """A model as a function of one tensor.

    Attributes:
        call: takes a tensor of ``shape`` and ``dtype``, returns the answer.
        shape: the input's, batch first; None for what is open, empty where the model does not say.
        dtype: TensorFlow's.
        owner: keeps the model's variables alive.
    """

    call: Callable[[Any], Any]
    shape: Sequence[int | None]
    dtype: Any
    owner: Any

    @property
    def takes_windows(self) -> bool:
        """Whether it takes several frames at a time."""
        return len(self.shape) == WINDOW_RANK


def open_model(path: Path, custom_objects: Path | None, custom_names: frozenset[str], *, trust: bool) -> Opened:
    """Open a model that was looked through.

    Args:
        path: the file, or the SavedModel's folder.
        custom_objects: the Python file that defines the model's own classes.
        custom_names: those that it must define.
        trust: whether the model may bring code of its own.

    Raises:
        ModelError: it cannot be read, or has not one input and one output.
        UsageError: ``custom_objects`` cannot be run, or does not define what the model needs.
    """
    defined = _definitions(custom_objects) if custom_objects else {}
    known = {*defined, *keras.saving.get_custom_objects()}
    for name in sorted(custom_names):
        if name not in known and name.rpartition(">")[2] not in known:
            raise UsageError(f"{path}: it needs {name!r}, which --custom-objects {custom_objects} does not define")
    return _open_saved_model(path) if path.is_dir() else _open_keras(path, defined, trust)


def _definitions(file: Path) -> dict[str, Any]:
    """Run a Python file, and return the classes and functions that it defines itself."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError(f"--custom-objects {file}: expected a Python file, MODULE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.append(str(file.resolve().parent))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError):
            raise
        raise UsageError(f"--custom-objects {file}: {type(error).__name__}: {first_line(error)}") from error
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return {name: getattr(module, name) for name in own}


def _open_keras(path: Path, custom_objects: dict[str, Any], trust: bool) -> Opened:
    try:
        model = keras.saving.load_model(path, compile=False, custom_objects=custom_objects, safe_mode=not trust)
    except Exception as error:
        if stranger := STRANGER.search(str(error)):
            raise ModelError(
                f"{path}: it needs {stranger[1]!r}, which is not part of Keras; "
                "give the Python file that defines it with --custom-objects MODULE.py"
            ) from error
        raise ModelError(f"{path}: Keras cannot load it: {first_line(error)}") from error
    _compute_in_float32(model)
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs:
        return Opened(_calling(model), _built_shape(model), tf.float32, model)
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise ModelError(f"{path}: {len(inputs)} inputs ({names}); expected one image input")
    if outputs and len(outputs) != 1:
        names = ", ".join(tensor.name for tensor in outputs)
        raise ModelError(f"{path}: {len(outputs)} outputs ({names}); expected one, the classes: cut the others off")
    dtype = tf.as_dtype(inputs[0].dtype)
    if len(inputs[0].shape) == WINDOW_RANK:
        _unroll(path, model)
    return Opened(_calling(model), tuple(inputs[0].shape), tf.float32 if dtype.is_floating else dtype, model)


def _calling(model: Any) -> Callable[[Any], Any]:
    def call(image: Any) -> Any:
        return model(image, training=False)

    return call


def _compute_in_float32(model: Any) -> None:
    """Have mixed-precision layers compute in float32, as their weights are stored: TFLite takes no other."""
    for layer in model._flatten_layers():
        if layer.compute_dtype in {"float16", "bfloat16", "float64"} and layer.quantization_mode is None:
            layer.dtype_policy = "float32"


def _unroll(path: Path, model: Any) -> None:
    """Have recurrent layers compute step by step without a loop: every engine then has an operator for all of it."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            raise ModelError(
                f"{path}: layer {layer.name!r} keeps its state from one call to the next, which no converter can "
                "express; build it with stateful=False and save it again"
            )
        if hasattr(layer, "unroll"):
            layer.unroll = True


def _built_shape(model: Any) -> Sequence[int | None]:
    """Return the input shape that a subclassed model was built with; empty where it is not known."""
    config = model.get_build_config() or {}
    shape = config.get("input_shape") or next(iter((config.get("shapes_dict") or {}).values()), None)
    return tuple(shape) if isinstance(shape, list | tuple) and all(_is_size(size) for size in shape) else ()


def _is_size(size: Any) -> bool:
    return size is None or isinstance(size, int)


def _open_saved_model(path: Path) -> Opened:
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
    return Opened(lambda image: signature(**{input_name: image})[output_name], shape, spec.dtype, owner)

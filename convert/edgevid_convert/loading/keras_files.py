"""Opens ``.keras`` and ``.h5`` files: with Keras 3, or with Keras 2 (``tf_keras``) what Keras 1 and 2 wrote."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from edgevid.errors import ModelError
from edgevid_convert.causes import cause_of
from edgevid_convert.engine import keras, tf
from edgevid_convert.loading.containers import CONFIG_MEMBER, KERAS_SUFFIX, Container
from edgevid_convert.loading.opened import Opened
from edgevid_convert.loading.security.scan import Scanned

__all__ = ["open_keras"]

# How Keras says, deep in a long text, that it does not know a name.
STRANGER = re.compile(r"(?:Could not locate \w+|Unknown \w+:?) '([\w>]+)'")
POLICY_CLASSES = frozenset({"DTypePolicy", "FloatDTypePolicy", "Policy", "PolicyV1"})
OTHER_FLOATS = frozenset({"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"})
FLIPPED_KERNELS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose")


def open_keras(
    path: Path, container: Container, scanned: Scanned, scratch: Path, custom_objects: dict[str, Any], *, trust: bool
) -> Opened:
    """Open a file that was looked through.

    Args:
        path: the file, for messages.
        container: its kind.
        scanned: what was found in it.
        scratch: a folder for a copy of it, should it have to be changed.
        custom_objects: the model's own classes and functions, by name.
        trust: whether the model may bring code of its own.

    Raises:
        ModelError: it cannot be read, has not one input and one output, or keeps a state.
    """
    library = _library(scanned, custom_objects)
    readable = _readable(path, container, scanned, scratch)
    known = {**_layers_of_applications(library), **custom_objects}
    try:
        model = library.models.load_model(str(readable), compile=False, custom_objects=known, safe_mode=not trust)
    except Exception as error:
        if stranger := STRANGER.search(str(error)):
            raise ModelError(
                f"{path}: it needs {stranger[1]!r}, which is not part of Keras; "
                "give the Python file that defines it with --custom-objects MODULE.py"
            ) from error
        raise ModelError(f"{path}: Keras cannot load it: {cause_of(error)}") from error
    if container == "hdf5" and scanned.generation == 2 and _of_theano(readable):
        _flip_kernels(model)
    _unroll(path, model)
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs:
        return Opened(_calling(model), _built_shape(model), tf.float32, model, library)
    _check_single(path, "inputs", inputs, "expected one image input")
    _check_single(path, "outputs", outputs or (None,), "expected one, the classes: cut the others off")
    dtype = tf.as_dtype(inputs[0].dtype)
    return Opened(_calling(model), tuple(inputs[0].shape), tf.float32 if dtype.is_floating else dtype, model, library)


def _check_single(path: Path, what: str, tensors: Sequence[Any], expected: str) -> None:
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors)
        raise ModelError(f"{path}: {len(tensors)} {what} ({names}); {expected}")


def _library(scanned: Scanned, custom_objects: Mapping[str, Any]) -> Any:
    """Return the Keras that reads a file; classes of the model's own must be of it, too."""
    of_keras_3 = any(
        isinstance(each, type) and issubclass(each, keras.layers.Layer) for each in custom_objects.values()
    )
    if scanned.generation != 2 or of_keras_3:
        return keras
    import tf_keras  # takes a second, and few files need it

    return tf_keras


def _layers_of_applications(library: Any) -> dict[str, Any]:
    """Return the layers of ConvNeXt, which Keras itself does not know by the names that its files have for them."""
    convnext = import_module(f"{library.__name__}.src.applications.convnext")
    return {name: getattr(convnext, name) for name in ("LayerScale", "StochasticDepth")}


def _readable(path: Path, container: Container, scanned: Scanned, scratch: Path) -> Path:
    """Return the model under a name by which Keras knows its kind, in float32: a link, or a changed copy."""
    readable = Path(tempfile.mkdtemp(dir=scratch)) / f"model{KERAS_SUFFIX[container]}"
    config = _in_float32(scanned.config)
    if not scanned.changed and config == scanned.config:
        readable.symlink_to(path.resolve())
        return readable
    text = json.dumps(config).encode()
    if container == "hdf5":
        shutil.copyfile(path, readable)
        with h5py.File(readable, "r+") as file:
            file.attrs["model_config"] = text
        return readable
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(readable, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            with old.open(name) as source, new.open(name, "w", force_zip64=True) as copy:
                if name == CONFIG_MEMBER:
                    copy.write(text)
                else:
                    shutil.copyfileobj(source, copy)
    return readable


def _in_float32(config: Any) -> Any:
    """Return a configuration whose layers compute in float32, as far as they compute in floating point."""
    if isinstance(config, list):
        return [_in_float32(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    part = {key: _in_float32(value) for key, value in config.items()}
    if isinstance(part.get("dtype"), str) and part["dtype"] in OTHER_FLOATS:
        part["dtype"] = "float32"
    inner = part.get("config")
    if part.get("class_name") in POLICY_CLASSES and isinstance(inner, Mapping) and inner.get("name") in OTHER_FLOATS:
        part["config"] = {"name": "float32"}
    return part


def _calling(model: Any) -> Callable[[Any], Any]:
    def call(image: Any) -> Any:
        return model(image, training=False)

    return call


def _of_theano(file: Path) -> bool:
    with h5py.File(file, "r") as opened:
        backend = opened.attrs.get("backend", "")
    return bool((backend.decode() if isinstance(backend, bytes) else backend) == "theano")


def _flip_kernels(model: Any) -> None:
    """Turn the kernels of convolutions around: Theano convolves, where TensorFlow correlates."""
    for layer in model._flatten_layers():
        if type(layer).__name__ in FLIPPED_KERNELS:
            kernel = np.asarray(layer.kernel)
            layer.kernel.assign(np.flip(kernel, tuple(range(kernel.ndim - 2))))


def _unroll(path: Path, model: Any) -> None:
    """Have recurrent layers compute step by step without a loop, and without the dropout of training.

    Every engine then has an operator for all of it.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, "unroll"):
            if getattr(layer, "stateful", False):
                raise ModelError(
                    f"{path}: layer {layer.name!r} keeps its state from one call to the next, which no converter can "
                    "express; build it with stateful=False and save it again"
                )
            layer.unroll = True
            layer._could_use_gpu_kernel = False  # of Keras 2, which would take a loop of its own
        if hasattr(layer, "get_dropout_mask"):  # a cell of Keras 3, which draws random numbers always
            layer.dropout = layer.recurrent_dropout = 0.0


def _built_shape(model: Any) -> Sequence[int | None]:
    """Return the input shape that a subclassed model was built with; empty where it is not known."""
    config = (model.get_build_config() if hasattr(model, "get_build_config") else None) or {}
    shape = config.get("input_shape") or next(iter((config.get("shapes_dict") or {}).values()), None)
    return tuple(shape) if isinstance(shape, list | tuple) and all(_is_size(size) for size in shape) else ()


def _is_size(size: Any) -> bool:
    return size is None or isinstance(size, int)

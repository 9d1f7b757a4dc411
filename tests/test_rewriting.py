"""Operators that TFLite or ONNX lacks, or gets wrong, answer there as in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgevid_convert.loading.frozen import FrozenGraph
from edgevid_convert.variants import FloatFiles, convert_variant
from tests.test_loading import loaded, noise

pytestmark = pytest.mark.usefixtures("quiet_keras")
HEIGHT, WIDTH = 15, 18
TOLERANCE = 1e-5  # of the largest answer, or of 1
Values = npt.NDArray[np.float32]
Part = Callable[[Any, Any], Any]  # of Keras and of a picture of numbers from −1 to 1
Parts = Mapping[str, Part]


def layer(name: str, *arguments: Any, **options: Any) -> Part:
    return lambda keras, x: getattr(keras.layers, name)(*arguments, **options)(x)


def operation(name: str, *arguments: Any) -> Part:
    return lambda keras, x: getattr(keras.ops, name)(x * 0.9, *arguments)


def small(part: Part) -> Part:
    """Apply a part to a corner of the picture."""
    return lambda keras, x: part(keras, x[:, :4, :5])


def volume(part: Part, shape: tuple[int, ...] = (5, 6, 9, 3)) -> Part:
    """Apply a part to the picture as frames."""
    return lambda keras, x: part(keras, keras.layers.Reshape(shape)(x))


def resizing(height: int, width: int, **options: Any) -> Part:
    return layer("Resizing", height, width, **options)


RESIZED: Parts = {
    **{
        f"{interpolation} to {height}×{width}": resizing(height, width, interpolation=interpolation)
        for interpolation in ("bicubic", "lanczos3", "lanczos5", "nearest", "bilinear")
        for height, width in ((7, 23), (30, 36), (HEIGHT, 11), (1, 1))
    },
    "cropped": resizing(10, 10, interpolation="bicubic", crop_to_aspect_ratio=True),
    "padded": resizing(10, 10, interpolation="bicubic", pad_to_aspect_ratio=True),
    "antialiased": resizing(6, 7, interpolation="bilinear", antialias=True),
    "antialiased, padded": resizing(6, 7, interpolation="bicubic", antialias=True, pad_to_aspect_ratio=True),
    "channels first": resizing(6, 7, interpolation="bicubic", data_format="channels_first"),
    "upsampled": layer("UpSampling2D", (2, 3), interpolation="bicubic"),
}
TRANSPOSED: Parts = {
    f"{kernel}, {stride}, {padding}": small(layer("Conv2DTranspose", 2, kernel, strides=stride, padding=padding))
    for kernel in range(1, 6)
    for stride in range(1, 5)
    for padding in ("valid", "same")
}
TRANSPOSED_UNUSUALLY: Parts = {
    "one more row": small(layer("Conv2DTranspose", 2, 3, 2, output_padding=1)),
    "more in one direction": small(layer("Conv2DTranspose", 2, 3, (2, 3), padding="same", output_padding=(1, 0))),
    "dilated": small(layer("Conv2DTranspose", 2, 3, dilation_rate=2)),
    "dilated unevenly": small(layer("Conv2DTranspose", 2, (2, 3), dilation_rate=(2, 3), padding="same")),
    "channels first": small(layer("Conv2DTranspose", 2, 2, 3, data_format="channels_first")),
    "of sequences": volume(layer("Conv1DTranspose", 2, 2, 3), (HEIGHT, WIDTH * 3)),
    "of volumes": volume(layer("Conv3DTranspose", 2, 2, 3), (3, 5, 6, 9)),
}
VOLUMES: Parts = {
    "maximum": volume(layer("MaxPooling3D", 3, 2, padding="same")),
    "average": volume(layer("AveragePooling3D", 3, 2, padding="same")),
    "average without padding": volume(layer("AveragePooling3D", (1, 2, 3), (1, 2, 1))),
    "maximum over time": volume(layer("MaxPooling3D", (2, 1, 1))),
    "adaptive": volume(layer("AdaptiveAveragePooling3D", 2)),
    "depthwise": volume(layer("Conv3D", 6, 3, padding="same", groups=3)),
    "grouped, strided": volume(layer("Conv3D", 4, 3, (2, 1, 2), groups=2), (5, 6, 3, 9)[:3] + (9,))
    if False
    else volume(layer("Conv3D", 6, (2, 3, 3), (2, 1, 2), groups=3, padding="same")),
    "channels first": volume(layer("Conv3D", 4, 2, padding="same", data_format="channels_first")),
}

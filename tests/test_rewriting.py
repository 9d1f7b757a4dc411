"""Operators that TFLite or ONNX lacks, or gets wrong, answer there as in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.loading.graphs.rewriting import with_common_operators
from edgevid_convert.variants import FloatFiles, convert_variant
from tests.test_loading import loaded, noise

pytestmark = pytest.mark.usefixtures("quiet_keras")
HEIGHT, WIDTH = 15, 18
Values = npt.NDArray[np.float32]
Part = Callable[[Any, Any], Any]


def classifier(keras: Any, part: Part) -> Any:
    """Return a model with a part of its own between a scaling and the head."""
    layers = keras.layers
    image = keras.Input((HEIGHT, WIDTH, 3))
    hidden = part(keras, layers.Rescaling(1 / 127.5, -1)(image))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(hidden)))


def resized(interpolation: str, height: int, width: int, **more: Any) -> Part:
    return lambda keras, x: keras.layers.Resizing(height, width, interpolation=interpolation, **more)(x)


def transposed(kernel: int, stride: int, padding: str, **more: Any) -> Part:
    return lambda keras, x: keras.layers.Conv2DTranspose(4, kernel, strides=stride, padding=padding, **more)(x)


def operation(name: str) -> Part:
    return lambda keras, x: getattr(keras.ops, name)(x * 0.9)


PARTS: dict[str, Part] = {
    "bicubic": resized("bicubic", 24, 11),
    "bicubic, one axis": resized("bicubic", HEIGHT, 30),
    "bicubic, cropped": resized("bicubic", 10, 10, crop_to_aspect_ratio=True),
    "lanczos": resized("lanczos3", 24, 11),
    "bilinear to odd sizes": resized("bilinear", 7, 23),
    "nearest to odd sizes": resized("nearest", 7, 23),
    "nearest, twice as large": resized("nearest", 30, 36),
    "kernel below stride": transposed(2, 3, "same"),
    "kernel below stride, valid": transposed(1, 2, "valid"),
    "kernel above stride, valid": transposed(4, 3, "valid"),
    "one more row": transposed(3, 2, "valid", output_padding=1),
    "no stride": transposed(3, 1, "same"),
    "log1p": lambda keras, x: keras.ops.log1p(keras.ops.abs(x)),
    "expm1": operation("expm1"),
    "erf": operation("erf"),
    "asinh": operation("arcsinh"),
    "gelu": lambda keras, x: keras.layers.Activation("gelu")(x),
    "reversed": lambda keras, x: keras.ops.flip(x, (1, 3)),
    "clipped": lambda keras, x: keras.ops.clip(x, -0.5, 0.7),
}


def answer_of(path: Path, image: Values) -> Values:
    """Return what an engine answers to an image, float32 (1, n)."""
    if path.suffix == ".onnx":
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answer: Values = session.run(None, {session.get_inputs()[0].name: image})[0]
        return answer
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    found: Values = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


def frozen_of(keras: Any, part: Part, folder: Path) -> tuple[Any, FrozenModel]:
    keras.utils.set_random_seed(1)
    model = classifier(keras, part)
    model.save(folder / "model.keras")
    return model, loaded(folder / "model.keras", folder)


@pytest.mark.parametrize("name", PARTS)
def test_it_answers_as_in_tensorflow(keras: Any, tmp_path: Path, name: str) -> None:
    model, frozen = frozen_of(keras, PARTS[name], tmp_path)
    image = noise(HEIGHT, WIDTH)
    expected = np.asarray(model(image, training=False))
    tolerance = 2e-5 * max(1.0, float(np.abs(expected).max()))
    for variant_id in ("tflite-fp32", "onnx-fp32"):
        starts = FloatFiles(frozen, tmp_path / variant_id)
        (tmp_path / variant_id).mkdir()
        variant = convert_variant(starts, variant_id, [], tmp_path, None)
        np.testing.assert_allclose(answer_of(tmp_path / variant.file, image), expected, atol=tolerance)


def test_int8_of_a_bicubic_picture_runs_in_both_engines(keras: Any, tmp_path: Path) -> None:
    model, frozen = frozen_of(keras, resized("bicubic", 24, 11), tmp_path)
    image = noise(HEIGHT, WIDTH)
    expected = np.asarray(model(image, training=False))
    starts = FloatFiles(frozen, tmp_path)
    for variant_id in ("tflite-int8", "onnx-int8"):
        variant = convert_variant(starts, variant_id, [image], tmp_path, None)
        error = np.abs(answer_of(tmp_path / variant.file, image) - expected).max()
        assert error < 0.1 * np.abs(expected).max()


def test_a_graph_of_common_operators_stays_as_it_is(keras: Any, tmp_path: Path) -> None:
    _, frozen = frozen_of(keras, lambda keras, x: keras.layers.Conv2D(4, 3, activation="relu")(x), tmp_path)
    assert with_common_operators(frozen.graph) is frozen.graph

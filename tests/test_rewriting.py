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

from edgevid_convert.loading import child as load_child
from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.loading.graphs.rewriting import with_common_operators
from edgevid_convert.loading.model import Request, read_frozen
from edgevid_convert.variants import FloatFiles, convert_variant
from tests.test_loading import noise

pytestmark = pytest.mark.usefixtures("quiet_keras")
HEIGHT, WIDTH = 15, 18
TOLERANCE = 1e-5  # of a part's largest answer, or of 1
Values = npt.NDArray[np.float32]
Part = Callable[[Any, Any], Any]  # of a module and a picture of numbers from −1 to 1
Parts = Mapping[str, Part]


def layer(name: str, *arguments: Any, **options: Any) -> Part:
    return lambda keras, x: getattr(keras.layers, name)(*arguments, **options)(x)


def operation(name: str, *arguments: Any) -> Part:
    return lambda keras, x: getattr(keras.ops, name)(x * 0.9, *arguments)


def corner(part: Part) -> Part:
    """Apply a part to a corner of the picture."""
    return lambda keras, x: part(keras, x[:, :4, :5])


def shaped(part: Part, *shape: int) -> Part:
    """Apply a part to the picture in another shape."""
    return lambda keras, x: part(keras, keras.layers.Reshape(shape)(x))


RESIZED: Parts = {
    **{
        f"{interpolation} to {height}×{width}": layer("Resizing", height, width, interpolation=interpolation)
        for interpolation in ("bicubic", "lanczos3", "lanczos5", "nearest", "bilinear")
        for height, width in ((7, 23), (30, 36), (HEIGHT, 11), (1, 1))
    },
    "cropped": layer("Resizing", 10, 10, interpolation="bicubic", crop_to_aspect_ratio=True),
    "padded": layer("Resizing", 10, 10, interpolation="bicubic", pad_to_aspect_ratio=True),
    "antialiased": layer("Resizing", 6, 7, antialias=True),
    "antialiased and padded": layer("Resizing", 6, 7, antialias=True, pad_to_aspect_ratio=True),
    "channels first": layer("Resizing", 6, 7, interpolation="bicubic", data_format="channels_first"),
    "upsampled": layer("UpSampling2D", (2, 3), interpolation="bicubic"),
}
TRANSPOSED: Parts = {
    f"{kernel} by {stride}, {padding}": corner(layer("Conv2DTranspose", 2, kernel, stride, padding=padding))
    for kernel in range(1, 6)
    for stride in range(1, 5)
    for padding in ("valid", "same")
}
TRANSPOSED_OTHERWISE: Parts = {
    "one more row": corner(layer("Conv2DTranspose", 2, 3, 2, output_padding=1)),
    "more in one direction": corner(layer("Conv2DTranspose", 2, 3, (2, 3), padding="same", output_padding=(1, 0))),
    "dilated": corner(layer("Conv2DTranspose", 2, 3, dilation_rate=2)),
    "dilated unevenly": corner(layer("Conv2DTranspose", 2, (2, 3), dilation_rate=(2, 3), padding="same")),
    "channels first": corner(layer("Conv2DTranspose", 2, 2, 3, data_format="channels_first")),
    "of a sequence": shaped(layer("Conv1DTranspose", 2, 2, 3), 270, 3),
    "of a volume": shaped(layer("Conv3DTranspose", 2, 2, 3), 3, 5, 6, 9),
}
VOLUMES: Parts = {
    "maximum": shaped(layer("MaxPooling3D", 3, 2, padding="same"), 5, 6, 9, 3),
    "average": shaped(layer("AveragePooling3D", 3, 2, padding="same"), 5, 6, 9, 3),
    "average without padding": shaped(layer("AveragePooling3D", (1, 2, 3), (1, 2, 1)), 5, 6, 9, 3),
    "maximum over time": shaped(layer("MaxPooling3D", (2, 1, 1)), 5, 6, 9, 3),
    "adaptive": shaped(layer("AdaptiveAveragePooling3D", 2), 5, 6, 9, 3),
    "depthwise": shaped(layer("Conv3D", 6, 3, padding="same", groups=3), 5, 6, 9, 3),
    "grouped": shaped(layer("Conv3D", 6, (2, 3, 3), 2, groups=3), 5, 6, 3, 9),
    "channels first": shaped(layer("Conv3D", 4, 2, padding="same", data_format="channels_first"), 3, 5, 6, 9),
    "sequence, channels first": shaped(layer("Conv1D", 4, 3, data_format="channels_first"), 27, 30),
}
NUMBERS: Parts = {
    "a GRU of rows": lambda keras, x: keras.layers.GRU(6)(keras.layers.Reshape((HEIGHT, WIDTH * 3))(x)),
    "log1p": lambda keras, x: keras.ops.log1p(keras.ops.abs(x)),
    "logaddexp": lambda keras, x: keras.ops.logaddexp(x, 2 * x),
    "gelu": layer("Activation", "gelu"),
    "gelu in another order": lambda keras, x: (y := x + 0.1) * (0.5 * (1 + keras.ops.erf(y * 0.5**0.5))),
    "discretized": layer("Discretization", bin_boundaries=[-0.5, 0.0, 0.25]),
    "flipped": operation("flip", (1, 3)),
    **{name: layer("Activation", name) for name in ("celu", "mish", "softsign", "soft_shrink")},
    **{
        name: operation(name)
        for name in ("expm1", "erf", "arcsinh", "arccos", "arcsin", "arctan", "arctanh", "sinh", "cosh", "tan")
    },
}


def coloured(tf: Any, x: Any) -> Any:
    """Return a picture from 0 to 1 without two channels alike: at almost alike ones TensorFlow takes black for red."""
    return tf.abs(x) * (1.0, 0.9, 0.8) + (0.0, 0.03, 0.07)


TENSORFLOW: Parts = {
    "area": lambda tf, x: tf.image.resize(x, (7, 25), "area"),
    "gaussian": lambda tf, x: tf.image.resize(x, (7, 25), "gaussian", antialias=True),
    "mitchell": lambda tf, x: tf.image.resize(x, (20, 5), "mitchellcubic"),
    "padded": lambda tf, x: tf.image.resize_with_pad(x, 8, 8, "bicubic"),
    "turned if upright": lambda tf, x: tf.cond(
        tf.shape(x)[1] > tf.shape(x)[2], lambda: tf.transpose(x, (0, 2, 1, 3)), lambda: x * 2
    ),
    **{
        f"{kind}, {size}, {option}": lambda tf, x, kind=kind, size=size, option=option: getattr(tf.raw_ops, kind)(  # type: ignore[misc]
            images=x, size=size, **({option: True} if option else {})
        )
        for kind in ("ResizeNearestNeighbor", "ResizeBilinear", "ResizeBicubic")
        for option in ("align_corners", "half_pixel_centers", "")
        for size in ((7, 23), (30, 36))
    },
    "patches": lambda tf, x: tf.image.extract_patches(x, (1, 3, 3, 1), (1, 2, 2, 1), (1, 2, 2, 1), "SAME"),
    "patches side by side": lambda tf, x: tf.image.extract_patches(
        x, (1, 4, 4, 1), (1, 4, 4, 1), (1, 1, 1, 1), "VALID"
    ),
    "padded maximum": lambda tf, x: tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 0], [0, 0]]),
    "to HSV": lambda tf, x: tf.image.rgb_to_hsv(coloured(tf, x)),
    "from HSV": lambda tf, x: tf.image.hsv_to_rgb(tf.abs(x)),
    "hue": lambda tf, x: tf.image.adjust_hue(coloured(tf, x), 0.2),
    "saturation": lambda tf, x: tf.image.adjust_saturation(coloured(tf, x), 1.5),
    "contrast": lambda tf, x: tf.image.adjust_contrast(x, 1.5),
    "xlogy": lambda tf, x: tf.math.xlogy(tf.nn.relu(x), tf.nn.relu(x)),
    "no NaN": lambda tf, x: tf.math.multiply_no_nan(x, tf.nn.relu(x)),
    "norm": lambda tf, x: tf.math.reduce_euclidean_norm(x, 3),
    "clipped": lambda tf, x: tf.raw_ops.ClipByValue(t=x, clip_value_min=-0.2, clip_value_max=0.3),
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


def loaded(path: Path, folder: Path, image_size: tuple[int, int] | None = None) -> FrozenModel:
    """Load a model whose scores are what they are, and in no process of its own."""
    request = Request(
        path=str(path), image_size=image_size, custom_objects=None, trust=False, memory_gb=4.0, activation="logits"
    )
    return read_frozen(load_child.load(request, folder), folder)


def check(parts: Parts, expected: Mapping[str, Values], frozen: FrozenModel, folder: Path) -> None:
    """Hold each part's answers in both formats, one after the other in one model's, against TensorFlow's."""
    assert frozen.classes == sum(each.size for each in expected.values())
    starts = FloatFiles(frozen, folder)
    for variant_id in ("tflite-fp32", "onnx-fp32"):
        variant = convert_variant(starts, variant_id, [], folder, None)
        answers = answer_of(folder / variant.file, noise(HEIGHT, WIDTH)).reshape(-1)
        ends = np.cumsum([expected[name].size for name in parts])
        for name, answer in zip(parts, np.split(answers, ends[:-1]), strict=True):
            error = np.abs(answer - expected[name].reshape(-1)).max()
            assert error <= TOLERANCE * max(1.0, np.abs(expected[name]).max()), f"{name} in {variant_id}: {error}"


def keras_model(keras: Any, parts: Parts) -> Any:
    """Return a model of all parts side by side, and one that answers with each."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((HEIGHT, WIDTH, 3))
    scaled = layers.Rescaling(1 / 127.5, -1)(image)
    answers = {name: keras.ops.cast(part(keras, scaled), "float32") for name, part in parts.items()}
    flat = [layers.Flatten()(answer) for answer in answers.values()]
    return keras.Model(image, layers.Concatenate()(flat) if len(flat) > 1 else flat[0]), keras.Model(image, answers)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(RESIZED, id="resized"),
        pytest.param(TRANSPOSED, id="transposed convolutions"),
        pytest.param(TRANSPOSED_OTHERWISE, id="unusual transposed convolutions"),
        pytest.param(VOLUMES, id="volumes"),
        pytest.param(NUMBERS, id="numbers"),
    ],
)
def test_layers_answer_as_in_keras(keras: Any, tmp_path: Path, parts: Parts) -> None:
    model, answering = keras_model(keras, parts)
    model.save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    answers = answering(noise(HEIGHT, WIDTH), training=False)
    check(parts, {name: np.asarray(answer) for name, answer in answers.items()}, frozen, tmp_path)


def test_operators_of_a_saved_model_of_any_size_answer_as_in_tensorflow(keras: Any, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    picture = tf.constant(noise(HEIGHT, WIDTH) / 127.5 - 1)
    expected = {name: np.asarray(part(tf, picture)) for name, part in TENSORFLOW.items()}

    def classify(image: Any) -> Any:
        answers = ((part(tf, image / 127.5 - 1), expected[name].size) for name, part in TENSORFLOW.items())
        return tf.concat([tf.reshape(answer, (-1, size)) for answer, size in answers], 1)

    module = tf.Module()
    any_size = tf.TensorSpec((None, None, None, 3), tf.float32)
    module.serve = tf.function(classify, input_signature=[any_size], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "saved"), module.serve)
    check(TENSORFLOW, expected, loaded(tmp_path / "saved", tmp_path, (HEIGHT, WIDTH)), tmp_path)


def test_a_bicubic_picture_runs_in_integers_and_in_batches(keras: Any, tmp_path: Path) -> None:
    def part(keras: Any, x: Any) -> Any:
        return keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Resizing(24, 11, interpolation="bicubic")(x)))

    model, _ = keras_model(keras, {"bicubic": part})
    model.save(tmp_path / "model.keras")
    starts = FloatFiles(loaded(tmp_path / "model.keras", tmp_path), tmp_path)
    image = noise(HEIGHT, WIDTH)
    expected = np.asarray(model(image, training=False))
    for variant_id in ("tflite-int8", "onnx-int8"):
        variant = convert_variant(starts, variant_id, [image], tmp_path, None)
        error = np.abs(answer_of(tmp_path / variant.file, image) - expected).max()
        assert error < 0.1 * np.abs(expected).max()
    images = np.concatenate([image, image[:, ::-1]])
    several = np.asarray(model(images, training=False))
    np.testing.assert_allclose(answer_of(starts.onnx, images), several, rtol=1e-4, atol=1e-4)


def test_a_graph_of_common_operators_stays_as_it_is(keras: Any, tmp_path: Path) -> None:
    def part(keras: Any, x: Any) -> Any:
        layers = keras.layers
        x = layers.MaxPooling2D()(layers.BatchNormalization()(layers.Conv2D(4, 3, activation="gelu")(x)))
        x = layers.Conv2DTranspose(4, 3, 2, padding="same")(layers.LayerNormalization()(layers.Resizing(8, 9)(x)))
        return layers.GlobalAveragePooling2D()(x)

    model, _ = keras_model(keras, {"common": part})
    model.save(tmp_path / "model.keras")
    graph = loaded(tmp_path / "model.keras", tmp_path).graph
    assert with_common_operators(graph) is graph

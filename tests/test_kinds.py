"""Ordinary classifiers of other shapes: one unit, no channel axis, unusual last layers, other number formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError, ModelError, UsageError
from edgevid.manifest import Activation, OutputSpec, Tensor
from edgevid.postprocess import Postprocessor, probabilities_of
from edgevid_convert.loading import child
from edgevid_convert.loading.activation import Operator, activation_of
from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.loading.model import Request, read_frozen
from tests.conftest import Outcome, picture, read_jsonl
from tests.test_loading import check_graph, noise

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]


def saved_and_loaded(model: Any, folder: Path, **options: Any) -> FrozenModel:
    model.save(folder / "model.keras")
    asked: dict[str, Any] = {"image_size": None, "custom_objects": None, "trust": False, "memory_gb": 4.0, **options}
    return read_frozen(child.load(Request(path=str(folder / "model.keras"), **asked), folder), folder)


def cnn(keras: Any, *head: Any, shape: tuple[int, ...] = (16, 16, 3)) -> Any:
    layers = keras.layers
    body = [layers.Conv2D(6, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(shape), *body, *head])


@pytest.fixture(scope="module")
def binary_bundle(keras: Any, quiet_keras_module: None, tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A trained classifier of one sigmoid, red or not, converted through the command line."""
    from edgevid.cli import main

    folder = tmp_path_factory.mktemp("binary")
    keras.utils.set_random_seed(1)
    model = cnn(keras, keras.layers.Dense(1, activation="sigmoid"), shape=(32, 32, 3))
    truth = np.arange(200) % 2
    pixels = np.stack([picture("red" if red else "blue", 32, 32, seed) for seed, red in enumerate(truth)])[..., ::-1]
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    model.fit(pixels / 255.0, truth, epochs=6, verbose=0)
    model.save(folder / "red.keras")
    (folder / "labels.txt").write_text("red\n")
    arguments = ["convert", folder / "red.keras", "--preprocess", "0-1", "--labels", folder / "labels.txt"]
    arguments += ["--calib", clip, "--no-search", "-o", folder / "red.edgevid"]
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    assert exit_info.value.code == 0
    return folder / "red.edgevid"


@pytest.fixture(scope="module")
def quiet_keras_module() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_one_unit_is_two_classes(binary_bundle: Path) -> None:
    bundle = Bundle(binary_bundle)
    assert bundle.labels == ("not red", "red")
    assert bundle.manifest.output == OutputSpec(classes=2, activation="sigmoid", binary=True)
    assert not bundle.manifest.output.multi_label
    assert {variant.output.shape for variant in bundle.manifest.variants} == {(1, 1)}
    for variant in bundle.manifest.variants:
        assert variant.parity is not None
        assert variant.parity.smoothed_agreement > 0.9
        assert variant.parity.kl_divergence is not None


@pytest.mark.parametrize("variant", ["tflite-fp32", "onnx-int8"])
def test_its_scores_are_those_of_a_softmax_of_two(
    cli: Cli, binary_bundle: Path, clip: Path, tmp_path: Path, variant: str
) -> None:
    out = tmp_path / "out.jsonl"
    outcome = cli("run", binary_bundle, "--source", clip, "--variant", variant, "--window", "1", "--predictions", out)
    assert outcome.status == 0, outcome.err
    rows = read_jsonl(out.read_text())
    assert [row["raw_label"] for row in rows[:8]] == ["red"] * 8
    assert [row["raw_label"] for row in rows[-8:]] == ["not red"] * 8
    assert all(0.5 <= row["raw_score"] <= 1 for row in rows)
    assert all("labels" not in row for row in rows)  # as models of several labels have them


def test_pack_makes_two_classes_of_one_unit(cli: Cli, binary_bundle: Path, tmp_path: Path) -> None:
    outcome = cli("pack", binary_bundle / "tflite-fp32.tflite", "--preprocess", "0-1", "-o", tmp_path / "p.edgevid")
    assert outcome.status == 0, outcome.err
    manifest = Bundle(tmp_path / "p.edgevid").manifest
    assert manifest.output == OutputSpec(classes=2, activation="sigmoid", binary=True)
    outcome = cli("inspect", tmp_path / "p.edgevid")
    assert "2 classes, binary: one sigmoid, of the second class: class 0, class 1" in outcome.out


def test_a_logit_of_one_unit_becomes_two_probabilities() -> None:
    output = OutputSpec(classes=2, activation="logits", binary=True)
    tensor = Tensor(shape=(1, 1), dtype="float32")
    for logit in (-200.0, -1.0, 0.0, 3.0, 200.0):
        raw = np.array([[logit]], np.float32)
        expected = 1 / (1 + np.exp(-logit))
        found = Postprocessor(output, tensor)(raw)
        np.testing.assert_allclose(found, [1 - expected, expected], atol=1e-6)
        np.testing.assert_allclose(probabilities_of(raw, output)[0], found, atol=1e-6)


@pytest.mark.parametrize("recurrent", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_layers_of_an_image_are_unrolled(keras: Any, tmp_path: Path, recurrent: str) -> None:
    layers = keras.layers
    recurrent_layer = layers.Bidirectional(getattr(layers, recurrent)(5, dropout=0.2, recurrent_dropout=0.1))
    rows = [layers.Reshape((12, 14)), recurrent_layer]
    model = keras.Sequential([keras.Input((12, 14, 1)), *rows, layers.Dense(3, activation="softmax")])
    frozen = saved_and_loaded(model, tmp_path)
    check_graph(frozen)
    image = noise(12, 14, 1)
    np.testing.assert_allclose(frozen(image), np.asarray(model(image, training=False)), atol=1e-5)


@pytest.mark.parametrize("flat", [False, True])
def test_an_image_without_a_channel_axis(keras: Any, tmp_path: Path, flat: bool) -> None:
    layers = keras.layers
    shape = (12 * 14,) if flat else (12, 14)
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3, activation="softmax")])
    frozen = saved_and_loaded(model, tmp_path, image_size=(12, 14) if flat else None)
    check_graph(frozen)
    assert frozen.picture_shape == (12, 14, 1)
    image = noise(12, 14, 1)
    np.testing.assert_allclose(frozen(image), np.asarray(model(image.reshape(1, *shape))), atol=1e-5)


def test_scores_with_axes_of_one(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    head = [layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(5, 1, activation="softmax")]
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(6, 3), *head])
    frozen = saved_and_loaded(model, tmp_path)
    check_graph(frozen)
    assert (frozen.classes, frozen.activation) == (5, "softmax")


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64", "mixed_bfloat16"])
def test_every_number_format_is_computed_in_float32(keras: Any, tmp_path: Path, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = cnn(keras, keras.layers.BatchNormalization(), keras.layers.Dense(4, activation="softmax"))
    finally:
        keras.config.set_dtype_policy("float32")
    frozen = saved_and_loaded(model, tmp_path)
    check_graph(frozen)
    expected = np.asarray(model(noise().astype("float32"), training=False)).astype(np.float32)
    np.testing.assert_allclose(frozen(noise()), expected, atol=1e-6 if policy == "float64" else 0.05)
    assert any("here in float32" in note for note in frozen.notes)


def _average(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))
    sigmoids = [layers.Dense(3, activation="sigmoid", bias_initializer="ones")(hidden) for _ in range(2)]
    return keras.Model(x, layers.Average()(sigmoids))


def _joined(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))
    return keras.Model(x, layers.Concatenate()([layers.Dense(1, activation="sigmoid")(hidden) for _ in range(4)]))


def _mixture(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))
    return keras.Model(x, layers.Average()([layers.Dense(4, activation="softmax")(hidden) for _ in range(2)]))


LAST: dict[str, tuple[Callable[[Any], Any], Activation]] = {
    "average of sigmoids": (_average, "sigmoid"),
    "sigmoids joined": (_joined, "sigmoid"),
    "average of softmaxes": (_mixture, "softmax"),
    "hard sigmoid": (lambda k: cnn(k, k.layers.Dense(3, "hard_sigmoid", bias_initializer="ones")), "sigmoid"),
    "clipped": (lambda k: cnn(k, k.layers.Dense(3), k.layers.ReLU(max_value=1.0)), "sigmoid"),
    "log softmax": (lambda k: cnn(k, k.layers.Dense(3, "log_softmax")), "logits"),
    "relu": (lambda k: cnn(k, k.layers.Dense(3, "relu", bias_initializer="ones")), "logits"),
    "one logit": (lambda k: cnn(k, k.layers.Dense(1)), "logits"),
    "one sigmoid": (lambda k: cnn(k, k.layers.Dense(1, "sigmoid")), "sigmoid"),
}


@pytest.mark.parametrize("name", LAST)
def test_what_the_scores_are_is_told(keras: Any, tmp_path: Path, name: str) -> None:
    build, activation = LAST[name]
    keras.utils.set_random_seed(3)
    assert saved_and_loaded(build(keras), tmp_path).activation == activation


def test_where_nothing_decides_it_is_asked_for(keras: Any, tmp_path: Path) -> None:
    """Linear scores that happen to lie between 0 and 1, whatever the picture."""
    model = cnn(
        keras, keras.layers.Dense(3, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.3))
    )
    with pytest.raises(UsageError, match=r"cannot be told: they come from .*MatMul.*; give --activation softmax"):
        saved_and_loaded(model, tmp_path)
    assert saved_and_loaded(model, tmp_path, activation="sigmoid").activation == "sigmoid"


def test_eight_bit_scores_of_many_classes_are_told_by_the_operator() -> None:
    scores = np.zeros((20, 1000), np.float32)  # each probability is below half a step
    operators = {"out": Operator("SOFTMAX", ["in"]), "in": Operator("FULLY_CONNECTED", [])}
    assert activation_of(Path("m.tflite"), operators, "out", scores, sum_slack=4.0) == "softmax"


def test_wrong_words_for_what_the_scores_are(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--activation softmax: it has one unit; expected sigmoid or logits"):
        saved_and_loaded(cnn(keras, keras.layers.Dense(1)), tmp_path, activation="softmax")
    with pytest.raises(EdgevidError, match="--signature other: only SavedModels have signatures"):
        saved_and_loaded(cnn(keras, keras.layers.Dense(3)), tmp_path, signature="other")


def test_a_signature_of_bytes_is_passed_over(keras: Any, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    model = cnn(keras, keras.layers.Dense(3, activation="softmax"))
    module = tf.Module()
    module.model = model
    spec = tf.TensorSpec((None, 16, 16, 3), tf.float32, "image")
    images = tf.function(lambda image: {"scores": model(image)}, input_signature=[spec])

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "bytes")])  # type: ignore[untyped-decorator]
    def of_bytes(encoded: Any) -> Any:
        pictures = tf.map_fn(lambda one: tf.cast(tf.io.decode_png(one, 3), tf.float32), encoded, tf.float32)
        return {"scores": model(tf.ensure_shape(pictures, (None, 16, 16, 3)))}

    signatures = {"serving_default": of_bytes, "images": images}
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signatures)
    asked: dict[str, Any] = {"image_size": None, "custom_objects": None, "trust": False, "memory_gb": 4.0}
    for signature in (None, "images"):
        request = Request(path=str(tmp_path / "saved"), signature=signature, **asked)
        frozen = read_frozen(child.load(request, tmp_path), tmp_path)
        np.testing.assert_allclose(frozen(noise()), np.asarray(model(noise())), atol=1e-5)
    for name, message in (("other", "it has none of that name; expected one of"), ("serving_default", "text or bytes")):
        with pytest.raises(UsageError, match=message):
            child.load(Request(path=str(tmp_path / "saved"), signature=name, **asked), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.keras", b"\x1c\x00\x00\x00TFL3" + bytes(20), "a TFLite model; it is converted already: use  edgevid pack"),
        ("m.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model; it is converted already: use  edgevid pack"),
        ("m.h5", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, no model: run  git lfs pull"),
        ("m.h5", b"<!DOCTYPE html>", "a web page: the download went wrong"),
        ("m.pkl", b"\x80\x04\x95", "a Python pickle, which runs code when it is read"),
        ("m.json", b'{"class_name": "Sequential"}', "JSON: a model's configuration without its weights"),
        ("m.keras", b"", "the file is empty; save or copy it again"),
        ("m.ckpt.index", bytes(40), "a TensorFlow checkpoint: weights only, no model"),
    ],
)
def test_what_is_no_keras_model_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    from edgevid_convert.loading.model import load_model

    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_model(tmp_path / name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "output"),
    [("mobilenet_1.0_224", "mobilenet_1.0_224.edgevid"), ("a.b.h5", "a.b.edgevid"), ("c.KERAS", "c.edgevid")],
)
def test_a_bundle_keeps_the_name_of_its_model(tmp_path: Path, name: str, output: str) -> None:
    from edgevid_convert.options import default_output

    assert default_output(tmp_path / name).name == output


def test_check_says_what_a_model_is_and_converts_nothing(
    cli: Cli, keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layers = keras.layers
    body = [layers.RandomFlip(), layers.Rescaling(1 / 255), layers.Reshape((16, 48)), layers.LSTM(4)]
    keras.Sequential([keras.Input((16, 16, 3)), *body, layers.Dense(1)]).save("gate.keras")
    outcome = cli("convert", "gate.keras", "--check")
    assert outcome.status == 0, outcome.err
    for expected in (
        "gate.keras: a .keras file of Keras 3.",
        "input     16×16×3 rgb",
        "output    2 classes by one unit, a logit",
        "it normalizes by itself, as (pixel − 0) / 255",
        "LSTM: unrolled: a loop has no operator",
        "RandomFlip: augments in training only",
        "will make tflite-fp32, onnx-fp32, tflite-fp16, tflite-dynamic-int8",
        "not       tflite-int8, onnx-int8, tflite-int8-full: add --calib",
    ):
        assert expected in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["gate.keras"]


def test_pictures_of_an_image_reader_of_digits(cli: Cli, keras: Any, tmp_path: Path) -> None:
    """MNIST code: 28 by 28, no channels, logits; through run, held against Keras by a loop of its own."""
    layers = keras.layers
    keras.utils.set_random_seed(5)
    body = [layers.Reshape((28, 28, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28)), *body])
    model.save(tmp_path / "digits.h5")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    for index, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / "pictures" / f"{index}.png"), image)
    bundle, out = tmp_path / "digits.edgevid", tmp_path / "out.jsonl"
    outcome = cli("convert", tmp_path / "digits.h5", "--preprocess", "0-1", "--precision", "fp32", "-o", bundle)
    assert outcome.status == 0, outcome.err
    logits = np.asarray(model(pixels / np.float32(255)))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for variant in ("tflite-fp32", "onnx-fp32"):
        arguments = (
            "--source",
            tmp_path / "pictures",
            "--variant",
            variant,
            "--window",
            "1",
            "--predictions",
            out,
            "--force",
        )
        assert cli("run", bundle, *arguments).status == 0
        rows = read_jsonl(out.read_text())
        assert [row["raw_label"] for row in rows] == [f"class {best}" for best in scores.argmax(axis=1)]
        np.testing.assert_allclose([row["raw_score"] for row in rows], scores.max(axis=1), atol=1e-4)
    assert json.loads((bundle / "edgevid.json").read_text())["input"]["color"] == "grey"

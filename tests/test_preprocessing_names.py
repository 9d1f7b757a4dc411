"""Preprocessing as in training: the names for it, and what the model's first layers give away about it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.shell_completion import ShellComplete

from edgevid.cli import cli as command_line
from edgevid.manifest import MANIFEST_FILE, InputSpec, Preprocessing, Tensor
from edgevid.preprocess import Preprocessor
from edgevid_convert.preprocessing import KERAS_FAMILIES, NORMALIZATIONS
from tests.conftest import Outcome, picture

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
FLOAT_ONLY = ("--formats", "tflite", "--precision", "fp32")
SIZE = 16


def families(keras: Any) -> dict[str, ModuleType]:
    """Return every module of keras.applications that has a preprocessing of its own."""
    modules = {name: getattr(keras.applications, name) for name in dir(keras.applications)}
    return {
        name: module
        for name, module in modules.items()
        if hasattr(module, "preprocess_input") and name != "imagenet_utils"
    }


def model_input(name: str, image: Any) -> Any:
    """Return what the device feeds a model converted with ``--preprocess NAME``."""
    height, width, _ = image.shape
    named = NORMALIZATIONS[name]
    steps = Preprocessing(mean=(named.mean * 3)[:3], std=(named.std * 3)[:3])
    spec = InputSpec(height=height, width=width, channels=3, color=named.color)
    out = np.empty((1, height, width, 3), np.float32)
    Preprocessor(spec, steps, Tensor(shape=out.shape, dtype="float32"))(image, out)
    return out[0]


def test_the_table_has_every_keras_family(keras: Any) -> None:
    assert set(KERAS_FAMILIES) == set(families(keras))


@pytest.mark.parametrize("family", KERAS_FAMILIES)
def test_a_family_gets_what_its_preprocess_input_makes(keras: Any, family: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    expected = families(keras)[family].preprocess_input(image[..., ::-1].astype(np.float32))
    np.testing.assert_allclose(model_input(f"keras:{family}", image), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_a_mode_gets_what_keras_makes_of_it(keras: Any, mode: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    pixels = image[..., ::-1].astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(pixels, mode=mode)
    np.testing.assert_allclose(model_input(mode, image), expected, atol=2e-5, rtol=1e-5)


def test_ranges_are_what_they_are_called() -> None:
    for name, (low, high) in {"0-1": (0, 1), "-1-1": (-1, 1), "none": (0, 255)}.items():
        for level, expected in ((0, low), (255, high)):
            assert (model_input(name, np.full((4, 4, 3), level, np.uint8)) == expected).all()


@pytest.fixture
def save(keras: Any, tmp_path: Path) -> Callable[..., Path]:
    """Save a small classifier that begins with the given layers."""

    def to_file(*first: Any, channels: int = 3) -> Path:
        layers = keras.layers
        head = [layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((SIZE, SIZE, channels)), *first, layers.Conv2D(4, 3), *head])
        model.save(tmp_path / "model.keras")
        return tmp_path / "model.keras"

    return to_file


def converted(cli: Cli, model: Path, *arguments: object) -> Outcome:
    return cli("convert", model, "-o", model.with_name("o.edgevid"), "--force", *FLOAT_ONLY, *arguments)


def manifest(model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model.with_name("o.edgevid") / MANIFEST_FILE).read_text())
    return content


def test_a_name_is_in_the_manifest_by_its_effect(cli: Cli, save: Callable[..., Path]) -> None:
    model = save()
    for arguments, color, mean, std in (
        (["--preprocess", "caffe"], "bgr", [103.939, 116.779, 123.68], [1.0] * 3),
        (["--preprocess", "keras:resnet", "--color", "rgb"], "rgb", [123.68, 116.779, 103.939], [1.0] * 3),
        (["--mean", "1,2,3", "--std", "4", "--color", "bgr"], "bgr", [1.0, 2.0, 3.0], [4.0] * 3),
    ):
        outcome = converted(cli, model, *arguments)
        assert outcome.status == 0, outcome.err
        content = manifest(model)
        assert (content["input"]["color"], content["preprocessing"]["mean"], content["preprocessing"]["std"]) == (
            color,
            mean,
            std,
        )
        assert content["variants"][0]["parity"]["max_abs_error"] < 1e-4


def test_what_cannot_be_meant_is_wrong_usage(cli: Cli, save: Callable[..., Path]) -> None:
    model = save(channels=1)
    for arguments, message in (
        (["--preprocess", "tf", "--mean", "1"], "--preprocess tf and --mean both say how pixels become numbers"),
        (["--preprocess", "tf", "--std", "1"], "--preprocess tf and --std both say"),
        (["--preprocess", "pytorch"], "'pytorch' is not one of"),
        (["--preprocess", "torch"], "--preprocess torch: 3 numbers for 1 channel(s)"),
        (["--color", "bgr"], "--color bgr: the model takes one channel, grey"),
    ):
        outcome = converted(cli, model, *arguments)
        assert outcome.status == 2, outcome.err
        assert message in outcome.error
    assert converted(cli, model, "--preprocess", "0-1").status == 0


def test_names_are_completed() -> None:
    completion = ShellComplete(command_line, {}, "edgevid", "_EDGEVID_COMPLETE")
    offered = [item.value for item in completion.get_completions(["convert", "--preprocess"], "keras:mobile")]
    assert offered == ["keras:mobilenet", "keras:mobilenet_v2", "keras:mobilenet_v3"]


def rescaling(keras: Any) -> list[Any]:
    return [keras.layers.Rescaling(1 / 127.5, offset=-1)]


def normalization(keras: Any) -> list[Any]:
    return [keras.layers.Normalization(mean=[124.0, 116, 104], variance=[58.0**2, 57**2, 56**2])]


def two_steps(keras: Any) -> list[Any]:
    layers = keras.layers
    scaled = layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2])
    return [layers.Rescaling(1 / 255), scaled, layers.ZeroPadding2D(2)]


@pytest.mark.parametrize(
    ("first", "said", "twice", "once"),
    [
        (rescaling, "(pixel − 127.5) / 127.5", [["--preprocess", "0-1"], ["--mean", 127.5, "--std", 127.5]], []),
        (normalization, "(pixel − (124, 116, 104)) / (58, 57, 56)", [["--preprocess", "torch"]], ["--mean", 0]),
        (
            two_steps,
            "(pixel − (123.7, 116.3, 103.5)) / (58.39, 57.12, 57.37)",
            [["--preprocess", "0-1"]],
            ["--preprocess", "none"],
        ),
    ],
)
def test_normalizing_twice_is_refused(
    cli: Cli,
    keras: Any,
    save: Callable[..., Path],
    first: Callable[[Any], list[Any]],
    said: str,
    twice: list[list[object]],
    once: list[object],
) -> None:
    model = save(*first(keras))
    for arguments in twice:
        outcome = converted(cli, model, *arguments)
        assert outcome.status == 2, outcome.err
        assert f"the model normalizes by itself, as {said}" in outcome.error
        assert "use --preprocess none" in outcome.error
        assert not model.with_name("o.edgevid").exists()
    outcome = converted(cli, model, *once)
    assert outcome.status == 0, outcome.err
    assert "grey levels" not in outcome.err
    assert manifest(model)["remarks"] == []


def test_a_mean_before_a_scale_inside_is_no_double_normalization(
    cli: Cli, keras: Any, save: Callable[..., Path]
) -> None:
    model = save(keras.layers.Rescaling(1 / 127.5))
    outcome = converted(cli, model, "--mean", 127.5)
    assert outcome.status == 0, outcome.err
    assert "values from -1 to 1 reach its first convolution" in outcome.err


def test_a_layer_for_numbers_that_are_small_already_is_none_for_grey_levels(
    cli: Cli, keras: Any, save: Callable[..., Path]
) -> None:
    """Batch normalization first, or statistics of pixels of 0–1: the user's normalization belongs before it."""
    for first in (keras.layers.BatchNormalization(), keras.layers.Normalization(mean=0.5, variance=0.08)):
        model = save(first)
        outcome = converted(cli, model, "--preprocess", "0-1")
        assert outcome.status == 0, outcome.err
        assert manifest(model)["remarks"] == []
    assert "most likely tf (−1 to 1), 0-1, torch or caffe" in converted(cli, model).err


@pytest.fixture(scope="session")
def with_batch_normalization(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose batch normalization has seen pictures of (pixel − 127.5) / 127.5."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
                layers.Conv2D(8, 3),
                layers.BatchNormalization(momentum=0.5),
                layers.ReLU(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4, "softmax"),
            ]
        )
        pixels = np.stack([picture(color, SIZE, SIZE, seed) for color in ("red", "green", "blue") for seed in range(9)])
        for _ in range(20):
            model((pixels[..., ::-1].astype(np.float32) - 127.5) / 127.5, training=True)
        path = tmp_path_factory.mktemp("normalized") / "model.keras"
        model.save(path)
    return path


@pytest.mark.parametrize(
    ("given", "suspicious"),
    [("tf", False), ("none", True), ("0-1", True), ("caffe", True), (None, True)],
)
def test_statistics_of_another_range_are_remarked(
    cli: Cli, with_batch_normalization: Path, clip: Path, given: str | None, suspicious: bool
) -> None:
    arguments = ["--preprocess", given] if given else []
    outcome = converted(cli, with_batch_normalization, "--calib", clip, *arguments)
    assert outcome.status == 0, outcome.err
    assert ("the preprocessing looks wrong: --preprocess tf fits much better" in outcome.err) == suspicious
    assert len(manifest(with_batch_normalization)["remarks"]) == int(suspicious)
    shown = cli("inspect", with_batch_normalization.with_name("o.edgevid")).out
    assert ("looks wrong" in shown) == suspicious


@pytest.mark.parametrize("batch_normalization", [True, False])
def test_a_model_trained_on_scaled_pixels_that_scales_again(
    cli: Cli, keras: Any, save: Callable[..., Path], clip: Path, tmp_path: Path, batch_normalization: bool
) -> None:
    """What its batch normalization saw tells that it is right; without one, the user has to say so."""
    layers = keras.layers
    body = [layers.Rescaling(1 / 255), layers.Conv2D(8, 3)]
    body += [layers.BatchNormalization(momentum=0.5, epsilon=1e-9)] if batch_normalization else []
    head = [layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(4, "softmax")]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *body, *head])
    pixels = np.stack([picture(color, SIZE, SIZE, seed) for color in ("red", "green", "blue") for seed in range(9)])
    for _ in range(20):
        model(pixels[..., ::-1].astype(np.float32) / 255, training=True)
    path = tmp_path / "twice.keras"
    model.save(path)
    outcome = converted(cli, path, "--calib", clip, "--preprocess", "0-1")
    if batch_normalization:
        assert outcome.status == 0, outcome.err
        assert manifest(path)["remarks"] == []
        assert "--preprocess 0-1 fits much better" in converted(cli, path, "--calib", clip).err
    else:
        assert outcome.status == 2
        assert "if its training got pictures normalized by --preprocess 0-1, add --insist" in outcome.error
        outcome = converted(cli, path, "--calib", clip, "--preprocess", "0-1", "--insist")
        assert outcome.status == 0, outcome.err
        assert "reach its first convolution, as --insist has it" in outcome.err
        outcome = converted(cli, path, "--insist")
        assert outcome.status == 2
        assert "--insist: there is nothing to insist on" in outcome.error


def test_a_batch_normalization_of_another_axis_is_no_sign(cli: Cli, keras: Any, clip: Path, tmp_path: Path) -> None:
    layers = keras.layers
    odd = layers.BatchNormalization(axis=-2)
    head = [layers.GlobalAveragePooling2D(), layers.Dense(4, "softmax")]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(8, 3), odd, *head])
    generator = np.random.default_rng(0)
    for weight in (odd.moving_mean, odd.moving_variance):
        weight.assign(generator.uniform(0.1, 0.5, SIZE - 2))
    model.save(tmp_path / "odd.keras")
    outcome = converted(cli, tmp_path / "odd.keras", "--calib", clip, "--preprocess", "none")
    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "odd.keras")["remarks"] == []


def frozen(keras: Any, call: Callable[[Any], Any]) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from edgevid_convert.engine import tf

    spec = tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, name="image")
    function = tf.function(call, input_signature=[spec], autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(function).graph.as_graph_def()


def test_both_forms_of_batch_normalization_tell_what_they_saw(keras: Any) -> None:
    """Keras writes it out in single operators; TensorFlow, and with it many a SavedModel, has one for it."""
    from edgevid_convert.engine import tf
    from edgevid_convert.first_layers import FirstLayers

    gamma, beta, mean, variance = (np.array(row, np.float32) for row in ([2, 3], [0, 1], [4, 5], [0.5, 0.25]))
    convolution, layer = keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization(epsilon=1e-7)
    convolution.build((1, SIZE, SIZE, 3))
    layer.build((1, SIZE, SIZE, 2))
    layer.set_weights([gamma, beta, mean, variance])

    def fused(image: Any) -> Any:
        answer, *_ = tf.compat.v1.nn.fused_batch_norm(
            convolution(image), gamma, beta, mean, variance, epsilon=1e-7, is_training=False
        )
        return tf.nn.relu(answer)

    image = np.random.default_rng(0).normal(0, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
    found = []
    for call in (fused, lambda image: tf.nn.relu(layer(convolution(image)))):
        layers = FirstLayers(frozen(keras, call))
        seen = layers.statistics()
        assert seen is not None
        np.testing.assert_allclose(seen.mean, beta, atol=1e-5)
        np.testing.assert_allclose(seen.variance, gamma**2, rtol=1e-4)
        found.append(layers.divergence(seen, [image]))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_layer_normalization_has_seen_nothing(keras: Any) -> None:
    from edgevid_convert.first_layers import FirstLayers

    convolution, layer = keras.layers.Conv2D(2, 3), keras.layers.LayerNormalization()
    assert FirstLayers(frozen(keras, lambda image: layer(convolution(image)))).statistics() is None
    untrained = keras.layers.BatchNormalization()
    assert FirstLayers(frozen(keras, lambda image: untrained(convolution(image)))).statistics() is None


def test_reversed_channels_hide_nothing(keras: Any) -> None:
    from edgevid_convert.first_layers import FirstLayers

    convolution = keras.layers.Conv2D(2, 3)
    for call in (
        lambda image: convolution(image[..., ::-1] / 255.0),
        lambda image: convolution(keras.ops.flip(image, axis=-1) / 255.0),
    ):
        inner = FirstLayers(frozen(keras, call)).inner_map()
        assert inner.normalizes
        assert str(inner) == "(pixel − 0) / 255"

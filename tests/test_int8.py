"""Better int8: graphs that are repaired, rounding with compensation, ranges, and candidates in both formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytestmark = pytest.mark.usefixtures("quiet_keras")
Frames = list[npt.NDArray[np.float32]]
SIZE = 24


@pytest.fixture(scope="module")
def frames() -> Frames:
    generator = np.random.default_rng(0)
    smooth = generator.normal(0, 1, (24, 1, 6, 6, 3)).repeat(4, axis=2).repeat(4, axis=3)
    return [(image + generator.normal(0, 0.2, image.shape)).astype(np.float32) for image in smooth]


@pytest.fixture(scope="module")
def frozen(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network of every kind of layer that is repaired: strided, depthwise, grouped, residual, with ReLU and ReLU6."""
    from edgevid_convert.loading.model import load_model

    layers = keras.layers
    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(image))
    x = layers.ReLU(6.0)(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.Conv2D(8, 1)(x)
    y = layers.Conv2D(8, 3, padding="same", groups=2, activation="relu")(x)
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(8, 1)(y)]))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x))
    x = layers.Concatenate()([x, layers.ReLU()(layers.Conv2D(4, 3, padding="same", dilation_rate=3)(x))])
    x = layers.Conv2D(12, 3, padding="valid", activation="swish")(x)
    outputs = layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, outputs)
    generator = np.random.default_rng(1)
    model.set_weights([weight * generator.uniform(0.3, 3, weight.shape[-1]) for weight in model.get_weights()])
    return load_model(_saved(model, tmp_path_factory.mktemp("frozen") / "model.keras"))


@pytest.fixture(scope="module")
def activated_first(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network whose ReLUs do not come right after a convolution, as in ResNetV2, and one after a dense layer."""
    from edgevid_convert.loading.model import load_model

    layers = keras.layers
    keras.utils.set_random_seed(4)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2, padding="same")(image)
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.Rescaling(0.8)(x)))
        x = layers.Add()([x, y])
    x = layers.Dense(16, "relu")(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    model = keras.Model(image, layers.Dense(5, "softmax")(x))
    generator = np.random.default_rng(2)
    model.set_weights([weight + generator.uniform(0, 0.5, weight.shape) for weight in model.get_weights()])
    return load_model(_saved(model, tmp_path_factory.mktemp("activated") / "model.keras"))


def _saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path) if path.suffix else model.export(path)
    return path


def answers(model: Any, graph: Any, frames: Frames) -> npt.NDArray[np.float32]:
    from dataclasses import replace

    asked = replace(model, graph=graph)
    return np.concatenate([asked(frame) for frame in frames])


def test_folding_changes_nothing_and_finds_every_layer(frozen: Any, frames: Frames) -> None:
    from edgevid_convert.int8.layers import folded

    layered = folded(frozen.graph)
    assert [layer.kind for layer in layered.layers].count("DepthwiseConv2dNative") == 2
    assert len(layered.layers) == 9
    operators = {node.op for node in layered.graph.node}
    assert "Mul" not in {node.op for node in layered.graph.node if "batch" in node.name}
    assert "BiasAdd" in operators
    np.testing.assert_allclose(answers(frozen, layered.graph, frames), answers(frozen, frozen.graph, frames), atol=1e-5)


def test_equalized_channels_share_a_range_and_the_answers_stay(frozen: Any, frames: Frames) -> None:
    from edgevid_convert.int8 import repair
    from edgevid_convert.int8.equalize import streams
    from edgevid_convert.int8.layers import folded

    layered = folded(frozen.graph)
    found = streams(layered)
    assert any(stream.clipped for stream in found)
    # Depthwise to pointwise is one; the convolution after the addition reads what a swish does not follow.
    assert len(found) >= 3
    equal = repair._equalized(layered, frames)
    np.testing.assert_allclose(answers(frozen, equal.graph, frames), answers(frozen, frozen.graph, frames), atol=1e-5)
    before, after = layered.parameters(), equal.parameters()
    assert any(not np.allclose(before[name].weights, after[name].weights) for name in before)


def test_repaired_weights_are_what_int8_holds_and_closer_to_keras(frozen: Any, frames: Frames) -> None:
    from edgevid_convert.int8.layers import Parameters, folded
    from edgevid_convert.int8.repair import repaired
    from edgevid_convert.int8.rounding import rounded_to_nearest

    graph = repaired(frozen.graph, frames[::2])
    layered = folded(graph)
    for name, parameters in layered.parameters().items():
        weights = parameters.weights
        rows = weights.reshape(-1, parameters.bias.size).T
        steps = np.abs(rows).max(axis=1, keepdims=True) / 127
        np.testing.assert_allclose(rows / steps, np.rint(rows / steps), atol=1e-3, err_msg=name)
    plain = folded(frozen.graph)
    nearest = plain.replaced(
        {
            name: Parameters(
                rounded_to_nearest(old.weights.reshape(1, -1, old.bias.size).transpose(0, 2, 1))
                .transpose(0, 2, 1)
                .reshape(old.weights.shape),
                old.bias,
            )
            for name, old in plain.parameters().items()
        }
    )
    held_out = frames[1::2]
    truth = answers(frozen, frozen.graph, held_out)
    of_repaired = np.abs(answers(frozen, graph, held_out) - truth).mean()
    of_nearest = np.abs(answers(frozen, nearest.graph, held_out) - truth).mean()
    assert of_repaired < 0.7 * of_nearest


def test_a_repair_is_the_same_for_the_same_seed_and_can_be_cut_short(frozen: Any, frames: Frames) -> None:
    from edgevid_convert.int8.repair import repaired

    first, again = (repaired(frozen.graph, frames[:8], seed=4) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    seen: list[tuple[int, int]] = []

    def until_the_third(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < 2

    cut = repaired(frozen.graph, frames[:8], until_the_third)
    assert seen == [(0, 9), (1, 9), (2, 9)]
    error = np.abs(answers(frozen, cut, frames) - answers(frozen, frozen.graph, frames)).max()
    assert error < 0.05


def test_layers_of_half_precision_stay_as_they_are(keras: Any, frames: Frames, tmp_path: Path) -> None:
    from edgevid_convert.int8.repair import repaired
    from edgevid_convert.loading.model import load_model

    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    half = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", dtype="mixed_float16")(image))
    model = keras.Model(image, layers.Dense(3, "softmax", dtype="float32")(half))
    frozen = load_model(_saved(model, tmp_path / "saved"))
    error = np.abs(answers(frozen, repaired(frozen.graph, frames[:8]), frames) - answers(frozen, frozen.graph, frames))
    assert error.max() < 0.01


def test_rounding_makes_up_for_its_errors_where_inputs_go_together() -> None:
    from edgevid_convert.int8.rounding import least_squares, rounded, rounded_to_nearest, steps

    generator = np.random.default_rng(0)
    shared = generator.normal(0, 1, (1, 500, 4))
    inputs = shared @ generator.normal(0, 1, (4, 80)) + generator.normal(0, 0.1, (1, 500, 80))
    weights = generator.normal(0, 1, (1, 10, 80))
    curvature, _ = least_squares(inputs, inputs @ weights.transpose(0, 2, 1))
    careful, nearest = rounded(weights, curvature), rounded_to_nearest(weights)

    def error(other: npt.NDArray[np.float64]) -> float:
        return float(((inputs @ (other - weights).transpose(0, 2, 1)) ** 2).mean())

    assert error(careful) < 0.2 * error(nearest)
    np.testing.assert_allclose(steps(careful), steps(weights))  # so that converters round it to itself


@pytest.mark.parametrize("method", ["min-max", "mse", "percentile", "entropy"])
def test_a_range_has_zero_in_it_and_lies_within_what_was_seen(method: str) -> None:
    from edgevid_convert.int8.ranges import observed, ranges

    generator = np.random.default_rng(0)
    tensors = {
        "normal": generator.normal(0, 1, (40, 5000)).astype(np.float32),
        "outlier": np.append(generator.normal(0, 1, 9999), 50).astype(np.float32).reshape(1, 1, -1),
        "positive": generator.uniform(3, 5, (40, 100)).astype(np.float32),
        "constant": np.zeros((40, 10), np.float32),
    }
    seen = observed({name: rows[index % len(rows)] for name, rows in tensors.items()} for index in range(40))
    found = ranges(seen, method)
    for name, (low, high) in found.items():
        assert low <= 0 <= high, name
        assert low < high, name
        assert low >= seen[name].low - 1e-6, name
        assert high <= seen[name].high + 1e-5, name
    assert found["positive"][1] > 4
    if method == "min-max":
        assert found["outlier"][1] == 50
    else:
        assert found["outlier"][1] < 50


def _tflite(frozen: Any, folder: Path) -> Any:
    from edgevid_convert.int8.tflite import TfliteCandidates
    from edgevid_convert.variants import FloatFiles

    return TfliteCandidates(FloatFiles(frozen, folder).tflite)


def _onnx(frozen: Any, folder: Path) -> Any:
    from edgevid_convert.int8.onnx import OnnxCandidates
    from edgevid_convert.variants import FloatFiles

    return OnnxCandidates(FloatFiles(frozen, folder).onnx)


@pytest.mark.parametrize("network", ["frozen", "activated_first"])
@pytest.mark.parametrize("make", [_tflite, _onnx])
def test_candidates_of_a_format(
    make: Callable[[Any, Path], Any], network: str, frames: Frames, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from edgevid_convert.int8.candidates import units
    from edgevid_convert.int8.ranges import ranges
    from edgevid_convert.variants import described

    frozen = request.getfixturevalue(network)
    candidates = make(frozen, tmp_path)
    names = [operator.name for operator in candidates.operators]
    assert len(names) == len(set(names))
    seen = candidates.observe(frames)
    assert {name for operator in candidates.operators for name in (*operator.inputs, operator.output)} <= set(seen)
    found, truth = ranges(seen, "min-max"), answers(frozen, frozen.graph, frames)
    variant_id = f"{candidates.suffix}-int8"
    path = tmp_path / f"{variant_id}.{candidates.suffix}"

    def error(in_float: frozenset[str]) -> float:
        candidates.write(path, found, in_float)
        asked = candidates.opened(path, 1)
        variant = described(variant_id, path)  # which holds an ONNX file against the checker
        assert (variant.input.dtype, variant.output.dtype) == ("float32", "float32")
        return float(np.abs(np.stack([asked(frame) for frame in frames]) - truth).mean())

    assert error(frozenset(names)) < 1e-6  # nothing in int8 is the float model
    everything_in_int8 = error(frozenset())
    assert 1e-5 < everything_in_int8 < 0.05
    assert path.stat().st_size > 0
    for unit in units(candidates.operators):
        assert error(frozenset({names[-1], *unit.operators})) < 2 * everything_in_int8

"""Models of several frames at a time, and image classifiers, cut in two; what cannot be fed; and windows of clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevid.errors import EdgevidError
from edgevid.manifest import InputSpec, Preprocessing
from edgevid_convert.frames import sample_windows
from edgevid_convert.loading.graphs.cutting import cut_before_last_layer
from edgevid_convert.proof import float_preprocessor
from tests.test_loading import loaded
from tests.test_sequence import SIDE, write


def refused(keras: Any, shape: tuple[int | None, ...], **recurrent: Any) -> Any:
    layers = keras.layers
    batch = 1 if recurrent.get("stateful") else None
    flat = layers.TimeDistributed(layers.Flatten())
    return keras.Sequential([keras.Input(shape, batch), flat, layers.LSTM(4, **recurrent)])


@pytest.mark.parametrize(
    ("shape", "recurrent", "message"),
    [
        ((None, 8, 8, 3), {}, r"\(\?, \?, 8, 8, 3\) leaves the number of frames open; save it with a fixed one"),
        ((4, 8, 8, 5), {}, r"\(\?, 4, 8, 8, 5\); expected clips, \(batch, frames, height, width, 1 or 3 channels\)"),
        ((1, 8, 8, 3), {}, "expected windows of 2 to 1024 frames"),
        ((4, None, 8, 3), {}, "leaves the size open; give --image-size H,W"),
        ((4, 8, 8, 3), {"return_sequences": True}, r"output of shape \(1, 4, 4\); expected one score a class"),
        ((4, 8, 8, 3), {"stateful": True}, "'lstm.*' keeps its state from one call to the next"),
    ],
)
def test_what_cannot_be_fed_is_named(
    keras: Any,
    quiet_keras: None,
    tmp_path: Path,
    shape: tuple[int | None, ...],
    recurrent: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "model.keras"
    if shape[1] is None:
        layers = keras.layers
        cnn = [layers.TimeDistributed(layers.Conv2D(2, 3)), layers.TimeDistributed(layers.GlobalMaxPooling2D())]
        keras.Sequential([keras.Input(shape), *cnn, layers.LSTM(4)]).save(path)
    else:
        refused(keras, shape, **recurrent).save(path)
    with pytest.raises(EdgevidError, match=message):
        loaded(path, tmp_path)


def test_a_loop_in_a_saved_model_is_named(keras: Any, quiet_keras: None, tmp_path: Path) -> None:
    refused(keras, (4, 8, 8, 3)).export(tmp_path / "saved", verbose=False)
    with pytest.raises(EdgevidError, match=r"is a loop, .* convert the .keras or .h5 file"):
        loaded(tmp_path / "saved", tmp_path)


def _two_streams(layers: Any, image: Any) -> Any:
    features = [layers.TimeDistributed(layers.Conv2D(n, 3, 2, activation="relu"))(image) for n in (2, 3)]
    pooled = [layers.TimeDistributed(layers.GlobalAveragePooling2D())(each) for each in features]
    return layers.Bidirectional(layers.GRU(4))(layers.Concatenate()(pooled))


def _convolutional_lstm(layers: Any, image: Any) -> Any:
    features = layers.TimeDistributed(layers.Conv2D(2, 3, 2))(image)
    return layers.GlobalAveragePooling2D()(layers.ConvLSTM2D(3, 3)(features))


def _position(layers: Any, image: Any) -> Any:
    """A position is added to what each frame gives: from there on frames are not alike."""
    pooled = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.Conv2D(2, 3, 2))(image))
    return layers.GlobalMaxPooling1D()(pooled + np.arange(5, dtype=np.float32)[None, :, None])


def _volume(layers: Any, image: Any) -> Any:
    return layers.GlobalAveragePooling3D()(layers.Conv3D(4, 3)(image))


@pytest.mark.parametrize(
    ("build", "features"), [(_two_streams, 5), (_convolutional_lstm, 5 * 5 * 2), (_position, 5 * 5 * 2), (_volume, 0)]
)
def test_a_model_is_cut_where_frames_meet(
    keras: Any, quiet_keras: None, tmp_path: Path, build: Callable[[Any, Any], Any], features: int
) -> None:
    image = keras.Input((5, 12, 12, 3))
    model = keras.Model(image, keras.layers.Dense(3, "softmax")(build(keras.layers, image)))
    model.save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    assert (frozen.frames, frozen.classes, frozen.activation) == (5, 3, "softmax")
    assert (frozen.head.input_shape if frozen.head else None) == ((1, 5, features) if features else None)
    clip = np.random.default_rng(3).normal(0, 1, (1, 5, 12, 12, 3)).astype(np.float32)
    assert np.allclose(frozen.answer(clip), model(clip, training=False), atol=1e-5)


def _convolution_last(layers: Any, image: Any) -> Any:
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(6, 3, activation="relu")(image))
    return layers.Softmax()(layers.Flatten()(layers.Conv2D(3, 1)(pooled)))


def _logits_last(layers: Any, image: Any) -> Any:
    return layers.Dense(3, use_bias=False)(layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(image)))


@pytest.mark.parametrize("build", [_convolution_last, _logits_last])
def test_an_image_classifier_is_cut_before_its_last_layer(
    keras: Any, quiet_keras: None, tmp_path: Path, build: Callable[[Any, Any], Any]
) -> None:
    image = keras.Input((8, 8, 3))
    keras.Model(image, build(keras.layers, image)).save(tmp_path / "model.keras")
    whole = loaded(tmp_path / "model.keras", tmp_path)
    cut = cut_before_last_layer(tmp_path / "model.keras", whole)
    assert cut.head is not None
    assert cut.head.input_shape == (1, 1, 6)
    pixels = np.random.default_rng(4).normal(0, 1, (1, 8, 8, 3)).astype(np.float32)
    assert cut(pixels).shape == (1, 6)
    assert np.allclose(cut.answer(pixels), whole(pixels), atol=1e-6)


def test_a_model_without_a_last_layer_to_cut_is_named(keras: Any, quiet_keras: None, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    )
    model.save(tmp_path / "model.keras")
    with pytest.raises(EdgevidError, match="a Relu; expected a dense layer or a 1×1 convolution; leave --features out"):
        cut_before_last_layer(tmp_path / "model.keras", loaded(tmp_path / "model.keras", tmp_path))


def test_windows_are_of_consecutive_frames_and_none_calibrates_and_judges(tmp_path: Path) -> None:
    grey = np.arange(4, 252, 4)  # frames tell their number by it
    frames = np.broadcast_to(grey[:, None, None, None], (len(grey), SIDE, SIDE, 3)).astype(np.uint8)
    clip = write(tmp_path / "numbered.mp4", frames)
    spec = InputSpec(height=SIDE, width=SIDE, channels=3, color="rgb")
    preprocessor = float_preprocessor(spec, Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)))
    found = sample_windows([str(clip)], preprocessor, 5, False, 20)
    groups = {
        "calibration": found.calibration,
        "search": [window for each in found.search for window in each.frames],
        "held out": [window for each in found.held_out for window in each.frames],
    }
    numbers = {
        name: [tuple(np.rint(window.mean(axis=(1, 2, 3)) / 4).astype(int)) for window in windows]
        for name, windows in groups.items()
    }
    for windows in numbers.values():
        assert windows
        assert all(window == tuple(range(window[0], window[0] + 5)) for window in windows)
    everything = [number for windows in numbers.values() for window in windows for number in window]
    assert len(everything) == len(set(everything))


def test_features_of_a_saved_model(keras: Any, quiet_keras: None, tmp_path: Path) -> None:
    """Its operators wait for one another, which is nothing that could be cut."""
    layers = keras.layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3), *head])
    model.export(tmp_path / "saved", verbose=False)
    cut = cut_before_last_layer(tmp_path / "saved", loaded(tmp_path / "saved", tmp_path))
    assert cut.head is not None
    cut.head.save_frozen(tmp_path / "head")
    image = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(cut.answer(image), np.asarray(model(image)), atol=1e-5)

"""Models of several frames at a time: trained on motion that no single frame shows, converted, run from a ring."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import VideoClassifier, open_source
from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError
from edgevid.sequence import FrameRing
from edgevid.sources import Frame
from edgevid_convert.proof import float_preprocessor
from tests.conftest import Outcome, read_jsonl

FRAMES, SIDE, SQUARE = 8, 16, 4
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


def motion(direction: str, count: int, seed: int) -> Pixels:
    """Return frames of a bright square on noise, RGB (count, side, side, 3), that moves 1 or 2 pixels a frame.

    It leaves on one side and comes in on the other, so that where it is says nothing of where it goes.
    """
    generator = np.random.default_rng(seed)
    down, right = np.array(DIRECTIONS[direction]) * generator.choice([1, 2])
    top, left = generator.integers(0, SIDE, 2)
    frames = generator.normal(60, 12, (count, SIDE, SIDE, 3))
    for index, frame in enumerate(frames):
        rows, columns = (start + index * step + np.arange(SQUARE) for start, step in ((top, down), (left, right)))
        frame[np.ix_(rows % SIDE, columns % SIDE)] += 140
    return np.clip(frames, 0, 255).astype(np.uint8)


def write(path: Path, frames: Pixels) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv444p"
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def trained(model: Any, keras: Any, clips: Values, truth: npt.NDArray[np.intp], epochs: int) -> Any:
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(clips, truth, epochs=epochs, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def folder(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, a CNN + LSTM trained to tell directions, and a CNN trained on the single frames of the same clips."""
    path = tmp_path_factory.mktemp("motion")
    keras.utils.set_random_seed(1)
    truth = np.arange(1200) % len(DIRECTIONS)
    clips = np.stack([motion([*DIRECTIONS][k], FRAMES, 1000 + i) for i, k in enumerate(truth)]).astype(np.float32)
    layers = keras.layers
    cnn = [layers.Conv2D(8, 3, 2, "same", activation="relu"), layers.Flatten(), layers.Dense(24, activation="relu")]
    head = [layers.LSTM(24), layers.Dense(len(DIRECTIONS), "softmax")]
    scaling = layers.Rescaling(1 / 127.5, -1)
    each = layers.TimeDistributed(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *cnn]))
    of_clips = keras.Sequential([keras.Input((FRAMES, SIDE, SIDE, 3)), scaling, each, *head])
    of_frames = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 127.5, -1)])
    for layer in cnn:
        of_frames.add(layer.__class__.from_config(layer.get_config()))
    of_frames.add(layers.Dense(len(DIRECTIONS), "softmax"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(of_clips, keras, clips, truth, 8).save(path / "motion.keras")
        single = clips.reshape(-1, *clips.shape[2:])
        trained(of_frames, keras, single, np.repeat(truth, FRAMES), 3).save(path / "frames.keras")
    for seed, name in enumerate(DIRECTIONS):
        write(path / f"{name}.mp4", motion(name, 40, seed))
    write(path / "all.mp4", np.concatenate([motion(name, 40, 100 + seed) for seed, name in enumerate(DIRECTIONS)]))
    (path / "labels.txt").write_text("\n".join(DIRECTIONS), encoding="utf-8")
    return path


def converted(cli: Callable[..., Outcome], model: Path, folder: Path, *options: str) -> Path:
    bundle = model.with_suffix(".edgevid")
    if not bundle.exists():
        calib = ("--calib", *(folder / f"{name}.mp4" for name in DIRECTIONS))
        labels = ("--labels", folder / "labels.txt", "--preprocess", "none", "--no-search")
        outcome = cli("convert", model, "-o", bundle, *labels, *options, *calib)
        assert outcome.status == 0, outcome.err
    return bundle


@pytest.fixture
def motion_bundle(cli: Callable[..., Outcome], folder: Path) -> Path:
    """The CNN + LSTM, converted once."""
    return converted(cli, folder / "motion.keras", folder, "--precision", "fp32,int8")


def predictions(cli: Callable[..., Outcome], bundle: Path, source: Path, *options: object) -> list[dict[str, Any]]:
    outcome = cli("run", bundle, "--source", source, "--predictions", "-", "--window", 1, *options)
    assert outcome.status == 0, outcome.err
    return read_jsonl(outcome.out)


def windows_of(bundle: Path, source: Path) -> Values:
    """Return the window that ends with each frame, the first frame in place of those before it."""
    manifest = Bundle(bundle).manifest
    preprocess = float_preprocessor(manifest.input, manifest.preprocessing)
    frames = np.zeros((FRAMES - 1, SIDE, SIDE, 3), np.float32)
    with open_source(source) as opened:
        for frame in opened:
            tensor = np.empty((1, SIDE, SIDE, 3), np.float32)
            preprocess(frame.picture, tensor)
            frames = np.concatenate([frames, tensor])
    frames[: FRAMES - 1] = frames[FRAMES - 1]
    return np.stack([frames[i : i + FRAMES] for i in range(len(frames) - FRAMES + 1)])


def when_whole(answers: Values) -> Values:
    """Return what is answered while a window fills: the share of frames that are there, and the rest alike for all."""
    there = np.minimum(1, np.arange(1, len(answers) + 1) / FRAMES)[:, None]
    return (there * answers + (1 - there) / len(DIRECTIONS)).astype(np.float32)


def scores(classifier: VideoClassifier, source: Path | list[Frame]) -> Values:
    """Return the class probabilities of every frame's window."""
    if isinstance(source, Path):
        found = list(classifier.stream(source))
    else:
        found = [prediction for _, prediction in classifier.classify_frames(source)]
    return np.array([[dict(each.top)[label] for label in DIRECTIONS] for each in found], np.float32)


@pytest.mark.slow
def test_a_cnn_and_lstm_streams_as_keras_and_sees_what_no_frame_shows(
    cli: Callable[..., Outcome], keras: Any, quiet_keras: None, folder: Path, motion_bundle: Path
) -> None:
    source, truth = folder / "all.mp4", [name for name in DIRECTIONS for _ in range(40)]
    windows = windows_of(motion_bundle, source)
    expected = keras.models.load_model(folder / "motion.keras")(windows, training=False).numpy()
    for backend, variant in (("litert", "tflite-fp32"), ("onnxruntime", "onnx-fp32"), ("openvino", "tflite-fp32")):
        options = {"window": 1, "top_k": 4, "threads": 1}
        with VideoClassifier(motion_bundle, backend=backend, variant=variant, workers=2, **options) as classifier:  # type: ignore[arg-type]
            assert np.abs(scores(classifier, source) - when_whole(expected)).max() < 1e-3
    # Each of the four clips has 33 whole windows of its own.
    whole = [index for index in range(len(truth)) if index % 40 >= FRAMES - 1]
    told = predictions(cli, motion_bundle, source, "--variant", "tflite-int8")
    right = np.mean([told[index]["raw_label"] == truth[index] for index in whole])
    single = keras.models.load_model(folder / "frames.keras")(windows[:, -1], training=False).numpy()
    averaged = np.stack([single[index - FRAMES + 1 : index + 1].mean(axis=0) for index in whole]).argmax(axis=1)
    right_by_frames = np.mean(
        [[*DIRECTIONS][best] == truth[index] for best, index in zip(averaged, whole, strict=True)]
    )
    assert right > 0.9
    assert right_by_frames < 0.6
    manifest = Bundle(motion_bundle).manifest
    assert manifest.smoothing.window == FRAMES
    assert {each.id: each.rejected for each in manifest.variants} == dict.fromkeys(
        ("tflite-int8", "onnx-int8", "tflite-fp32", "onnx-fp32")
    )
    assert all(each.parity and each.parity.max_abs_error < 1e-3 for each in manifest.variants if "fp32" in each.id)
    assert "windows      of 8 frames, one every 1; each answered with 24 features" in cli("inspect", motion_bundle).out


@pytest.mark.slow
def test_between_windows_the_last_answer_stands(cli: Callable[..., Outcome], folder: Path, motion_bundle: Path) -> None:
    source = folder / "all.mp4"
    every = predictions(cli, motion_bundle, source, "--hop", 1)
    fifth = predictions(cli, motion_bundle, source, "--hop", 5)
    assert len(every) == len(fifth) == 160
    for index, (one, other) in enumerate(zip(every, fifth, strict=True)):
        # As every frame until the first window is whole, which frame 7 ends; then at 12, 17, ...
        answered = index if index < FRAMES else index - (index - FRAMES + 1) % 5
        assert other["raw_score"] == every[answered]["raw_score"]
        assert other["frame"] == one["frame"]
    assert [each["raw_score"] for each in every] != [each["raw_score"] for each in fifth]
    assert "expected a whole number of frames" in cli("run", motion_bundle, "--source", source, "--hop", 0).error


@pytest.mark.slow
def test_a_gap_and_another_clip_empty_the_ring(folder: Path, motion_bundle: Path) -> None:
    with open_source(folder / "left.mp4") as opened:
        before = list(opened)
    with open_source(folder / "down.mp4") as opened:
        after = list(opened)
    for gap_s in (0.5, float("inf")):
        joined = [*before, replace(after[0], gap_s=gap_s), *after[1:]]
        with VideoClassifier(motion_bundle, window=1, top_k=4) as classifier:
            together = scores(classifier, joined)
            classifier.reset()
            assert np.array_equal(together[len(before) :], scores(classifier, after))
            classifier.reset()
            without_gap = scores(classifier, [*before, *after])
        assert not np.allclose(together[len(before) :], without_gap[len(before) :], atol=0.01)
    (folder / "two").mkdir()
    for name in ("left", "down"):
        shutil.copyfile(folder / f"{name}.mp4", folder / "two" / f"{name}.mp4")
    with VideoClassifier(motion_bundle, window=1, top_k=4) as classifier:
        apart = [scores(classifier, folder / "two" / f"{name}.mp4") for name in ("down", "left")]
        assert np.array_equal(scores(classifier, folder / "two" / "*.mp4"), np.concatenate(apart))


@pytest.mark.slow
def test_a_loop_of_ones_own_is_fed_frame_by_frame(folder: Path, motion_bundle: Path) -> None:
    with open_source(folder / "up.mp4") as opened, VideoClassifier(motion_bundle, window=1) as classifier:
        labels = [classifier.classify(frame.image, frame.time).label for frame in opened]
    assert labels[FRAMES:] == ["up"] * (len(labels) - FRAMES)


@pytest.mark.slow
def test_a_3d_cnn_takes_whole_windows(cli: Callable[..., Outcome], keras: Any, quiet_keras: None, folder: Path) -> None:
    keras.utils.set_random_seed(2)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((FRAMES, SIDE, SIDE, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv3D(4, 3, activation="relu"),
            layers.MaxPooling3D(2),
            layers.GlobalAveragePooling3D(),
            layers.Dense(len(DIRECTIONS), "softmax"),
        ]
    )
    model.save(folder / "volume.keras")
    bundle = converted(cli, folder / "volume.keras", folder)
    manifest = Bundle(bundle).manifest
    assert manifest.sequence is not None
    assert (manifest.sequence.hop, manifest.sequence.features) == (FRAMES // 2, 0)
    assert {"onnx-int8", "onnx-fp32", "tflite-int8", "tflite-fp32"} <= {each.id for each in manifest.variants}
    source = folder / "all.mp4"
    expected = model(windows_of(bundle, source), training=False).numpy()
    with VideoClassifier(bundle, variant="onnx-fp32", window=1, top_k=4, hop=1) as classifier:
        assert np.abs(scores(classifier, source) - when_whole(expected)).max() < 1e-3
    for options in (("--workers", 2), ("--batch", 2)):
        error = cli("run", bundle, "--source", source, *options).error
        assert f"{options[0][2:]} 2: volume.edgevid takes windows of frames, one after the other" in error


def test_the_ring_holds_the_last_rows_the_oldest_first() -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    ring, window = FrameRing(7, rows[0]), np.empty((7, 3), np.float32)
    for index, row in enumerate(rows):
        ring.push(row)
        ring.copy_to(window)
        assert np.array_equal(window, rows[np.maximum(0, np.arange(index - 6, index + 1))])
    ring.clear()
    ring.push(rows[4])
    ring.copy_to(window)
    assert np.array_equal(window, np.repeat(rows[4:5], 7, axis=0))


def test_a_hop_is_for_windows(cli: Callable[..., Outcome], bundle_path: Path, clip: Path) -> None:
    assert "classifies single frames" in cli("run", bundle_path, "--source", clip, "--hop", 2).error


@pytest.mark.slow
def test_features_are_pooled_and_their_head_is_the_models_last_layer(
    cli: Callable[..., Outcome], trained: Any, bundle_path: Path, model_file: Path, clip: Path, tmp_path: Path
) -> None:
    options = ("--mean", "127.5", "--std", "127.5", "--precision", "fp32", "--features")
    assert cli("convert", model_file, "-o", tmp_path / "cut.edgevid", *options).status == 0
    weights, bias = trained.layers[-1].get_weights()
    for variant in ("tflite-fp32", "onnx-fp32"):
        with VideoClassifier(bundle_path, variant=variant, window=1) as whole:
            expected = [prediction.raw_score for prediction in whole.stream(clip)]
            with pytest.raises(EdgevidError, match="no features of frames to pool; convert it with --features"):
                whole.head(np.zeros(16, np.float32))
        with VideoClassifier(tmp_path / "cut.edgevid", variant=variant, window=1) as cut, open_source(clip) as source:
            assert cut.has_features
            found = []
            pooled = np.zeros(16)
            for frame, row in cut.rows(source):
                pooled += row
                found.append(cut.predict(frame, row).raw_score)
            pooled /= len(found)
            logits = pooled @ weights + bias
            assert np.allclose(cut.head(pooled.astype(np.float32)), np.exp(logits) / np.exp(logits).sum(), atol=1e-5)
        assert np.allclose(found, expected, atol=1e-5)
    assert "features     16 of each frame" in cli("inspect", tmp_path / "cut.edgevid").out

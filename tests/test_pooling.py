"""What makes one of the frames of a clip: each pooling beside plain NumPy, and from Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgevid import BackendError, Bundle, SourceError, UsageError, VideoClassifier, open_source
from edgevid.pooling import POOLINGS
from edgevid.sources import Frame
from edgevid.verdict import ClipTotals
from tests.conftest import LABELS, SIZE, Outcome, picture, read_jsonl, write_clip

Cli = Callable[..., Outcome]
NOTHING = np.zeros((1, 1, 3), np.uint8)


def reference(name: str, rows: npt.NDArray[Any], multi_label: bool) -> npt.NDArray[Any]:
    """Return what a pooling is to make of the probabilities of all frames, (frames, classes)."""
    frames, classes = rows.shape
    least = 0.001 / (2 if multi_label else classes)
    product = np.prod(np.clip(rows, least, 1 - least if multi_label else 1) ** (1 / frames), axis=0)
    absent = np.prod(np.clip(1 - rows, least, 1 - least) ** (1 / frames), axis=0)
    best = rows == rows.max(axis=1, keepdims=True)
    return np.asarray(
        {
            "mean": rows.sum(axis=0) / frames,
            "max": rows.max(axis=0),
            "log-mean": product / (product + absent if multi_label else product.sum()),
            "vote": np.mean(rows >= 0.5 if multi_label else best & (best.cumsum(axis=1) == 1), axis=0),
        }[name]
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_verdict_is_that_of_its_frames(bundle: Bundle, clip: Path, pooling: str) -> None:
    with VideoClassifier(bundle, window=1, top_k=len(LABELS), variant="tflite-fp32", workers=2) as classifier:
        rows = np.array([[dict(p.top)[label] for label in LABELS] for p in classifier.stream(clip)])
        verdict = classifier.classify_clip(clip, pooling=pooling)
    expected = reference(pooling, rows, False)
    np.testing.assert_allclose(verdict.scores[pooling], expected, atol=1e-6)
    assert verdict.label == LABELS[expected.argmax()]
    assert verdict.score == pytest.approx(expected.max(), abs=1e-6)
    assert verdict.share == (rows.argmax(axis=1) == expected.argmax()).mean()
    assert (verdict.frames, verdict.clip, verdict.labels) == (60, str(clip), ((verdict.label, verdict.score),))
    assert verdict.seconds == pytest.approx(60 * 1001 / 30000, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 30), st.booleans(), st.booleans())
def test_poolings_of_random_streams(seed: int, frames: int, classes: int, multi_label: bool, rounded: bool) -> None:
    random = np.random.default_rng(seed)
    rows = random.random((frames, classes)) if multi_label else random.dirichlet(np.full(classes, 0.3), frames)
    rows = (np.round(rows * 256) / 256 if rounded else rows).astype(np.float32)  # with zeros, as int8 models have them
    totals = ClipTotals([str(index) for index in range(classes)], multi_label)
    for index, row in enumerate(rows):
        totals.add(Frame(index, index / 25, NOTHING), row)
    for name in POOLINGS:
        scores = totals.verdict("stream", name, Fraction(25)).scores[name]
        np.testing.assert_allclose(scores, reference(name, rows.astype(np.float64), multi_label), atol=1e-6)


def with_head(bundle: Bundle, folder: Path, operator: str, scale: float) -> Path:
    """Write the ONNX model with its logits scaled, and another operator in place of the softmax at its end."""
    model = onnx.load(bundle.path / bundle.variant("onnx-fp32").file)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale"))
    model.graph.node.remove(softmax)
    model.graph.node.append(helper.make_node("Mul", [softmax.input[0], "scale"], ["scaled"]))
    model.graph.node.append(helper.make_node(operator, ["scaled"], list(softmax.output)))
    path = folder / "head.onnx"
    onnx.save(model, path)
    return path


def test_log_mean_is_the_mean_of_penultimate_features(
    cli: Cli, bundle: Bundle, trained: Any, keras: Any, labels_file: Path, tmp_path: Path
) -> None:
    scale = 0.02  # the model is so sure that most of its probabilities are too small to count
    packed = tmp_path / "head.edgevid"
    file = with_head(bundle, tmp_path, "Softmax", scale)
    assert cli("pack", file, "-o", packed, "--labels", labels_file, "--preprocess", "tf").status == 0
    pixels = np.stack([picture(LABELS[index % 3], SIZE, SIZE, index) for index in range(10)])
    for index, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    cnn = keras.Model(trained.inputs[0], trained.layers[-2].output)
    features = cnn((pixels[..., ::-1] - 127.5) / 127.5).numpy()  # (frames, features)
    weights, bias = trained.layers[-1].get_weights()
    logits = scale * (features.mean(axis=0) @ weights + bias)
    expected = np.exp(logits) / np.exp(logits).sum()
    with VideoClassifier(packed) as classifier:
        verdict = classifier.classify_clip(tmp_path, pooling="log-mean")
    np.testing.assert_allclose(verdict.scores["log-mean"], expected, atol=1e-5)
    assert np.abs(verdict.scores["mean"] - expected).max() > 1e-3  # which is something else


def test_a_model_with_sigmoids_is_pooled_class_by_class(
    cli: Cli, bundle: Bundle, labels_file: Path, tmp_path: Path
) -> None:
    clips = [
        write_clip(tmp_path / "red.mp4", ["red"] * 9 + ["blue"] * 3),
        write_clip(tmp_path / "blue.mp4", ["blue"] * 8 + ["grey"] * 2),
    ]
    packed = tmp_path / "head.edgevid"
    file = with_head(bundle, tmp_path, "Sigmoid", 1.0)
    options = ("--labels", labels_file, "--preprocess", "tf", "--activation", "sigmoid")
    assert cli("pack", file, "-o", packed, *options).status == 0
    outcome = cli("classify", *clips, packed, "--output", "-", "--pool", "max")
    red, blue = read_jsonl(outcome.out)
    with VideoClassifier(packed, window=1, top_k=len(LABELS)) as classifier:
        for record, clip in zip((red, blue), clips, strict=True):
            rows = np.array([[dict(p.top)[label] for label in LABELS] for p in classifier.stream(clip)])
            scores = classifier.classify_clip(clip).scores
            for name in POOLINGS:
                np.testing.assert_allclose(scores[name], reference(name, rows, True), atol=1e-6)
            highest = rows.max(axis=0)
            assert {label for label, _ in record["labels"]} == {LABELS[i] for i in np.flatnonzero(highest >= 0.5)}
            assert record["label"] == LABELS[highest.argmax()]
            assert record["share"] == pytest.approx((rows[:, highest.argmax()] >= 0.5).mean(), abs=1e-4)
    assert len(red["labels"]) > 1  # it has blue frames as well


def test_what_cannot_be_pooled_is_an_error(bundle: Bundle, clip: Path) -> None:
    totals = ClipTotals(LABELS, False)
    with pytest.raises(SourceError, match="none of the frames that are wanted can be decoded"):
        totals.verdict("clip", "mean", Fraction(25))
    with pytest.raises(BackendError, match=r"frame 3: the model answered nan, .*--variant"):
        totals.add(Frame(3, 0.12, NOTHING), np.array([0.1, np.nan, 0.2, 0.3], np.float32))
    with VideoClassifier(bundle) as classifier:
        with pytest.raises(UsageError, match="pooling 'median': expected one of mean, max, log-mean, vote"):
            classifier.classify_clip(clip, pooling="median")
        before = next(iter(classifier.stream(clip)))
        classifier.classify_clip(clip)
        assert classifier.classify(picture("red"), time=1.0).label == before.label == "red"  # the window is left alone


def test_a_clip_that_is_stopped_has_a_verdict_of_what_came(bundle: Bundle, clip: Path) -> None:
    stop, done = threading.Event(), []

    def on_frame(count: int, expected: int | None) -> None:
        done.append((count, expected))
        if count == 10:
            stop.set()

    with VideoClassifier(bundle) as classifier:
        verdict = classifier.classify_clip(clip, stop=stop, on_frame=on_frame)
    assert done[:10] == [(count, 60) for count in range(1, 11)]
    assert 10 <= verdict.frames == len(done) < 60
    assert verdict.label == "red"


def test_features_are_pooled_before_the_last_layer(
    cli: Cli, bundle: Bundle, trained: Any, model_file: Path, labels_file: Path, clip: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.edgevid"
    options = ("--labels", labels_file, "--mean", 127.5, "--std", 127.5, "--formats", "tflite", "--precision", "fp32")
    assert cli("convert", model_file, "-o", cut, *options, "--features").status == 0
    weights, bias = trained.layers[-1].get_weights()
    with VideoClassifier(cut, workers=2) as classifier, open_source(clip) as source:
        features = np.array([row.copy() for _, row in classifier.rows(source)])
        verdict = classifier.classify_clip(clip, pooling="feature-max")
    assert features.shape == (60, len(weights))
    for name, pooled in (("feature-mean", features.mean(axis=0)), ("feature-max", features.max(axis=0))):
        scores = np.exp(pooled @ weights + bias)
        np.testing.assert_allclose(verdict.scores[name], scores / scores.sum(), atol=1e-5)
    line = read_jsonl(cli("classify", clip, "--bundle", cut, "--pool", "feature-max", "--output", "-").out)[0]
    assert (line["label"], line["pooling"]) == (verdict.label, "feature-max")
    whole = cli("classify", clip, "--bundle", bundle.path, "--pool", "feature-max", "--output", "-")
    assert "the bundle has no features of frames; convert the model with --features" in whole.error

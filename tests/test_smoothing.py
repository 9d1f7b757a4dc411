"""The smoothed label, and what a run amounts to."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from edgevid import BackendError, Smoother, Smoothing, UsageError
from edgevid.manifest import OutputSpec, Tensor
from edgevid.postprocess import Postprocessor
from edgevid.summary import Tally

LABELS = ("cat", "dog", "owl")


def one(index: int, certainty: float = 0.8) -> np.typing.NDArray[np.float32]:
    rest = (1 - certainty) / 2
    return np.array([certainty if i == index else rest for i in range(3)], np.float32)


def test_a_flicker_is_smoothed_away() -> None:
    smoother = Smoother(LABELS, Smoothing(window=5))
    predictions = [smoother.update(one(index), i, i / 25) for i, index in enumerate([0, 0, 0, 1, 0, 0])]
    assert [prediction.raw_label for prediction in predictions] == ["cat", "cat", "cat", "dog", "cat", "cat"]
    assert {prediction.label for prediction in predictions} == {"cat"}
    assert predictions[3].score == pytest.approx((3 * 0.8 + 0.1) / 4)


def test_window_1_is_per_frame_classification() -> None:
    smoother = Smoother(LABELS, Smoothing(window=1))
    for i, index in enumerate([0, 2, 1, 0]):
        prediction = smoother.update(one(index), i, 0.0)
        assert (prediction.label, prediction.score) == (prediction.raw_label, prediction.raw_score)


def test_where_time_goes_back_another_stream_begins() -> None:
    smoother = Smoother(LABELS, Smoothing(window=5), gap="decay")
    for i in range(5):
        smoother.update(one(0), i, i / 25)
    assert smoother.update(one(1), 5, 0.0).score == pytest.approx(0.8)


def test_top_k_is_best_first() -> None:
    prediction = Smoother(LABELS, Smoothing(window=4), top_k=2).update(np.array([0.2, 0.5, 0.3], np.float32), 7, 0.28)
    assert [label for label, _ in prediction.top] == ["dog", "owl"]
    assert prediction.to_dict() == {
        "frame": 7,
        "time": 0.28,
        "label": "dog",
        "score": 0.5,
        "raw_label": "dog",
        "raw_score": 0.5,
        "top": [["dog", 0.5], ["owl", 0.3]],
    }


@pytest.mark.parametrize("top_k", [-1, 4])
def test_top_k_out_of_range(top_k: int) -> None:
    with pytest.raises(UsageError, match="expected 0 to 3"):
        Smoother(LABELS, Smoothing(window=4), top_k=top_k)


def test_a_model_that_answers_nan_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"frame 3.*not a probability"):
        Smoother(LABELS, Smoothing(window=4)).update(np.array([0.1, np.nan, 0.2], np.float32), 3, 0.0)


def test_summary_counts_flips_and_time_per_label() -> None:
    smoother, tally = Smoother(LABELS, Smoothing(window=1)), Tally()
    for i, index in enumerate([0, 0, 1, 1, 1, 0]):
        tally.add(smoother.update(one(index), i, i * 0.5))
    summary = tally.summary(broken=1, dropped=0)
    assert (summary.frames, summary.broken, summary.raw_flips, summary.smoothed_flips) == (6, 1, 2, 2)
    assert summary.fps == pytest.approx(6 / summary.elapsed_s)
    assert [(span.label, span.start, span.end) for span in summary.timeline] == [
        ("cat", 0.0, 1.0),
        ("dog", 1.0, 2.5),
        ("cat", 2.5, 3.0),
    ]
    assert summary.seconds_by_label == {"cat": 1.5, "dog": 1.5}


def test_what_is_missing_is_no_time_of_a_label() -> None:
    smoother, tally = Smoother(LABELS, Smoothing(window=1)), Tally()
    for i, (index, time, gap_s) in enumerate([(0, 0.0, 0.0), (0, 0.5, 0.0), (0, 60.0, 59.5), (1, 60.5, 0.0)]):
        tally.add(smoother.update(one(index), i, time), gap_s=gap_s)
    summary = tally.summary(broken=0, dropped=0)
    assert [(span.label, span.start, span.end) for span in summary.timeline] == [
        ("cat", 0.0, 1.0),
        ("cat", 60.0, 60.5),
        ("dog", 60.5, 61.0),
    ]
    assert summary.seconds_by_label == {"cat": 1.5, "dog": 0.5}
    assert (summary.gaps, summary.away_s, summary.video_s, summary.smoothed_flips) == (1, 59.5, 2.0, 1)


def test_logits_get_a_softmax_and_a_softmax_does_not() -> None:
    raw = np.array([[1.0, 3.0, 2.0]], np.float32)
    float_tensor = Tensor(shape=(1, 3), dtype="float32")
    as_logits = Postprocessor(OutputSpec(classes=3, activation="logits"), float_tensor)(raw)
    np.testing.assert_allclose(as_logits, np.exp(raw[0]) / np.exp(raw[0]).sum(), rtol=1e-6)
    for activation in ("softmax", "sigmoid"):
        kept = Postprocessor(OutputSpec(classes=3, activation=activation), float_tensor)(raw)
        np.testing.assert_array_equal(kept, raw[0])


def test_integer_outputs_are_dequantized_without_overflow() -> None:
    tensor = Tensor(shape=(1, 3), dtype="int8", scale=1 / 256, zero_point=-128)
    raw = np.array([[-128, 0, 127]], np.int8)
    probabilities = Postprocessor(OutputSpec(classes=3, activation="softmax"), tensor)(raw)
    np.testing.assert_allclose(probabilities, [0, 0.5, 255 / 256])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_nothing_is_allocated_for_the_label_of_a_frame(dtype: Any) -> None:
    classes = 1000
    quantization: dict[str, Any] = {"scale": 0.004, "zero_point": -128} if dtype == "int8" else {}
    postprocess = Postprocessor(
        OutputSpec(classes=classes, activation="logits"), Tensor(shape=(1, classes), dtype=dtype, **quantization)
    )
    smoother = Smoother([str(number) for number in range(classes)], Smoothing(window=8))
    raw, row = np.arange(classes).astype(dtype).reshape(1, classes), np.empty(classes, np.float32)
    tracemalloc.start()
    for index in range(20):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        smoother.update(postprocess(raw, row), index, index / 25)
        peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 2000, "half of what a row of probabilities takes"

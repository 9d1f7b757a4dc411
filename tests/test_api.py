"""The Python API, as the README and the design show it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import edgevid
from edgevid import Bundle, BundleError, SourceError, UsageError, VideoClassifier, open_source
from tests.conftest import picture


def test_everything_public_can_be_imported() -> None:
    for name in edgevid.__all__:
        assert getattr(edgevid, name) is not None
    assert set(edgevid.__all__) <= set(dir(edgevid))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgevid.nothing  # noqa: B018


def test_stream(bundle_path: Path, clip: Path) -> None:
    with VideoClassifier(bundle_path, window=5) as classifier:
        predictions = list(classifier.stream(clip))
        again = list(classifier.stream(str(clip)))
    assert [prediction.frame for prediction in predictions] == list(range(60))
    assert predictions == again  # a new stream starts with an empty window
    assert [label for label, _ in itertools.groupby(p.label for p in predictions)] == ["red", "green", "blue"]


def test_stream_takes_an_open_source_and_can_be_left(bundle: Bundle, images: Path) -> None:
    with VideoClassifier(bundle, top_k=2) as classifier:
        source = open_source(images)
        for prediction in classifier.stream(source, stride=2):
            if prediction.frame == 4:
                break
        assert len(prediction.top) == 2


def test_ones_own_loop(bundle_path: Path) -> None:
    with VideoClassifier(bundle_path, window=3) as classifier:
        labels = [classifier.classify(picture(c, seed=i), time=i / 10) for i, c in enumerate(["red", "red", "blue"])]
        assert [(p.frame, p.time, p.label, p.raw_label) for p in labels] == [
            (0, 0.0, "red", "red"),
            (1, 0.1, "red", "red"),
            (2, 0.2, "red", "blue"),
        ]
        classifier.reset()
        timed = [classifier.classify(picture("green")) for _ in range(2)]
        assert timed[0].time == 0
        assert timed[1].time > 0
        with pytest.raises(UsageError, match="frame: NoneType; expected BGR uint8"):
            classifier.classify(None)  # type: ignore[arg-type]  # what OpenCV gives at the end of a video
        with pytest.raises(UsageError, match="expected BGR uint8"):
            classifier.classify(np.zeros((4, 4, 3), np.float32))


def test_the_variant_and_the_backend_can_be_chosen(bundle_path: Path) -> None:
    with VideoClassifier(bundle_path, variant="onnx-fp32", threads=1) as classifier:
        assert (classifier.variant.id, classifier.backend.name, classifier.backend.threads) == (
            "onnx-fp32",
            "onnxruntime",
            1,
        )


def test_errors_are_edgevids_own(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        VideoClassifier(tmp_path / "absent.edgevid")
    with pytest.raises(UsageError, match="window 0"):
        VideoClassifier(bundle_path, window=0)
    with VideoClassifier(bundle_path) as classifier, pytest.raises(SourceError, match="no such file"):
        next(classifier.stream("absent.mp4"))
    assert issubclass(SourceError, edgevid.EdgevidError)

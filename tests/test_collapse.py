"""The trainer of a model that plain int8 breaks: a short run, and what the mistake it is built on does to integers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
def test_a_short_training_leaves_a_model_and_its_labels(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from edgevid_convert.loading.model import load_model

    command = [
        sys.executable,
        "-m",
        "edgevid_bench.studies.collapse",
        "--output",
        str(tmp_path / "out"),
        "--epochs",
        "1",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    labels = (tmp_path / "out" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert f"{len(labels)} classes" in finished.stdout
    assert "held-out frames right" in finished.stdout
    assert len(set(labels)) == len(labels)
    model = load_model(tmp_path / "out" / "model.keras")
    assert (model.height, model.width, model.classes) == (64, 64, len(labels))
    # Keras' own scaling is in the model, so that the division by 255 is one too many.
    answers = model(np.full((1, 64, 64, 3), 0.5, np.float32))
    assert answers.sum() == pytest.approx(1, abs=1e-4)
    assert model.activation == "softmax"


def test_a_frame_trains_or_judges_and_edges_of_moments_do_neither() -> None:
    from edgevid_bench.studies.collapse import EDGE_FRAMES, SHOTS, load_moments

    moments = load_moments()
    every_frame = sum(cuts[-1] - cuts[0] for cuts in SHOTS.values())
    assert len(moments.images) == every_frame - 2 * EDGE_FRAMES * len(moments.labels)
    assert 0 <= moments.images.min() < moments.images.max() <= 1
    for label in range(len(moments.labels)):
        mine = moments.classes == label
        assert moments.held_out[mine].any()
        assert (~moments.held_out[mine]).sum() > moments.held_out[mine].sum()

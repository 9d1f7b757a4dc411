"""Compares ``edgevid run`` with the loop of the literature on Keras video classification, side by side.

The loop reads a frame with OpenCV, resizes and normalizes it, calls Keras' ``predict`` on that one frame, keeps the
last K answers in a deque, and shows the label with the highest mean. Run it, with the sample of ``edgevid demo``
in the cache, while nothing else runs:

    python -m edgevid_bench.literature [--rounds 5] [--window 64]

Rounds of the two alternate. Loading is in neither figure; decoding and smoothing are in both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from edgevid.bundle import Bundle
from edgevid.sample import sample_bundle_path, sample_clip

CLIP = "bikes"
VARIANT = "tflite-int8"
FPS = re.compile(r"([\d.]+) frames per second")


def keras_loop(model: Any, bundle: Bundle, clip: Path, window: int) -> tuple[float, list[str]]:
    """Return frames per second and the smoothed label of every frame, as the literature's loop finds them."""
    manifest = bundle.manifest
    size = (manifest.input.width, manifest.input.height)
    mean, std = (np.array(values, np.float32) for values in (manifest.preprocessing.mean, manifest.preprocessing.std))
    last_answers: deque[Any] = deque(maxlen=window)
    labels = []
    start = time.perf_counter()
    capture = cv2.VideoCapture(str(clip))
    while True:
        delivered, frame = capture.read()
        if not delivered:
            break
        image = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size).astype(np.float32)
        answer = model.predict(((image - mean) / std)[None], verbose=0)[0]
        last_answers.append(answer)
        labels.append(bundle.labels[int(np.array(last_answers).mean(axis=0).argmax())])
    return len(labels) / (time.perf_counter() - start), labels


def edgevid_run(bundle: Bundle, window: int, folder: Path) -> tuple[float, list[str]]:
    """Return frames per second and the smoothed label of every frame, as ``edgevid run`` reports them."""
    predictions = folder / "predictions.jsonl"
    command = [sys.executable, "-m", "edgevid", "run", str(bundle.path), "--source", f"sample:{CLIP}"]
    command += ["--variant", VARIANT, "--window", str(window), "--predictions", str(predictions), "--force"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
    found = FPS.search(output)
    assert found, output
    labels = [json.loads(line)["label"] for line in predictions.read_text(encoding="utf-8").splitlines()]
    return float(found[1]), labels


def spread(values: Sequence[float]) -> str:
    """Return a median and the range around it."""
    return f"{median(values):.1f} (from {min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=int, default=64)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # seconds: TensorFlow comes with it

    bundle = Bundle(sample_bundle_path())
    model = keras.saving.load_model(bundle.path.with_suffix(".keras"), compile=False)
    theirs, ours = [], []
    with TemporaryDirectory() as folder:
        keras_loop(model, bundle, sample_clip(CLIP), arguments.window)  # warm-up of both
        edgevid_run(bundle, arguments.window, Path(folder))
        for _ in range(arguments.rounds):
            their_fps, their_labels = keras_loop(model, bundle, sample_clip(CLIP), arguments.window)
            our_fps, our_labels = edgevid_run(bundle, arguments.window, Path(folder))
            theirs.append(their_fps)
            ours.append(our_fps)
    ratios = [our_fps / their_fps for our_fps, their_fps in zip(ours, theirs, strict=True)]
    same = sum(a == b for a, b in zip(our_labels, their_labels, strict=True)) / len(our_labels)
    sys.stdout.write(
        f"{CLIP}, window {arguments.window}, {arguments.rounds} rounds, alternating; medians and ranges\n"
        f"Keras predict loop           {spread(theirs)} frames per second\n"
        f"edgevid run, {VARIANT}     {spread(ours)} frames per second\n"
        f"ratio, round by round        {spread(ratios)}\n"
        f"same smoothed label          {same:.1%} of {len(our_labels)} frames\n"
    )


if __name__ == "__main__":
    main()

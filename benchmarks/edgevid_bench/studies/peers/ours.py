"""edgevid's side of the comparison, in processes like the peers'.

python -m edgevid_bench.studies.peers.ours NAME '{"clip": ..., ...}'    answers on the last line of stdout
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np

from edgevid.backends import BackendOptions, available_cores
from edgevid.bundle import Bundle
from edgevid.classifier import VideoClassifier
from edgevid.engine import Engine, share_cores
from edgevid.pipeline import run_pipeline
from edgevid.sources import open_source
from edgevid.sources.feed import Feed

WARM_UP = 20
BARE_FRAMES = 32
Answer = dict[str, Any]


def edgevid_run(request: Answer) -> Answer:
    """What ``edgevid run`` does with a file, events only."""
    with _classifier(request, *share_cores(live=False)) as classifier:
        run_pipeline(Feed(open_source(request["clip"])), classifier, max_frames=WARM_UP)
        labels: list[str] = []
        summary = run_pipeline(
            Feed(open_source(request["clip"])),
            classifier,
            on_prediction=lambda prediction: labels.append(prediction.label),
        )
    return {"fps": summary.fps, "labels": labels}


def edgevid_frame_by_frame(request: Answer) -> Answer:
    """The same variant, one frame after the other and on no other thread."""
    started = time.perf_counter()
    with _classifier(request, available_cores(), 1) as classifier, open_source(request["clip"]) as source:
        labels = [prediction.label for _, prediction in classifier.classify_frames(source)]
    return {"fps": len(labels) / (time.perf_counter() - started), "labels": labels}


def edgevid_opencv(request: Answer) -> Answer:
    """The same variant in one's own loop over the frames that OpenCV reads: their colours are converted otherwise."""
    labels: list[str] = []
    with _classifier(request, available_cores(), 1) as classifier:
        capture = cv2.VideoCapture(request["clip"])
        started = time.perf_counter()
        while True:
            delivered, frame = capture.read()
            if not delivered:
                break
            labels.append(classifier.classify(frame.astype(np.uint8, copy=False), len(labels) / 25).label)
    return {"fps": len(labels) / (time.perf_counter() - started), "labels": labels}


def bare_engine(request: Answer) -> Answer:
    """Only the engine, on frames of the clip that are there already: one inference on all cores, or one on each."""
    bundle, cores = Bundle(request["bundle"]), available_cores()
    count = cores if request["side_by_side"] else 1
    options = BackendOptions(threads=cores // count)
    engines = [Engine(bundle, bundle.variant(request["variant"]), request["backend"], options) for _ in range(count)]
    with open_source(request["clip"]) as source:
        for engine, frame in zip(engines * BARE_FRAMES, islice(source, BARE_FRAMES), strict=False):
            engine.prepare(frame.picture)
            engine.backend.infer()
    done = _side_by_side(engines, request["seconds"])
    return {"fps": done / request["seconds"], "labels": []}


def _side_by_side(engines: Sequence[Engine], seconds: float) -> int:
    counts = [0] * len(engines)
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            engines[index].backend.infer()
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _classifier(request: Answer, threads: int, workers: int) -> VideoClassifier:
    return VideoClassifier(
        request["bundle"],
        window=request["window"],
        backend=request["backend"],
        variant=request["variant"],
        threads=threads,
        workers=workers,
    )


OURS = {loop.__name__: loop for loop in (edgevid_run, edgevid_frame_by_frame, edgevid_opencv, bare_engine)}

if __name__ == "__main__":
    answer = OURS[sys.argv[1]](json.loads(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")

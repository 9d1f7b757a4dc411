"""Runs one backend in a process of its own, and says what it did; needs neither pytest nor TensorFlow.

A process has room for one OpenVINO, tflite-runtime wants an environment of its own, and threads can be counted.
Reads a request as JSON on stdin: bundle, backend, options, variants, pictures (an .npy file, uint8 (n, h, w, 3), BGR).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevid.backends import BackendOptions, backend_entry
from edgevid.bundle import Bundle
from edgevid.engine import Engine
from edgevid.errors import EdgevidError

INFERENCES = 40
BUSY_SHARE = 0.05  # of the time of all threads: who worked as much took part


def cpu_ns() -> dict[str, int]:
    """Return how long each thread of this process has run."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[task.name] = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it has ended
            continue
    return found


def answered(request: dict[str, Any], variant: str, pictures: Any) -> dict[str, Any]:
    bundle, options = Bundle(request["bundle"]), BackendOptions(**request["options"])
    engine = Engine(bundle, bundle.variant(variant), request["backend"], options)
    first = [engine(picture).copy() for picture in pictures]
    again = [engine(picture).copy() for picture in pictures]
    other = Engine(bundle, bundle.variant(variant), request["backend"], options)
    elsewhere = [other(picture).copy() for picture in pictures]
    other.backend.close()
    other.backend.close()
    together = None
    if (batch := request.get("batch", 0)) > 1:
        engine_of_many = Engine(bundle, bundle.variant(variant), request["backend"], replace(options, batch=batch))
        together = engine_of_many.rows(len(pictures))
        engine_of_many.classify(pictures, together)
        engine_of_many.backend.close()
    before = cpu_ns()
    for _ in range(request.get("inferences", 0)):
        engine.backend.infer()
    worked = {task: time - before.get(task, 0) for task, time in cpu_ns().items()}
    backend = engine.backend
    backend.close()
    return {
        "probabilities": np.stack(first).tolist(),
        "together": None if together is None else together.tolist(),
        "dtype": str(first[0].dtype),
        "repeatable": bool(np.array_equal(first, again) and np.array_equal(first, elsewhere)),
        "proof": {**asdict(backend.proof), "share": backend.proof.share},
        "name": backend.name,
        "device": backend.device,
        "threads": backend.threads,
        "busy": sum(time > BUSY_SHARE * sum(worked.values()) for time in worked.values()),
    }


def main() -> None:
    request = json.load(sys.stdin)
    pictures = np.load(request["pictures"])
    backend_entry(request["backend"])
    results = {}
    for variant in request["variants"]:
        try:
            results[variant] = answered(request, variant, pictures)
        except EdgevidError as error:
            results[variant] = {"error": str(error)}
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

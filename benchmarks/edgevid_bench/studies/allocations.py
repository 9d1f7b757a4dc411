"""Measures what is allocated for a frame between the decoder and its label, once everything is warm.

    python -m edgevid_bench.studies.allocations model.edgevid [--source sample:bikes] [--frames 100]

Python's and NumPy's memory, by tracemalloc: the highest peak over the start of a frame. What FFmpeg, OpenCV and the
engines allocate inside is theirs, and is not seen.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from itertools import islice
from pathlib import Path

from edgevid.backends import BACKENDS, BackendOptions
from edgevid.bundle import Bundle
from edgevid.engine import Engine
from edgevid.errors import EdgevidError
from edgevid.smoothing import Smoother
from edgevid.sources import Frame, open_source

WARM_UP = 5


def peaks(engine: Engine, smoother: Smoother, frames: list[Frame]) -> list[int]:
    """Return the bytes that each frame needed at its highest, after the first few."""
    found = []
    tracemalloc.start()
    try:
        for frame in frames:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            smoother.update(engine(frame.picture), frame.index, frame.time)
            found.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return found[WARM_UP:]


def main() -> None:
    """Measure each backend with each variant it reads; print."""
    parser = argparse.ArgumentParser(
        prog="edgevid_bench.studies.allocations", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", default="sample:bikes", help="a clip")
    parser.add_argument("--frames", type=int, default=100)
    arguments = parser.parse_args()
    try:
        bundle = Bundle(arguments.bundle)
        with open_source(arguments.source) as source:
            frames = list(islice(source, WARM_UP + arguments.frames))
        for name, entry in BACKENDS.items():
            for variant in bundle.manifest.variants:
                if not entry.installed or variant.format not in entry.formats:
                    continue
                try:
                    engine = Engine(bundle, variant, name, BackendOptions(threads=1))
                except EdgevidError as error:
                    sys.stdout.write(f"{name:<12} {variant.id:<20} {error}\n")
                    continue
                smoother = Smoother(bundle.labels, bundle.manifest.smoothing)
                found = peaks(engine, smoother, frames)
                engine.backend.close()
                sys.stdout.write(f"{name:<12} {variant.id:<20} {max(found)} bytes at most, in {len(found)} frames\n")
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")


if __name__ == "__main__":
    main()

"""Times variants of two bundles of one model beside each other: what a search costs or saves, as a ratio.

    edgevid convert model.keras --calib clips/ --no-search -o plain.edgevid
    edgevid convert model.keras --calib clips/ -o searched.edgevid
    python -m edgevid_bench.studies.beside searched.edgevid plain.edgevid [--variants LIST] [--rounds 15]

Bare inference on one thread, on the frames of a clip, the two turn by turn: a drift of the machine's speed meets both.
The ratio is that of the medians of a round. Nothing else should run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

from edgevid.backends import Backend, BackendOptions
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.cli.terminal import listed
from edgevid.engine import Engine
from edgevid.errors import EdgevidError
from edgevid.manifest import VARIANT_IDS
from edgevid.picture import Picture
from edgevid.sources import open_source

INT8 = ("tflite-int8", "onnx-int8")


def compare(engines: tuple[Engine, Engine], pictures: Sequence[Picture], rounds: int) -> list[tuple[float, float]]:
    """Return the median latency of both, in ms, of each round over the pictures; one more round warms up."""
    results = []
    for _ in range(rounds + 1):
        times: tuple[list[float], list[float]] = ([], [])
        for picture in pictures:
            for engine, taken in zip(engines, times, strict=True):
                engine.prepare(picture)
                taken.append(_inference_ms(engine.backend))
        results.append((median(times[0]), median(times[1])))
    return results[1:]


def _engine(bundle: Bundle, variant_id: str) -> Engine:
    backend, variant = choose_backend(bundle, variant_id=variant_id)
    return Engine(bundle, variant, backend, BackendOptions(threads=1))


def _inference_ms(backend: Backend) -> float:
    started = time.perf_counter()
    backend.infer()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Load, time, print."""
    parser = argparse.ArgumentParser(prog="edgevid_bench.studies.beside", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--variants", default=",".join(INT8), metavar="LIST", help=", ".join(VARIANT_IDS))
    parser.add_argument("--source", default="sample:bikes", help="a clip")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=30, help="of each, in a round")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.turns < 1:
        parser.error("--rounds and --turns: expected 1 or more")
    try:
        bundles = [Bundle(path) for path in (arguments.bundle, arguments.other)]
        with open_source(arguments.source) as source:
            pictures = [frame.picture for frame in islice(source, arguments.turns)]
        for variant_id in listed(arguments.variants):
            one, other = (_engine(bundle, variant_id) for bundle in bundles)
            with closing(one.backend), closing(other.backend):
                rounds = compare((one, other), pictures, arguments.rounds)
            ratios = [mine / theirs for mine, theirs in rounds]
            mine, theirs = (median(times) for times in zip(*rounds, strict=True))
            sys.stdout.write(
                f"{variant_id:<20} {mine:.2f} ms, {theirs:.2f} ms; ratio {median(ratios):.3f} "
                f"(from {min(ratios):.3f} to {max(ratios):.3f}, {len(rounds)} rounds of {len(pictures)} turns)\n"
            )
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")


if __name__ == "__main__":
    main()

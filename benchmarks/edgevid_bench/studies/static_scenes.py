"""What skipping static frames saves and costs on a clip, threshold by threshold: the table behind its default.

    python -m edgevid_bench.studies.static_scenes model.edgevid --source CLIP [--crop X,Y,WIDTH,HEIGHT]

Every frame is classified once, and each threshold goes by what it would have skipped. *raw* and *smoothed* are the
share of all frames with the same label as without skipping, *confident* that of smoothed labels where the two best
classes of the window differ by more than 0.1 (in brackets: of how many frames), all as if skipping were never turned
off. *as run* is what `edgevid run --skip-static` does, with its audit. --crop makes another fixed camera of a part.

Real footage of fixed cameras, in the source distribution of opencv-python-headless (Apache-2.0): vtest.avi, people who
cross a campus, in opencv/samples/data, and cup.mp4 and box.mp4, things turned in a hand, in its tutorials.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgevid.arrays import Probabilities
from edgevid.backends import BackendOptions
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.engine import EnginePool, share_cores
from edgevid.errors import EdgevidError
from edgevid.methods import Smoothing
from edgevid.smoothing import Prediction, Smoother
from edgevid.sources import Frame, open_source
from edgevid.sources.base import Mark
from edgevid.static import Skipping

MARGIN = 0.1
HEAD = (
    "| grey levels | static | raw | smoothed | confident | skipped as run | audit | turned off | smoothed as run |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass
class Trial:
    """One threshold on its way through a clip."""

    threshold: float
    labels: tuple[str, ...]
    smoothing: Smoothing
    static: int = 0
    raw: int = 0
    held: int = 0
    confident: int = 0
    as_run: int = 0
    _last: list[Probabilities] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._smoother, self._never_off = (Smoother(self.labels, self.smoothing) for _ in range(2))
        self.skipping = Skipping(self.threshold, self._smoother, lambda event: None)

    def take(self, frame: Frame, probabilities: Probabilities, expected: Prediction) -> None:
        """Decide about the next frame, of which all is known, and compare with what it gets without skipping."""
        frame = self.skipping.marked(frame)
        static = frame.mark in (Mark.STATIC, Mark.SPARE)
        own = None if frame.mark is Mark.STATIC else probabilities
        settled = self.skipping.settled(frame, own, lambda picture: probabilities)
        prediction = self._smoother.update(settled, frame.index, frame.time, frame.gap_s)
        self.skipping.check(frame, settled, prediction)
        if not static:
            self._last = [probabilities.copy()]
        held = self._never_off.update(self._last[0], frame.index, frame.time, frame.gap_s)
        self.static += static
        self.raw += held.raw_label == expected.raw_label
        self.held += held.label == expected.label
        self.confident += is_confident(expected) and held.label == expected.label
        self.as_run += prediction.label == expected.label

    def row(self, frames: int, confident: int) -> str:
        """Return its line of the table."""
        counts = self.skipping.counts
        shares = [self.static, self.raw, self.held, counts.frames, self.as_run]
        static, raw, held, skipped, as_run = (f"{share / frames:.1%}" for share in shares)
        confident_share = f"{self.confident / max(confident, 1):.1%} ({confident})"
        audit = f"{counts.agreed} of {counts.audited}"
        cells = [f"{self.threshold:g}", static, raw, held, confident_share, skipped, audit, counts.turned_off, as_run]
        return f"| {' | '.join(map(str, cells))} |"


def table(bundle: Bundle, pool: EnginePool, frames: Iterator[Frame], thresholds: list[float]) -> list[str]:
    """Return the lines of the table of one clip."""
    smoothing, frames_seen, confident = bundle.manifest.smoothing, 0, 0
    truth = Smoother(bundle.labels, smoothing, top_k=2)
    trials = [Trial(threshold, tuple(bundle.labels), smoothing) for threshold in thresholds]
    for frame, probabilities in pool.map(frames, read_ahead=True):
        expected = truth.update(probabilities, frame.index, frame.time, frame.gap_s)
        for trial in trials:
            trial.take(frame, probabilities, expected)
        frames_seen += 1
        confident += is_confident(expected)
    return [HEAD, *(trial.row(frames_seen, confident) for trial in trials)]


def is_confident(prediction: Prediction) -> bool:
    """Return whether the two best classes of the window differ by more than 0.1."""
    (_, best), (_, second) = prediction.top
    return best - second > MARGIN


def _cropped(frames: Iterator[Frame], crop: str | None) -> Iterator[Frame]:
    if crop is None:
        yield from frames
        return
    x, y, width, height = map(int, crop.split(","))
    for frame in frames:
        yield replace(frame, picture=frame.image[y : y + height, x : x + width].copy())


def main() -> None:
    """Classify, decide, print."""
    parser = argparse.ArgumentParser(
        prog="edgevid_bench.studies.static_scenes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", action="append", required=True, help="a clip; may be repeated")
    parser.add_argument("--crop", metavar="X,Y,WIDTH,HEIGHT", help="look at this part of each clip only, in pixels")
    parser.add_argument("--variant", help="of the bundle")
    parser.add_argument("--thresholds", default="1,2,3,4,6,8,12,16", help="grey levels")
    arguments = parser.parse_args()
    thresholds = [float(text) for text in arguments.thresholds.split(",")]
    try:
        bundle = Bundle(arguments.bundle)
        backend, variant = choose_backend(bundle, variant_id=arguments.variant)
        threads, workers = share_cores(live=False)
        with EnginePool(bundle, variant, backend, BackendOptions(threads=threads), workers) as pool:
            for name in arguments.source:
                with open_source(name) as source:
                    lines = table(bundle, pool, _cropped(iter(source), arguments.crop), thresholds)
                sys.stdout.write("\n".join([f"{Path(name).name}, {variant.id}", "", *lines, "", ""]))
                sys.stdout.flush()
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")


if __name__ == "__main__":
    main()

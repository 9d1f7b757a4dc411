"""Checks what smoothing promises, on real clips: fewer flips, a delay as theory says, and no dependence on the rate.

    python -m edgevid_bench.studies.steadiness BUNDLE [--clips sample:bikes sample:bigbuckbunny] [--window 64]

It prints three tables. The flips of each clip, raw and smoothed. The delay at a hard cut: each two clips are joined
into one file, which is decoded and classified like any other; theory is the first frame at which the rolling average of
two scenes, each as its mean over a window, would prefer the new label. And the labels at half the frame rate, and with
30 % of the frames dropped at random: the share of frames with the same label, of a window in seconds and of one in
frames, and how far changes to labels that hold for a second move.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from edgevid.classifier import VideoClassifier
from edgevid.engine import share_cores
from edgevid.methods import Smoothing
from edgevid.sources import open_source
from edgevid.window import parse_window
from edgevid_bench.tuning.streams import Stream, read_stream
from edgevid_bench.tuning.tradeoff import labels

HEIGHT, WIDTH = 360, 640
RATE = 25
DROPPED = 0.3
SEEDS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clips", nargs="+", default=["sample:bikes", "sample:bigbuckbunny"])
    parser.add_argument("--window", type=int, default=64, help="of the rolling average, in frames")
    parser.add_argument("--seconds", default="2s", help="of the window in seconds")
    given = parser.parse_args(arguments)
    threads, workers = share_cores(live=False)
    with VideoClassifier(given.bundle, threads=threads, workers=workers) as classifier:
        streams = [read_stream(classifier, clip, None) for clip in given.clips]
        print_flips(streams, given.window)
        names = classifier.bundle.labels
        with tempfile.TemporaryDirectory() as folder:
            say("\ncut                                       raw label s  smoothed s  delay, frames  theory, frames")
            for before, after in itertools.permutations(given.clips, 2):
                joined = Path(folder) / "joined.mp4"
                cut = join(before, after, joined)
                print_delay(read_stream(classifier, str(joined), None), cut, given.window, names)
    print_rates(streams, given.seconds)
    return 0


def say(line: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(f"{line}\n")


def print_flips(streams: Sequence[Stream], window: int) -> None:
    """Print how often labels change, without and with smoothing."""
    say(f"clip                  frames  raw flips  with window {window}  fewer")
    for stream in streams:
        raw, smoothed = (flips(labels(Smoothing(window=size), stream.rows, stream.times)) for size in (1, window))
        say(f"{stream.name:20}  {len(stream.times):6}  {raw:9}  {smoothed:14}  {1 - smoothed / max(raw, 1):5.0%}")


def flips(shown: npt.NDArray[np.intp]) -> int:
    """Return how often a label changes from one frame to the next."""
    return int(np.count_nonzero(np.diff(shown)))


def join(before: str, after: str, path: Path) -> int:
    """Write a clip and then another into one file, at one size and rate; return the number of the first frame after."""
    cut = count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for clip in (before, after):
            cut = count
            with open_source(clip) as source:
                for frame in source:
                    picture = av.VideoFrame.from_ndarray(frame.image, format="bgr24").reformat(WIDTH, HEIGHT, "yuv420p")
                    picture.pts, picture.time_base = count, Fraction(1, RATE)
                    container.mux(stream.encode(picture))
                    count += 1
        container.mux(stream.encode(None))
    return cut


def print_delay(stream: Stream, cut: int, window: int, names: Sequence[str]) -> None:
    """Print when the label changes at a cut, and when the rolling average of two constant scenes would."""
    raw = labels(Smoothing(window=1), stream.rows, stream.times)
    smoothed = labels(Smoothing(window=window), stream.rows, stream.times)
    old, new = smoothed[cut - 1], smoothed[min(cut + window, len(smoothed)) - 1]
    measured = int(np.argmax(smoothed[cut:] == new))
    before = stream.rows[max(0, cut - window) : cut].mean(axis=0)
    after = stream.rows[cut : cut + window].mean(axis=0)
    held = min(window, cut)
    shares = np.arange(1, held + 1)[:, None] / held
    predicted = int(np.argmax((before * (1 - shares) + after * shares).argmax(axis=1) == new))
    first_raw = cut + int(np.argmax(raw[cut:] == new))
    say(
        f"{names[old] + ' -> ' + names[new]:40}  {stream.times[first_raw] - stream.times[cut]:11.2f}"
        f"  {stream.times[cut + measured] - stream.times[cut]:10.2f}  {measured:13}  {predicted:14}"
    )


def print_rates(streams: Sequence[Stream], seconds: str) -> None:
    """Print how the labels of a window in seconds, and of one in frames, depend on which frames are there."""
    say(f"\nclip                  frames kept      labels with {seconds}   with as many frames   changes moved by, s")
    for stream in streams:
        everything = np.arange(len(stream.times))
        span_s = parse_window(seconds).seconds
        frames = max(1, round(span_s * (len(stream.times) - 1) / (stream.times[-1] - stream.times[0])))
        half = [everything[::2]]
        random = [everything[np.random.default_rng(seed).random(len(everything)) >= DROPPED] for seed in range(SEEDS)]
        for name, kept in (("every 2nd", half), ("70 % at random", random)):
            same = {
                window: np.mean([agreement(stream, indices, Smoothing(window=window)) for indices in kept])
                for window in (seconds, frames)
            }
            moved = [move for indices in kept for move in moves(stream, indices, Smoothing(window=seconds))]
            told = f"median {np.median(moved):.2f}, most {max(moved):.2f}" if moved else "none changes"
            say(f"{stream.name:20}  {name:15}  {same[seconds]:14.1%}  {same[frames]:20.1%}   {told}")


def agreement(stream: Stream, kept: npt.NDArray[np.intp], smoothing: Smoothing) -> float:
    """Return the share of the frames kept whose label is the one that they have among all frames."""
    full = labels(smoothing, stream.rows, stream.times)
    return float(np.mean(labels(smoothing, stream.rows[kept], stream.times[kept]) == full[kept]))


def moves(stream: Stream, kept: npt.NDArray[np.intp], smoothing: Smoothing) -> list[float]:
    """Return by how many seconds changes to a label move, of those that hold for as long as half a window."""
    full = labels(smoothing, stream.rows, stream.times)
    some = labels(smoothing, stream.rows[kept], stream.times[kept])
    changes = _lasting(some, stream.times[kept])
    return [
        min((abs(time - other) for other, to in changes if to == label), default=float("inf"))
        for time, label in _lasting(full, stream.times)
    ]


def _lasting(
    shown: npt.NDArray[np.intp], times: npt.NDArray[np.float64], at_least_s: float = 1.0
) -> list[tuple[float, int]]:
    """Return when a label begins that then holds for some time, and which."""
    begins = [0, *(np.flatnonzero(np.diff(shown)) + 1).tolist()]
    ends = [*times[begins[1:]].tolist(), float(times[-1])]
    return [
        (float(times[begin]), int(shown[begin]))
        for begin, end in zip(begins, ends, strict=True)
        if begin and end - times[begin] >= at_least_s
    ]


if __name__ == "__main__":
    sys.exit(main())

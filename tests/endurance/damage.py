"""Flips bits of a clip, a few at a time and many at once: does the process live, and is what is damaged counted?

    python -m tests.endurance.damage CLIP [--flips 10000]

Each copy of the clip is decoded in a process of its own, so that a crash is seen; FFmpeg is C, and has met worse.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

DECODE = """
import sys
from edgevid import SourceError, open_source
for path in sys.argv[1:]:
    try:
        with open_source(path) as source:
            frames = sum(1 for frame in source)
            print(frames, source.broken, flush=True)
    except SourceError as error:
        print("refused", str(error).partition(": ")[2][:60], flush=True)
"""
COPIES = 20  # a process


def damaged(data: bytes, flips: int, chance: random.Random) -> bytes:
    """Return a copy with so many random bits flipped."""
    copy = bytearray(data)
    for _ in range(flips):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return bytes(copy)


def decoded(paths: list[Path]) -> list[str]:
    """Return what decoding each of them came to, one process for all."""
    command = [sys.executable, "-c", DECODE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return [*done.stdout.splitlines(), *([f"died of {done.returncode}"] if done.returncode else [])]


def main() -> None:
    """Run it, and print what became of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance, data = random.Random(arguments.seed), arguments.clip.read_bytes()
    print("undamaged (frames, broken):", *decoded([arguments.clip]))
    for at_once in (1, 10, 100, 1000, 10_000):
        copies = max(1, min(200, arguments.flips // at_once))
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}{arguments.clip.suffix}" for number in range(copies)]
            for path in paths:
                path.write_bytes(damaged(data, at_once, chance))
            results = [line for first in range(0, copies, COPIES) for line in decoded(paths[first : first + COPIES])]
        counts = [line.split() for line in results if line[0].isdigit()]
        frames, broken = (sum(int(count[place]) for count in counts) for place in (0, 1))
        others = Counter(line for line in results if not line[0].isdigit())
        read = f"{len(counts)} read, {frames} frames, {broken} broken"
        print(f"{at_once} flips in each of {copies} copies: {read}; {dict(others)}")


if __name__ == "__main__":
    main()

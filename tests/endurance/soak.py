"""Lets ``edgevid run`` record a stream whose link is cut and stalled at random, and watches its memory.

    python -m tests.endurance.soak model.edgevid [--minutes 20] [--warm-up 5]

Recording is in segments of 20 s, of which the last 20 MB are kept. Prints a line a minute, then the slope of the memory
after the warm-up by least squares (the median of each minute), and what the run itself said.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import linear_regression, median
from tempfile import TemporaryDirectory

import psutil

from tests.conftest import read_jsonl
from tests.servers import Link, free_port, rtsp_server


def main() -> None:
    """Run it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance, port = random.Random(arguments.seed), free_port()
    with TemporaryDirectory() as folder, rtsp_server(port):
        link = Link(port)
        command = [sys.executable, "-m", "edgevid", "run", str(arguments.bundle), "--quiet"]
        command += ["--source", f"rtsp://127.0.0.1:{link.port}/live", "--save", f"{folder}/out.mp4", "--segment", "20s"]
        command += ["--keep", "20MB", "--predictions", f"{folder}/out.jsonl", "--health", f"{folder}/health.json"]
        with psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            minutes = watch(run, link, chance, arguments.minutes)
            run.send_signal(signal.SIGINT)
            text = run.communicate(timeout=10)[0]
        link.close()
        report(minutes, arguments.warm_up, Path(folder), text)


def watch(run: psutil.Popen, link: Link, chance: random.Random, length: float) -> list[float]:
    """Disturb the link every ten to fifty seconds; return the memory of each minute, in MB."""
    began, next_cut, minutes, samples = time.monotonic(), 20.0, list[float](), list[float]()
    while (now := time.monotonic() - began) < 60 * length and run.poll() is None:
        time.sleep(1)
        samples.append(run.memory_info().rss / 1e6)
        if now > next_cut:
            next_cut = now + chance.uniform(10, 50)
            if chance.random() < 0.5:
                link.cut()
            else:
                link.flow.clear()
                time.sleep(chance.uniform(0.5, 8))
                link.flow.set()
        if now >= 60 * (len(minutes) + 1):
            minutes.append(median(samples))
            samples.clear()
            print(f"minute {len(minutes):4d}: {minutes[-1]:.2f} MB, {run.num_threads()} threads, "
                  f"{run.num_fds()} descriptors", flush=True)  # fmt: skip
    return minutes


def report(minutes: list[float], warm_up: float, folder: Path, text: str) -> None:
    """Print the slope after the warm-up, and what there is of the outputs."""
    late = minutes[int(warm_up) :]
    slope = linear_regression(range(len(late)), late).slope if len(late) > 1 else float("nan")
    records = [record for file in sorted(folder.glob("out*.jsonl")) for record in read_jsonl(file.read_text())]
    events = Counter(record["event"] for record in records if "event" in record)
    print(f"slope after minute {warm_up:g}: {60 * slope:+.2f} MB an hour, range {min(late):.2f} to {max(late):.2f} MB")
    print(f"kept {len(list(folder.glob('out*.mp4')))} parts of video; events: {dict(events)}")
    print(text)


if __name__ == "__main__":
    main()

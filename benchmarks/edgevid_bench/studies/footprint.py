"""Measures what ``edgevid run`` takes: time to the first label, memory, CPU time at a fixed rate, age of live frames.

    python -m edgevid_bench.studies.footprint model.edgevid [--source CLIP] [--backend litert] [--variant tflite-int8]

For what is measured over time, a short clip is repeated until it lasts 50 s. Nothing else should run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import av
import psutil

from edgevid.errors import EdgevidError
from edgevid.sources import open_source

ROUNDS = 5
RATE = 5  # frames per second, for the CPU time
STEADY_S = (5, 25)  # between these seconds of a run
AGE = re.compile(r"age of a frame.*")


def lengthened(clip: Path, seconds: float, folder: Path) -> Path:
    """Return a clip of that length at least: itself, or its packets as often as it takes."""
    with av.open(str(clip)) as first:
        length = (first.duration or 0) / av.time_base
    if length >= seconds:
        return clip
    output = folder / "long.mp4"
    with av.open(str(output), "w") as long:
        stream, offset = None, 0
        for _ in range(int(seconds / length) + 1):
            with av.open(str(clip)) as again:
                source = again.streams.video[0]
                stream = stream or long.add_stream_from_template(source)
                end = 0
                for packet in again.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    long.mux(packet)
                offset += end
    return output


def first_label_s(command: Sequence[str]) -> float:
    """Return the seconds from the start of the process to its first prediction on stdout."""
    began = time.perf_counter()
    with subprocess.Popen([*command, "--predictions", "-", "--quiet"], stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        assert process.stdout
        process.stdout.readline()
        taken = time.perf_counter() - began
        process.stdout.read()
    return taken


def memory_mb(command: Sequence[str]) -> tuple[float, list[float]]:
    """Return the peak of memory of a run, and the memory at each second."""
    with psutil.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as process:
        peak, resident = 0.0, []
        while process.poll() is None:
            time.sleep(0.05)
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                break
            found = dict(re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", status))
            if found:
                peak = max(peak, int(found["VmHWM"]) / 1024)
                resident.append(int(found["VmRSS"]) / 1024)
    return peak, resident[::20]


def cpu_share(command: Sequence[str]) -> float:
    """Return the CPU time of a live run in its steady part, as a share of one core."""
    with psutil.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as process:
        began, marks = time.perf_counter(), []
        for second in STEADY_S:
            time.sleep(max(0.0, began + second - time.perf_counter()))
            times = process.cpu_times()
            marks.append((time.perf_counter(), times.user + times.system))
        process.terminate()
    (start, before), (end, after) = marks
    return (after - before) / (end - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="edgevid_bench.studies.footprint", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", default="sample:bikes", help="a clip")
    parser.add_argument("--backend", default="litert")
    parser.add_argument("--variant", default="tflite-int8")
    arguments = parser.parse_args()
    run = [sys.executable, "-m", "edgevid", "run", str(arguments.bundle)]
    run += ["--backend", arguments.backend, "--variant", arguments.variant, "--source"]
    try:
        with open_source(arguments.source) as source, TemporaryDirectory() as folder:
            clip = source.files[0]
            long = str(lengthened(Path(clip), 2 * STEADY_S[1], Path(folder)))
            first = [first_label_s([*run, str(clip), "--max-frames", "30"]) for _ in range(ROUNDS)]
            print_line(f"first label after {median(first):.2f} s ({min(first):.2f}–{max(first):.2f})")
            print_line(f"peak memory {memory_mb([*run, str(clip)])[0]:.0f} MB")
            video = [*run, str(clip), "--save", str(Path(folder) / "annotated.mp4"), "--force"]
            print_line(f"peak memory with annotated video {memory_mb(video)[0]:.0f} MB")
            over_time = ", ".join(f"{value:.0f}" for value in memory_mb([*run, long])[1])
            print_line(f"memory each second of a longer run: {over_time} MB")
            share = cpu_share([*run, long, "--realtime", "--max-fps", str(RATE)])
            print_line(f"CPU time at --realtime --max-fps {RATE}: {share:.1%} of one core, from second 5 to 25")
            live = [*run, str(clip), "--realtime"]
            output = subprocess.run(live, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
            found = AGE.search(output)
            print_line(found[0] if found else output)
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")


def print_line(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

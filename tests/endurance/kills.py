"""Kills recordings at random moments: is each video playable, how much is lost, are the prediction lines whole?

    python -m tests.endurance.kills model.edgevid [--count 100] [--source CLIP] [--run='--max-fps 5']

Each is a run of a clip in real time, killed with SIGKILL between half a second and three after its first prediction.
Lost is what the last frame that was classified is ahead of the last frame of the video.

With --power-cut, as root, it records to an ext4 file system in a file, and what counts is what that file holds at the
kill: what the kernel had not written yet is gone, as in a power cut.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av

from edgevid.errors import EdgevidError
from edgevid.sources import open_source
from edgevid_bench.studies.footprint import lengthened

FROM_S, TO_S = 0.5, 3.0
PATIENCE_S = 60.0
PREDICTIONS = "out.jsonl"
DISK_BYTES = 64 << 20


class Remains(NamedTuple):
    """What a killed run left."""

    predictions: int
    broken_lines: int
    video_frames: int  # 0 if it cannot be played
    lost_s: float
    lost_labels_s: float = 0.0


def killed(command: Sequence[str], folder: Path, after_s: float, suffix: str = ".mp4") -> Remains:
    """Run a recording into a folder, kill it so long after its first prediction, and return what it left."""
    _record(command, folder, after_s, suffix)
    return _remains(folder, suffix)


def cut_off(command: Sequence[str], folder: Path, after_s: float, suffix: str = ".mp4") -> Remains:
    """Do the same on a disk of its own, and return what had reached that disk at the kill."""
    disk, reached = folder / "disk.img", folder / "reached.img"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
    with _mounted(disk, folder / "mounted") as recorded:
        _record(command, recorded, after_s, suffix)
        shutil.copyfile(disk, reached)
        last = _prediction_times(recorded)[0][-1]
    with _mounted(reached, folder / "afterwards") as left:
        return _remains(left, suffix, last)


def _record(command: Sequence[str], folder: Path, after_s: float, suffix: str) -> None:
    outputs = ["--save", str(folder / f"out{suffix}"), "--predictions", str(folder / PREDICTIONS)]
    with subprocess.Popen([*command, *outputs], stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(folder / PREDICTIONS, process)
            time.sleep(after_s)
        finally:
            process.kill()


@contextmanager
def _mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _remains(folder: Path, suffix: str, last: float | None = None) -> Remains:
    """Return what is in a folder; ``last`` is the time of the last frame that was classified, if not the last there."""
    times, broken = _prediction_times(folder)
    shown = _frame_times(folder / f"out{suffix}")
    newest = times[-1] if times else 0.0
    last = newest if last is None else last
    return Remains(len(times), broken, len(shown), last - (shown[-1] if shown else 0.0), last - newest)


def _prediction_times(folder: Path) -> tuple[list[float], int]:
    """Return the times in the predictions, and how many of their lines are broken."""
    path = folder / PREDICTIONS
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    broken = sum(not _is_json(line) for line in lines[:-1]) + (lines[-1] != b"")
    return [json.loads(line)["time"] for line in lines if _is_json(line)], broken


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            raise EdgevidError(f"{path}: no prediction came; run the command by hand")
        time.sleep(0.01)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _frame_times(video: Path) -> list[float]:
    try:
        with av.open(str(video)) as container:
            return [frame.time for frame in container.decode(video=0) if frame.time is not None]
    except (av.error.FFmpegError, OSError):
        return []


def main() -> None:
    """Kill, look, print."""
    parser = argparse.ArgumentParser(prog="tests.endurance.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--source", default="sample:bikes", help="a clip")
    parser.add_argument("--suffix", default=".mp4", help="the container: .mp4, .mov or .mkv")
    parser.add_argument("--power-cut", action="store_true", help="lose what has not reached the disk; as root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", default="", metavar="OPTIONS", help="more options of edgevid run")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count: expected 1 or more")
    moments = random.Random(arguments.seed)
    remains = []
    try:
        with open_source(arguments.source) as source, TemporaryDirectory() as folder:
            clip = lengthened(Path(source.files[0]), 3 * TO_S, Path(folder))
            command = [sys.executable, "-m", "edgevid", "run", str(arguments.bundle), "--quiet", "--realtime"]
            command += ["--source", str(clip), *shlex.split(arguments.run)]
            for number in range(arguments.count):
                target = Path(folder) / str(number)
                target.mkdir()
                end = cut_off if arguments.power_cut else killed
                remains.append(end(command, target, moments.uniform(FROM_S, TO_S), arguments.suffix))
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")
    playable = [one for one in remains if one.video_frames]
    lost = [one.lost_s for one in playable] or [float("nan")]
    sys.stdout.write(
        f"{len(playable)} of {len(remains)} videos playable; lost {median(lost):.2f} s (median), {max(lost):.2f} s "
        f"(most); {sum(one.broken_lines for one in remains)} of {sum(one.predictions for one in remains)} prediction "
        f"lines broken, the last {max(one.lost_labels_s for one in remains):.2f} s lost at most\n"
    )


if __name__ == "__main__":
    main()

"""Stops an RTSP server for a minute, again and again: when is that noticed, and when do labels come again?

python -m tests.endurance.stopped_server model.edgevid [--rounds 5] [--seconds 60]
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers import free_port, rtsp_server
from tests.test_live import Lines, is_event, is_label


def main() -> None:
    """Run it, and print the seconds of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    port = free_port()
    with TemporaryDirectory() as folder, rtsp_server(port) as server:
        lines = Lines(Path(folder) / "out.jsonl")
        command = [sys.executable, "-m", "edgevid", "run", str(arguments.bundle), "--quiet"]
        command += ["--source", f"rtsp://127.0.0.1:{port}/live", "--predictions", f"{folder}/out.jsonl"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
            lines.wait_for(is_label("green"), 20)
            for number in range(arguments.rounds):
                seen = len(lines.all())
                server.send_signal(signal.SIGSTOP)
                stopped = time.monotonic()
                lost = lines.wait_for(is_event("lost"), 20, after=seen)
                noticed = time.monotonic() - stopped
                time.sleep(arguments.seconds - noticed)
                server.send_signal(signal.SIGCONT)
                went_on = time.monotonic()
                lines.wait_for(is_label("green"), 30, after=lost)
                again = time.monotonic() - went_on
                print(
                    f"round {number + 1}: noticed after {noticed:.2f} s, a label {again:.2f} s after it went on",
                    flush=True,
                )
                time.sleep(3)
            server.send_signal(signal.SIGSTOP)
            lines.wait_for(is_event("lost"), 20, after=len(lines.all()) - 1)
            time.sleep(5)
            run.send_signal(signal.SIGINT)
            asked = time.monotonic()
            status = run.wait(20)
            print(f"Ctrl-C while it was away: ended after {time.monotonic() - asked:.2f} s with exit status {status}")


if __name__ == "__main__":
    main()

"""Cuts the link to an RTSP server again and again: do memory, threads and file descriptors stay as they are?

python -m tests.endurance.reconnects model.edgevid [--count 1000]
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import psutil

from edgevid import SourceOptions, VideoClassifier
from edgevid.heap import keep_small
from edgevid.secrets import redact
from edgevid.sources.network import NetworkSource
from edgevid.sources.reconnect import Patience, ReconnectingSource
from tests.servers import Link, free_port, rtsp_server

QUICK = Patience(0.02, 0.02, 0.02)
WARM_UP = 100  # what engines, codecs and allocators keep, they have by then


def main() -> None:
    """Run it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    process, port, began = psutil.Process(), free_port(), time.monotonic()
    keep_small()  # as ``edgevid run`` does
    with rtsp_server(port), VideoClassifier(arguments.bundle) as classifier:
        link = Link(port)
        url = f"rtsp://127.0.0.1:{link.port}/live"
        options = SourceOptions()
        source = ReconnectingSource(redact(url), lambda: NetworkSource(url, options), options, patience=QUICK)
        cut = -1
        print("reconnects  rss_mb  threads  descriptors  seconds")
        for _ in classifier.stream(source):
            if source.gaps > cut:
                cut = source.gaps
                if cut % WARM_UP == 0:
                    own = threading.active_count(), process.num_fds()
                    print(f"{cut:10d}  {process.memory_info().rss / 1e6:6.1f}  {own[0]:7d}  {own[1]:11d}  "
                          f"{time.monotonic() - began:7.0f}", flush=True)  # fmt: skip
                if cut == arguments.count:
                    break
                link.cut()
        link.close()


if __name__ == "__main__":
    main()

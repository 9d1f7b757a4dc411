"""``python -m edgevid``, and the command ``edgevid``."""

import atexit
import os
import sys
from typing import NoReturn

from edgevid.cli import main

__all__ = ["start"]


def start() -> NoReturn:
    """Run the command line, and end also where a thread is left in a driver that does not return.

    FFmpeg asks Python, again and again, whether to go on: once there is no Python any more, that is a crash.
    """
    try:
        main()
    finally:
        connections = sys.modules.get("edgevid.sources.connection")
        if connections and connections.some_hang():
            error = sys.exc_info()[1]
            atexit._run_exitfuncs()  # what would be done now, but for taking Python apart
            os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)


if __name__ == "__main__":
    start()

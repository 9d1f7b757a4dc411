"""Asks one backend about one device: ``python -m edgevid.backends.probe litert gpu`` answers in JSON."""

from __future__ import annotations

import os
import sys

import msgspec

from edgevid.backends import Usable, backend_entry
from edgevid.errors import EdgevidError
from edgevid.quiet import captured

__all__ = ["main"]


def main(name: str, device: str) -> None:
    """Print whether the backend can use the device, as JSON on stdout; what engines print is dropped."""
    answer = os.fdopen(os.dup(1), "wb")
    with captured(1, 2):
        try:
            found = backend_entry(name).imported(name).usable(device)
        except EdgevidError as error:
            found = Usable(device, *str(error).split("; ", 1))
    answer.write(msgspec.json.encode(found))
    answer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Times and sizes as people write them: ``10m``, ``2GB``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = ["size_bytes", "time_seconds"]

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def time_seconds(text: str) -> float | None:
    """Return a time such as ``90s``, ``10m``, ``1.5h``, ``7d`` or ``250ms`` in seconds; None if it is none."""
    return _amount(text, SECONDS)


def size_bytes(text: str) -> int | None:
    """Return a size such as ``500MB`` or ``2GB`` in bytes, in powers of 1000; None if it is none."""
    amount = _amount(text, BYTES)
    return None if amount is None else round(amount)


def _amount(text: str, units: Mapping[str, float]) -> float | None:
    match = NUMBER_AND_UNIT.fullmatch(text.strip())
    unit = units.get(match[2].lower()) if match else None
    amount = float(match[1]) * unit if match and unit else 0.0
    return amount if 0 < amount < math.inf else None

"""Keeps passwords out of everything that is printed."""

from __future__ import annotations

import re

__all__ = ["redact"]


def redact(text: str) -> str:
    """Return ``text`` without credentials."""
    return re.sub(r"(\w+://)\S*@", r"\1***@", text)

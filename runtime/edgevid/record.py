"""What the parts of a manifest have in common."""

from __future__ import annotations

import msgspec

__all__ = ["Record"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen part of the manifest; unknown fields are refused, so that a typing error cannot hide."""

"""Where engines keep what they have compiled, so that the next start is quick."""

from __future__ import annotations

from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder(engine: str) -> str | None:
    """Return an engine's folder in the user's cache; None where none can be made: then it compiles each time."""
    folder = Path(platformdirs.user_cache_dir("edgevid")) / engine
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError:
        return None
    return str(folder)

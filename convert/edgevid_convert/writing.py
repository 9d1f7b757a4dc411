"""What a bundle is written with: its folder, and how pixels become numbers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgevid.errors import BundleError, UsageError
from edgevid.manifest import Fit, Preprocessing, Resize
from edgevid_convert.preprocessing import Normalization

__all__ = ["bundle_folder", "preprocessing_for"]


def preprocessing_for(
    chosen: Normalization, name: str | None, resize: Resize, fit: Fit, channels: int
) -> Preprocessing:
    """Return the preprocessing for so many channels of the normalization that was chosen, by its name if it has one.

    Raises:
        UsageError: there are other numbers than channels.
    """
    named = f"--preprocess {name}" if name else None
    for flag, values in (("--mean", chosen.mean), ("--std", chosen.std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"{named or flag}: {len(values)} numbers for {channels} channel(s); give one, or one a channel"
            )
    return Preprocessing(
        resize=resize,
        fit=fit,
        mean=chosen.mean if len(chosen.mean) == channels else chosen.mean * channels,
        std=chosen.std if len(chosen.std) == channels else chosen.std * channels,
    )


@contextmanager
def bundle_folder(output: Path, force: bool) -> Iterator[Path]:
    """Yield a folder that takes the name ``output`` when the block ends well; else nothing of it is left."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise BundleError(
            f"{output}: the folder {output.parent.resolve()} cannot be written ({error.strerror}); use --output"
        ) from error
    try:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        old = scratch / "old"
        if output.exists() and force:
            output.rename(old)
        try:
            folder.rename(output)
        except BaseException:
            if old.exists():
                old.rename(output)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

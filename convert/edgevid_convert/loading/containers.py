"""What kind of model file a path is, told from its name and its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgevid.errors import ModelError

__all__ = ["HDF5_SUFFIXES", "SAVED_MODEL_FILE", "check_container"]

SAVED_MODEL_FILE = "saved_model.pb"
HDF5_SUFFIXES = frozenset({".h5", ".hdf5"})
HDF5_HEAD = b"\x89HDF\r\n\x1a\n"


def check_container(path: Path) -> None:
    """Say what a file that cannot be a model is, before Keras says it in a paragraph.

    Raises:
        ModelError: it is no ``.keras`` or ``.h5`` file, and no SavedModel folder.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        if not (path / SAVED_MODEL_FILE).is_file():
            raise ModelError(
                f"{path}: no {SAVED_MODEL_FILE} in it; expected a .keras or .h5 file, or a SavedModel folder"
            )
    elif path.suffix != suffix and suffix in {".keras", *HDF5_SUFFIXES}:
        raise ModelError(f"{path}: Keras knows {suffix} in small letters only; rename it to {path.stem}{suffix}")
    elif suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: not a Keras model (a .keras file is a ZIP archive); save it with model.save()")
    elif suffix in HDF5_SUFFIXES:
        with path.open("rb") as file:
            if file.read(len(HDF5_HEAD)) != HDF5_HEAD:
                raise ModelError(f"{path}: not an HDF5 file; save the model with model.save()")
    else:
        raise ModelError(f"{path}: unknown kind of model file; expected .keras, .h5, .hdf5 or a SavedModel folder")

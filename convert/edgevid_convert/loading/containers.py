"""The kind of a model file, told from its first bytes: names lie."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

from edgevid.errors import ModelError

__all__ = ["KERAS_SUFFIX", "SAVED_MODEL_FILE", "Container", "container_of", "is_model"]

Container: TypeAlias = Literal["keras", "hdf5", "saved_model"]

SAVED_MODEL_FILE = "saved_model.pb"
CONFIG_MEMBER = "config.json"
# Keras itself goes by the name: under these it reads each kind of file.
KERAS_SUFFIX: dict[Container, str] = {"keras": ".keras", "hdf5": ".h5"}
HDF5_HEAD = b"\x89HDF\r\n\x1a\n"
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
HEAD_BYTES = 512
SAVE_AGAIN = "save the model with model.save(), as .keras or .h5"
# Other files that people have, by how they begin, and what to do with them.
OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, no model: run  git lfs pull"),
    (b"\x80\x02", f"a Python pickle, which runs code when it is read; {SAVE_AGAIN}"),
    (b"\x80\x03", f"a Python pickle, which runs code when it is read; {SAVE_AGAIN}"),
    (b"\x80\x04", f"a Python pickle, which runs code when it is read; {SAVE_AGAIN}"),
    (b"\x80\x05", f"a Python pickle, which runs code when it is read; {SAVE_AGAIN}"),
    (b"\x93NUMPY", f"NumPy arrays: weights only, no model; {SAVE_AGAIN}"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"<!DOCTYPE", "a web page: the download went wrong"),
    (b"<html", "a web page: the download went wrong"),
    (b"{", f"JSON: a model's configuration without its weights; {SAVE_AGAIN}"),
)
PACK = "it is converted already: use  edgevid pack"


def container_of(path: Path) -> Container:
    """Return the kind of model that a file or folder holds.

    Raises:
        ModelError: it is no Keras model; says what it is instead, and the remedy.
    """
    if path.is_dir():
        return _folder(path)
    head = _head(path)
    if head.startswith(HDF5_HEAD):
        return "hdf5"
    if head.startswith(ZIP_HEADS):
        return _archive(path)
    if path.name == SAVED_MODEL_FILE:
        raise ModelError(f"{path}: a SavedModel is its whole folder; give {path.parent}")
    raise ModelError(f"{path}: {_other_kind(path, head)}")


def is_model(path: Path) -> bool:
    """Return whether a path looks like a Keras model, by its first bytes."""
    try:
        container_of(path)
    except (ModelError, OSError):
        return False
    return True


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"{path}: it cannot be read: {error.strerror}") from error


def _folder(path: Path) -> Container:
    if (path / SAVED_MODEL_FILE).is_file():
        return "saved_model"
    inside = sorted(entry for entry in path.iterdir() if entry.is_file() and is_model(entry))
    inside += sorted(entry.parent for entry in path.glob(f"*/{SAVED_MODEL_FILE}"))
    hint = f"; the model in it is {inside[0]}" if len(inside) == 1 else ""
    raise ModelError(
        f"{path}: no {SAVED_MODEL_FILE} in it; expected a .keras or .h5 file, or a SavedModel folder{hint}"
    )


def _archive(path: Path) -> Container:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{path}: the archive is damaged; save or copy it again") from error
    if CONFIG_MEMBER in names:
        return "keras"
    inside = [name for name in names if name.endswith((".keras", ".h5", ".hdf5", SAVED_MODEL_FILE))]
    if inside:
        raise ModelError(f"{path}: an archive with a model in it: unpack it, and give {inside[0]}")
    if any(name.endswith("data.pkl") for name in names):
        raise ModelError(f"{path}: a PyTorch file: export it to ONNX, then use  edgevid pack")
    if any(name.endswith(".npy") for name in names):
        raise ModelError(f"{path}: NumPy arrays: weights only, no model; {SAVE_AGAIN}")
    raise ModelError(f"{path}: not a Keras model: an archive without {CONFIG_MEMBER}; {SAVE_AGAIN}")


def _other_kind(path: Path, head: bytes) -> str:
    """Return what a file is that is no Keras model, and what to do."""
    if not head:
        return "the file is empty; save or copy it again"
    if head[4:8] == b"TFL3":
        return f"a TFLite model; {PACK} {path}"
    if path.suffix.lower() == ".onnx":
        return f"an ONNX model; {PACK} {path}"
    if path.suffix.lower() == ".pb":
        return f"a frozen TensorFlow graph, which names no input and no output; {SAVE_AGAIN}"
    if path.suffix in {".index", ".meta"} or ".data-" in path.name:
        return f"a TensorFlow checkpoint: weights only, no model; {SAVE_AGAIN}"
    known = next((what for start, what in OTHER_KINDS if head.lstrip().startswith(start)), None)
    return known or (
        f"not a Keras model; expected a .keras file (a ZIP archive), a .h5 file (HDF5) or a SavedModel folder: "
        f"{SAVE_AGAIN}"
    )

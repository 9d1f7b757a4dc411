"""Looks through an HDF5 file without following what leads out of it (CVE-2026-1669) or unpacking what is too large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from edgevid.errors import ModelError, first_line

__all__ = ["vet_hdf5"]

LARGEST_DATASET = 4 << 30  # bytes
BOMB_BYTES, BOMB_RATIO = 16 << 20, 100  # a dataset larger than these many bytes, and than so many times its file space
MOST_OBJECTS = 1_000_000


def vet_hdf5(path: Path, file_path: Path) -> None:
    """Check every link and every dataset of an HDF5 file.

    Args:
        path: the model, for messages.
        file_path: the HDF5 file: the model itself, or the weights in it.

    Raises:
        ModelError: it is damaged, a link or a dataset leads to another file, or a size is absurd.
    """
    try:
        with h5py.File(file_path, "r") as file:
            for count, (name, dataset) in enumerate(_datasets(path, file)):
                if count > MOST_OBJECTS:
                    raise ModelError(f"{path}: more than {MOST_OBJECTS} datasets; no model has that many")
                _check_dataset(path, name, dataset)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: the HDF5 weights are damaged: {first_line(error)}; save or copy it again") from error


def _datasets(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Yield each dataset with its name; hard links only are followed, and each group once."""
    seen = {_address(file)}
    groups = [file]
    while groups:
        group = groups.pop()
        for key in group:
            name = f"{group.name.rstrip('/')}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ModelError(
                    f"{path}: {name} is a link to another file, {link.filename!r}; no Keras model has that"
                )
            if isinstance(link, h5py.SoftLink):
                continue  # its target is in this file, and is met on its own way
            item = group[key]
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group) and _address(item) not in seen:
                seen.add(_address(item))
                groups.append(item)


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _check_dataset(path: Path, name: str, dataset: Any) -> None:
    if dataset.external or dataset.is_virtual:
        raise ModelError(f"{path}: the data of {name} lie in another file; no Keras model has that")
    bytes_, stored = int(dataset.nbytes), int(dataset.id.get_storage_size())
    if bytes_ > LARGEST_DATASET or (bytes_ > BOMB_BYTES and bytes_ > BOMB_RATIO * stored):
        shape = "×".join(map(str, dataset.shape))
        raise ModelError(
            f"{path}: {name} states a shape of {shape}, {bytes_} bytes, and {stored} are stored; "
            f"a weight has at most {LARGEST_DATASET >> 30} GiB, and is stored in full"
        )

"""Reads weights in PyTorch's old file format without PyTorch, and without running what a pickle may carry.

The file is a sequence of pickles (a magic number, a protocol version, system facts, the tensors by name, the keys
of their storages in order), then for each storage its element count, int64, and its raw little-endian data.
Source: ``torch.serialization._legacy_load``.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError

__all__ = ["read_torch_weights"]

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor(NamedTuple):
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


def read_torch_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a legacy PyTorch file by name, in the memory order of their shape.

    Raises:
        ModelError: it is no such file, or asks for anything but tensors.
    """
    dtypes: dict[str, np.dtype[Any]] = {}

    class TensorsOnly(pickle.Unpickler):
        """Knows the names that rebuild a tensor, and no other."""

        known: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            ),
            **{("torch", name): lambda name=name: name for name in STORAGE_DTYPES},
        }

        def find_class(self, module: str, name: str) -> Any:
            try:
                return self.known[module, name]
            except KeyError:
                raise ModelError(f"{path}: it asks for {module}.{name}, which holds no weights; not loaded") from None

        def persistent_load(self, pid: Any) -> str:
            _, storage_type, key, *_ = pid
            dtypes[key] = STORAGE_DTYPES[str(storage_type())]
            return str(key)

    with path.open("rb") as file:
        if TensorsOnly(file).load() != MAGIC:
            raise ModelError(f"{path}: not in PyTorch's old file format")
        TensorsOnly(file).load()  # protocol version
        TensorsOnly(file).load()  # system facts
        tensors: dict[str, _Tensor] = TensorsOnly(file).load()
        keys: list[str] = TensorsOnly(file).load()
        storages = {}
        for key in keys:
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
    return {name: _strided(storages[tensor.storage], tensor) for name, tensor in tensors.items()}


def _strided(storage: npt.NDArray[Any], tensor: _Tensor) -> npt.NDArray[Any]:
    strides = tuple(step * storage.itemsize for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(tensor.shape)

"""Looks through a model file before Keras opens it; refuses what runs code, leads to other files, fills the memory.

Keras' own safe mode is no boundary: it was passed by more than once (CVE-2024-3660, CVE-2025-1550, CVE-2025-8747,
CVE-2025-9905, CVE-2026-1462, CVE-2026-1669). Nothing here imports Keras, and a SavedModel is only parsed.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import h5py

from edgevid.errors import ModelError, first_line
from edgevid_convert.loading.containers import CONFIG_MEMBER, Container
from edgevid_convert.loading.keras2 import as_keras_2, keras_generation
from edgevid_convert.loading.security.config import vet_config
from edgevid_convert.loading.security.hdf5 import vet_hdf5

__all__ = ["Scanned", "scan_model"]

METADATA_MEMBER = "metadata.json"
WEIGHTS_SUFFIX = ".h5"
LARGEST_CONFIG = 64 << 20
LARGEST_MEMBER = 8 << 30
BOMB_BYTES, BOMB_RATIO = 16 << 20, 100  # weights hardly compress: a member larger and denser than these is none


class Scanned(NamedTuple):
    """A model file that was looked through.

    Attributes:
        custom_names: of the classes and functions that are not part of Keras.
        keras_version: of the Keras that wrote it; empty of a SavedModel.
        config: its configuration, of Keras 2 where an older one wrote it; None of a SavedModel.
        changed: whether ``config`` is another than the file's own.
    """

    custom_names: frozenset[str] = frozenset()
    keras_version: str = ""
    config: Any = None
    changed: bool = False

    @property
    def generation(self) -> int:
        """Which Keras reads it: 2, for what Keras 1 and 2 wrote, or 3; 0 of a SavedModel."""
        return keras_generation(self.keras_version) if self.keras_version else 0


def scan_model(path: Path, container: Container, scratch: Path, *, trust: bool, custom: bool) -> Scanned:
    """Look through a ``.keras``, ``.h5`` or SavedModel.

    Args:
        path: the file, or the SavedModel's folder.
        container: which of them it is.
        scratch: a folder to unpack the weights into, for a look.
        trust: let through what can run code; damage and absurd sizes are refused all the same.
        custom: classes that are not part of Keras are expected, from --custom-objects.

    Raises:
        ModelError: it is refused; names the layer or the part, and why.
    """
    if container == "saved_model":
        from edgevid_convert.loading.security.graph import vet_saved_model  # TensorFlow comes with it, for its files

        vet_saved_model(path, trust=trust)
        return Scanned()
    stored, version = _archive_config(path, scratch) if container == "keras" else _hdf5_config(path)
    config = as_keras_2(path, stored) if keras_generation(version) == 2 else stored
    names: frozenset[str] = frozenset()
    if not trust:
        # Losses and metrics may be anyone's: they are not loaded.
        named = (
            {key: value for key, value in config.items() if key != "compile_config"}
            if isinstance(config, dict)
            else config
        )
        names = vet_config(path, named, custom=custom)
    return Scanned(names, version, config, changed=config != stored)


def _archive_config(path: Path, scratch: Path) -> tuple[Any, str]:
    """Check each member of a ``.keras`` file, and return its configuration and the version of its Keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                _check_member(path, member)
            _check_sums(path, members)
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise ModelError(f"{path}: two of its members have one name; no .keras file that Keras wrote has")
            if CONFIG_MEMBER not in names:
                raise ModelError(
                    f"{path}: no {CONFIG_MEMBER} in it, so it is no Keras model; save it with model.save()"
                )
            for name in names:
                if name.endswith(WEIGHTS_SUFFIX):
                    unpacked = Path(archive.extract(name, scratch / "unpacked"))
                    vet_hdf5(path, unpacked)
                    unpacked.unlink()
            metadata = _parsed(path, archive.read(METADATA_MEMBER)) if METADATA_MEMBER in names else {}
            version = metadata.get("keras_version") if isinstance(metadata, dict) else None
            return _parsed(path, archive.read(CONFIG_MEMBER)), str(version or "3")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path}: the archive is damaged: {first_line(error)}; save or copy it again") from error


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    if name.startswith(("/", "\\")) or "\\" in name or ".." in PurePosixPath(name).parts:
        raise ModelError(f"{path}: its member {name!r} would be unpacked outside its folder; no Keras model has that")
    largest = LARGEST_CONFIG if name.endswith(".json") else LARGEST_MEMBER
    bomb = member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * max(1, member.compress_size)
    if member.file_size > largest or bomb:
        raise ModelError(
            f"{path}: its member {name!r} of {member.compress_size} bytes unpacks to {member.file_size}; "
            f"no Keras model has that, but a zip bomb has"
        )


def _check_sums(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Check what no member shows alone: many small bombs, members that lie over each other, sizes that are not true."""
    stored = path.stat().st_size
    total = sum(member.file_size for member in members)
    if sum(member.compress_size for member in members) > stored:
        raise ModelError(f"{path}: its members claim more bytes than the file has; save or copy it again")
    if total > LARGEST_MEMBER or total > max(BOMB_BYTES, BOMB_RATIO * stored):
        raise ModelError(f"{path}: its {stored} bytes unpack to {total}; no Keras model has that, but a zip bomb has")


def _hdf5_config(path: Path) -> tuple[Any, str]:
    """Check a legacy HDF5 file, and return its configuration and the version of its Keras: none said before 1.2."""
    vet_hdf5(path, path)
    try:
        with h5py.File(path, "r") as file:
            text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "1")
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: the HDF5 file is damaged: {first_line(error)}; save or copy it again") from error
    if text is None:
        raise ModelError(f"{path}: it holds weights only, no model; save it with model.save(), not save_weights()")
    return _parsed(path, text), version.decode() if isinstance(version, bytes) else str(version)


def _parsed(path: Path, text: Any) -> Any:
    if not isinstance(text, str | bytes):
        raise ModelError(f"{path}: its configuration is no text; save the model again with model.save()")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ModelError(f"{path}: its configuration is nested deeper than any model's") from error
    except ValueError as error:
        raise ModelError(f"{path}: its configuration is no JSON: {first_line(error)}; save the model again") from error

"""What a converted model is: find, read and verify a bundle, and choose one of its variants."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from edgevid.errors import BundleError, UsageError
from edgevid.manifest import LABELS_FILE, MANIFEST_FILE, SCHEMA, VARIANT_IDS, Manifest, Variant
from edgevid.sample import sample_bundle_path

__all__ = ["BUNDLE_SUFFIX", "Bundle", "find_bundle", "sha256_file", "write_manifest"]

BUNDLE_SUFFIX = ".edgevid"


class Bundle:
    """A bundle folder and its manifest; each file in it is verified when it is first asked for.

    Args:
        path: the folder ``NAME.edgevid``.
        public_key: a minisign public key, or a file of one, that must have signed the manifest; None for any bundle.

    Raises:
        BundleError: the folder or its manifest is absent, damaged, of a newer schema, or not signed by the key.
        UsageError: the key is none.
        MissingExtraError: a key was given and the [signing] extra is not installed.
    """

    def __init__(self, path: str | Path, public_key: str | None = None) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path, public_key)
        self._verified_files: dict[str, Path] = {}
        self._copies = None if public_key is None else _private_folder(self)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """One label a class, in the order of the model's outputs."""
        data = self._verified(LABELS_FILE, self.manifest.labels_sha256).read_bytes()
        labels = tuple(data.decode("utf-8", errors="replace").splitlines())
        if len(labels) != self.manifest.output.classes:
            raise BundleError(
                f"{self.path / LABELS_FILE}: {len(labels)} labels for {self.manifest.output.classes} classes; "
                "convert the model again"
            )
        return labels

    @property
    def variant_ids(self) -> tuple[str, ...]:
        """The ids of the variants in this bundle."""
        return tuple(variant.id for variant in self.manifest.variants)

    def variant(self, variant_id: str) -> Variant:
        """Return the variant of that id.

        Raises:
            UsageError: the bundle has no such variant.
        """
        for variant in self.manifest.variants:
            if variant.id == variant_id:
                return variant
        raise UsageError(f"variant {variant_id!r}: {self.path.name} has {', '.join(self.variant_ids)}")

    def preferred(self, formats: Sequence[str], precisions: Sequence[str] = ()) -> Variant:
        """Return the variant to run when none is named: the fastest kind in one of the formats that passed the gate.

        Args:
            formats: what the backend reads, what it reads best first.
            precisions: what the device computes best, the best first; empty for the order of the table.

        Raises:
            BundleError: no variant is in any of these formats, or every one of them was rejected.
        """
        usable = [variant for variant in self.manifest.variants if variant.format in formats]
        if not usable:
            raise BundleError(
                f"{self.path}: no variant in the format {' or '.join(formats)}, only "
                f"{', '.join(self.variant_ids)}; install another backend or convert with --formats"
            )
        passed = [variant for variant in usable if variant.rejected is None]
        if not passed:
            reasons = "; ".join(f"{variant.id}: {variant.rejected}" for variant in usable)
            raise BundleError(
                f"{self.path}: every variant that runs here was rejected at conversion ({reasons}); convert with "
                "more varied --calib, or name one with --variant all the same"
            )
        order = tuple(precisions) or tuple(dict.fromkeys(name.partition("-")[2] for name in VARIANT_IDS))

        def rank(variant: Variant) -> tuple[int, int]:
            known = order.index(variant.precision) if variant.precision in order else len(order)
            return known, formats.index(variant.format)

        return min(passed, key=rank)

    def verified_file(self, variant: Variant) -> Path:
        """Return the path of the variant's file, once its SHA-256 has been checked.

        Raises:
            BundleError: the file is absent or is not the one that the manifest describes.
        """
        return self._verified(variant.file, variant.sha256)

    def edge_tpu_file(self, variant: Variant) -> Path:
        """Return the path of what the Edge TPU's compiler made of a variant, once its SHA-256 has been checked.

        Raises:
            UsageError: there is none.
            BundleError: it is absent or changed.
        """
        if variant.edgetpu is None:
            raise UsageError(
                f"device 'edgetpu': {variant.id} was not compiled for it; convert with --target edgetpu, "
                "where edgetpu_compiler is installed, and take the variant tflite-int8-full"
            )
        return self._verified(variant.edgetpu.file, variant.edgetpu.sha256)

    def verify(self) -> None:
        """Check the SHA-256 of every file of the bundle.

        Raises:
            BundleError: a file is absent or changed.
        """
        _ = self.labels
        for variant in self.manifest.variants:
            self.verified_file(variant)
            if variant.edgetpu:
                self.edge_tpu_file(variant)
        for head in self.manifest.sequence.heads if self.manifest.sequence else ():
            self.verified_file(head)

    def _verified(self, name: str, expected_sha256: str) -> Path:
        path = self.path / name
        if Path(name).name != name:
            raise BundleError(f"{self.path / MANIFEST_FILE}: file name {name!r} leaves the bundle; convert again")
        if not path.is_file():
            raise BundleError(f"{path}: missing from the bundle; copy the whole folder again")
        if name in self._verified_files:
            return self._verified_files[name]
        loaded = path if self._copies is None else Path(shutil.copyfile(path, self._copies / name))
        if sha256_file(loaded) != expected_sha256:
            raise BundleError(
                f"{path}: its SHA-256 is not the manifest's, so it changed after conversion; copy the bundle again"
            )
        self._verified_files[name] = loaded
        return loaded


def find_bundle(path: str | Path | None, public_key: str | None = None) -> Bundle:
    """Open the bundle at ``path`` or, without one, the bundle that is meant.

    That is ``$EDGEVID_BUNDLE``, else the only ``*.edgevid`` folder here, else the sample bundle.

    Raises:
        BundleError: there is none, there are several, it cannot be read, or ``public_key`` did not sign it.
    """
    if path is not None:
        return Bundle(path, public_key)
    if from_environment := os.environ.get("EDGEVID_BUNDLE"):
        try:
            return Bundle(from_environment, public_key)
        except BundleError as error:
            raise BundleError(f"EDGEVID_BUNDLE: {error}") from error
    here = sorted(entry for entry in Path().glob(f"*{BUNDLE_SUFFIX}") if entry.is_dir())
    if len(here) > 1:
        names = ", ".join(entry.name for entry in here)
        raise BundleError(f"several bundles here ({names}): name one, or set EDGEVID_BUNDLE")
    if here:
        return Bundle(here[0], public_key)
    sample = sample_bundle_path()
    if sample.is_dir():
        return Bundle(sample, public_key)
    raise BundleError(
        f"no bundle: none named, EDGEVID_BUNDLE is not set, no *{BUNDLE_SUFFIX} folder here, and no sample "
        "bundle; run 'edgevid convert MODEL', or 'edgevid demo' for the sample"
    )


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _private_folder(owner: object) -> Path:
    """Return a folder of this user's alone, which goes with its owner.

    What must be signed is copied there, and verified there: it cannot be exchanged between the check and the loading,
    and nothing that the manifest does not name lies beside it.
    """
    folder = Path(tempfile.mkdtemp(prefix="edgevid-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a bundle's manifest into its folder; one that was there is replaced at once, or not at all.

    Raises:
        BundleError: the folder cannot be written.
    """
    scratch = folder / f".{MANIFEST_FILE}.{os.getpid()}"
    try:
        try:
            scratch.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            scratch.replace(folder / MANIFEST_FILE)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(
            f"{folder / MANIFEST_FILE}: it cannot be written ({error.strerror}); is the bundle yours to change?"
        ) from error


class _Header(msgspec.Struct):
    """The one field that every schema has."""

    schema: int


def _read_manifest(folder: Path, public_key: str | None) -> Manifest:
    path = folder / MANIFEST_FILE
    if not folder.exists():
        raise BundleError(f"{folder}: no such bundle; expected a folder written by 'edgevid convert'")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{folder}: not a bundle, {MANIFEST_FILE} cannot be read ({error.strerror}); "
            "expected a folder written by 'edgevid convert'"
        ) from error
    if public_key is not None:
        from edgevid.signature import check_signature

        check_signature(data, path, public_key)
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
        if schema > SCHEMA:
            raise BundleError(
                f"{path}: schema {schema} is newer than this edgevid reads ({SCHEMA}); "
                "run  pip install --upgrade edgevid"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: damaged manifest ({error}); copy or convert the bundle again") from error

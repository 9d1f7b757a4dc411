"""Who made a bundle: the minisign signature of its manifest, which names the SHA-256 of every other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevid.errors import BundleError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import minisign

__all__ = ["check_signature"]

SUFFIX = ".minisig"


def check_signature(data: bytes, path: Path, public_key: str) -> None:
    """Check that a key signed what was read from a file, by the signature beside it.

    Args:
        data: what the file holds; it is not read again.
        path: the file; its signature has ``.minisig`` after its name, as ``minisign -S`` writes it.
        public_key: a minisign public key, or the path of a file of one.

    Raises:
        BundleError: there is no signature, or it is damaged, by another key, or of something else.
        UsageError: the key is none.
        MissingExtraError: the [signing] extra is not installed.
    """
    try:
        import minisign
    except ImportError as error:
        raise MissingExtraError("a signature", "py-minisign", "signing") from error
    key = _key(minisign, public_key)
    file = path.with_name(f"{path.name}{SUFFIX}")
    try:
        signature = minisign.Signature.from_bytes(file.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{file}: the bundle is not signed ({error.strerror}); sign it with  minisign -Sm {path}"
        ) from error
    except minisign.ParseError as error:
        raise BundleError(f"{file}: no minisign signature ({error}); copy or sign the bundle again") from error
    try:
        key.verify(data, signature)  # the trusted comment as well
    except ValueError as error:
        raise BundleError(
            f"{path}: not signed by the key {public_key!r}, or changed since ({error}); "
            "do not use it, ask who made it for a signed copy"
        ) from error


def _key(module: Any, public_key: str) -> minisign.PublicKey:
    """Return the key that is given as its one line of letters, or as the path of a file."""
    try:
        return module.PublicKey.from_base64(public_key)
    except ValueError:
        pass
    try:
        return module.PublicKey.from_bytes(Path(public_key).read_bytes())
    except OSError as error:
        raise UsageError(
            f"key {public_key!r}: {error.strerror}; expected a minisign public key, or a file such as minisign.pub"
        ) from error
    except ValueError as error:
        raise UsageError(f"key {public_key!r}: no minisign public key ({error}); expected minisign.pub") from error

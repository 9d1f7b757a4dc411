"""Bundles that must be signed: what the owner of the key did not make does not run."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import minisign
import pytest

from edgevid import Bundle, BundleError
from edgevid.bundle import sha256_file
from tests.conftest import Outcome

Cli = Callable[..., Outcome]
MANIFEST, SIGNATURE, VARIANT = "edgevid.json", "edgevid.json.minisig", "tflite-int8.tflite"


@pytest.fixture(scope="module")
def keys() -> minisign.KeyPair:
    return minisign.KeyPair.generate()


@pytest.fixture(scope="module")
def public_key(keys: minisign.KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "minisign.pub"
    path.write_bytes(bytes(keys.public_key) + b"\n")
    return path


@pytest.fixture
def signed(bundle_path: Path, tmp_path: Path, keys: minisign.KeyPair) -> Path:
    """A signed bundle that a test may spoil."""
    folder = Path(shutil.copytree(bundle_path, tmp_path / "signed.edgevid"))
    sign(folder, keys)
    return folder


def sign(folder: Path, keys: minisign.KeyPair, prehash: bool = True) -> None:
    signature = keys.secret_key.sign((folder / MANIFEST).read_bytes(), prehash=prehash, trusted_comment="for room 7")
    (folder / SIGNATURE).write_bytes(bytes(signature) + b"\n")


@pytest.mark.parametrize("prehash", [True, False], ids=["ED", "Ed"])
def test_a_signed_bundle_runs(
    cli: Cli, signed: Path, clip: Path, keys: minisign.KeyPair, public_key: Path, prehash: bool
) -> None:
    sign(signed, keys, prehash)
    for key in (str(public_key), public_key.read_text().splitlines()[1]):
        outcome = cli("run", signed, "--source", clip, "--require-signature", key)
        assert outcome.status == 0, outcome.err
        assert "60 frames" in outcome.out


def edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def spoil_variant(folder: Path) -> None:
    path = folder / VARIANT
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")


def exchange_variant_and_hash(folder: Path) -> None:
    """Forge what SHA-256 alone cannot find out."""
    manifest = json.loads((folder / MANIFEST).read_text())
    spoil_variant(folder)
    for variant in manifest["variants"]:
        variant["sha256"] = sha256_file(folder / variant["file"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / SIGNATURE).unlink(), "the bundle is not signed"),
        (lambda folder: (folder / SIGNATURE).write_text("x"), "no minisign signature"),
        (lambda folder: sign(folder, minisign.KeyPair.generate()), "not signed by the key"),
        (lambda folder: edit(folder / SIGNATURE, b"for room 7", b"for room 8"), "not signed by the key"),
        (lambda folder: edit(folder / MANIFEST, b"colors", b"colons"), "not signed by the key"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not signed by the key"),  # before it is decoded
        (exchange_variant_and_hash, "not signed by the key"),
        (spoil_variant, f"{VARIANT}: its SHA-256 is not the manifest's"),
        (lambda folder: edit(folder / "labels.txt", b"red", b"rot"), "labels.txt: its SHA-256 is not the manifest's"),
    ],
)
def test_what_the_owner_did_not_sign_does_not_run(
    cli: Cli,
    signed: Path,
    clip: Path,
    public_key: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(signed)
    monkeypatch.setenv("EDGEVID_REQUIRE_SIGNATURE", str(public_key))
    outcome = cli("run", signed, "--source", clip)
    assert outcome.status == 1
    assert message in outcome.error
    assert str(signed) in outcome.error


def test_another_key_that_claims_the_same_name_does_not_pass(
    signed: Path, keys: minisign.KeyPair, public_key: Path
) -> None:
    """The number of a key is public: a forger takes the owner's."""
    forger = minisign.KeyPair.generate()
    sign(signed, forger)
    line = (signed / SIGNATURE).read_text().splitlines()[1]
    raw = bytearray(base64.b64decode(line))
    raw[2:10] = base64.b64decode(public_key.read_text().splitlines()[1])[2:10]
    edit(signed / SIGNATURE, line.encode(), base64.b64encode(raw))
    with pytest.raises(BundleError, match="signature verification failed"):
        Bundle(signed, public_key=str(public_key))


def test_what_is_exchanged_after_the_check_is_not_loaded(signed: Path, public_key: Path) -> None:
    bundle = Bundle(signed, public_key=str(public_key))
    variant = bundle.variant("tflite-int8")
    expected = (signed / VARIANT).read_bytes()
    loaded = bundle.verified_file(variant)
    spoil_variant(signed)
    assert loaded.read_bytes() == expected
    assert loaded.suffix == ".tflite"  # by which engines tell formats
    assert loaded.parent.stat().st_mode & 0o077 == 0
    del bundle
    assert not loaded.parent.exists()


@pytest.mark.parametrize("key", ["absent.pub", "LABELS"])
def test_a_key_that_is_none_is_a_wrong_usage(cli: Cli, signed: Path, clip: Path, key: str) -> None:
    key = key.replace("LABELS", str(signed / "labels.txt"))
    outcome = cli("run", signed, "--source", clip, "--require-signature", key)
    assert outcome.status == 2
    assert f"key '{key}': " in outcome.error


def test_without_the_extra_it_says_which_to_install(
    cli: Cli, signed: Path, clip: Path, public_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minisign", None)
    outcome = cli("run", signed, "--source", clip, "--require-signature", public_key)
    assert outcome.status == 1
    assert 'pip install "edgevid[signing]"' in outcome.error


def test_without_being_asked_for_nothing_is_checked(cli: Cli, bundle_path: Path, clip: Path) -> None:
    assert cli("run", bundle_path, "--source", clip).status == 0

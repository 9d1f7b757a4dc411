"""Bundles: found, read, verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevid import Bundle, BundleError, UsageError, find_bundle
from edgevid.manifest import MANIFEST_FILE
from tests.conftest import LABELS, Outcome


@pytest.fixture
def copied(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copied.edgevid"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    change(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_a_bundle_says_what_a_device_needs(bundle: Bundle) -> None:
    assert bundle.labels == LABELS
    manifest = bundle.manifest
    assert manifest.schema == 1
    assert (manifest.input.height, manifest.input.width, manifest.input.color) == (32, 32, "rgb")
    assert manifest.preprocessing.mean == (127.5, 127.5, 127.5)
    assert manifest.value_range == (-1.0, 1.0)
    assert (manifest.output.classes, manifest.output.activation) == (4, "softmax")
    assert manifest.smoothing.window == 8
    assert "tensorflow" in manifest.made_with


def test_inspect_shows_it(cli: Callable[..., Outcome], bundle_path: Path) -> None:
    outcome = cli("inspect", bundle_path)
    assert outcome.status == 0
    for text in ("32×32×3 rgb", "(pixel − 127.5) / 127.5", "4 classes, softmax: red, green, blue", "tflite-int8-full"):
        assert text in outcome.out
    manifest = json.loads(cli("inspect", bundle_path, "--json").out)
    assert manifest == json.loads((bundle_path / MANIFEST_FILE).read_text())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tflite-int8.tflite").write_bytes(b"x"), "its SHA-256 is not the manifest's"),
        (lambda folder: (folder / "labels.txt").write_text("a\nb\nc\nd\n"), "its SHA-256 is not the manifest's"),
        (lambda folder: (folder / "onnx-int8.onnx").unlink(), "missing from the bundle"),
        (lambda folder: (folder / MANIFEST_FILE).unlink(), f"not a bundle, {MANIFEST_FILE} cannot be read"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "damaged manifest"),
        (lambda folder: edit(folder, lambda m: m.pop("labels_sha256")), "damaged manifest.*labels_sha256"),
        (lambda folder: edit(folder, lambda m: m.update(labells=1)), "damaged manifest.*labells"),
        (lambda folder: edit(folder, lambda m: m.update(schema=2)), r"schema 2 is newer than this edgevid reads \(1\)"),
        (lambda folder: edit(folder, lambda m: m["preprocessing"].update(std=[0, 1, 1])), "expected numbers above 0"),
        (lambda folder: edit(folder, lambda m: m["variants"][0].update(file="../x")), "leaves the bundle"),
        (
            lambda folder: edit(folder, lambda m: m["variants"][0].update(id="tflite-int4")),
            "expected one of tflite-int8",
        ),
        (lambda folder: edit(folder, lambda m: m.update(variants=[])), "damaged manifest.*no variants"),
        (lambda folder: edit(folder, lambda m: m.update(schema=0)), "schema 0: expected 1"),
        (lambda folder: edit(folder, lambda m: m["smoothing"].update(window=0)), "window 0: expected"),
        (lambda folder: edit(folder, lambda m: m["input"].update(height=10**9)), "expected 1 to 8192 pixels"),
        (lambda folder: edit(folder, lambda m: m["input"].update(height=31)), r"input of shape \(1, 32, 32, 3\)"),
        (lambda folder: edit(folder, lambda m: m["output"].update(classes=5)), r"output of shape \(1, 4\) for 5"),
        (lambda folder: edit(folder, lambda m: m["preprocessing"].update(mean=[1, 2], std=[1, 2])), "2 channels for 3"),
        (lambda folder: edit(folder, lambda m: m["variants"][5]["input"].update(scale=0)), "int8 with scale 0"),
        (lambda folder: shutil.rmtree(folder), "no such bundle"),
    ],
)
def test_a_spoiled_bundle_is_refused(
    cli: Callable[..., Outcome], copied: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    import re

    spoil(copied)
    outcome = cli("inspect", copied)
    assert outcome.status == 1
    assert re.search(message, outcome.error)
    assert str(copied) in outcome.error


def test_run_refuses_a_changed_file_before_the_engine_sees_it(
    cli: Callable[..., Outcome], copied: Path, clip: Path
) -> None:
    (copied / "tflite-int8.tflite").write_bytes(b"not a model")
    outcome = cli("run", copied, "--source", clip)
    assert outcome.status == 1
    assert "tflite-int8.tflite: its SHA-256 is not the manifest's" in outcome.error


def test_the_bundle_that_is_meant(
    bundle_path: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(BundleError, match=r"no bundle: none named, EDGEVID_BUNDLE is not set.*edgevid demo"):
        find_bundle(None)
    sample = tmp_path / "cache" / "edgevid" / "sample" / "efficientnet-lite0.edgevid"
    shutil.copytree(bundle_path, sample)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_bundle(None).path == sample
    monkeypatch.chdir(tmp_path)
    assert find_bundle(None).path == Path("copied.edgevid")
    shutil.copytree(copied, tmp_path / "other.edgevid")
    with pytest.raises(BundleError, match=r"several bundles here .*copied.edgevid, other.edgevid.*EDGEVID_BUNDLE"):
        find_bundle(None)
    monkeypatch.setenv("EDGEVID_BUNDLE", "absent.edgevid")
    with pytest.raises(BundleError, match=r"EDGEVID_BUNDLE: absent.edgevid: no such bundle"):
        find_bundle(None)
    monkeypatch.setenv("EDGEVID_BUNDLE", str(bundle_path))
    assert find_bundle(None).path == bundle_path
    assert find_bundle("other.edgevid").path == Path("other.edgevid")


def test_an_unknown_variant_names_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"variant 'int8': colors.edgevid has tflite-int8, onnx-int8"):
        bundle.variant("int8")

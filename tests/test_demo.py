"""The sample: the whole product on a real model and a real clip, with the figures that are promised of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgevid import open_source
from edgevid.bundle import Bundle
from edgevid.sample import sample_bundle_path
from tests.conftest import Outcome, read_jsonl

# In this order: the first makes the sample bundle.
pytestmark = [pytest.mark.slow, pytest.mark.sample]
Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the tests' own, so that the first run is a first run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def test_demo_twice(cli: Cli, tmp_path: Path, cache: Path) -> None:
    first = cli("demo", "--output", tmp_path / "demo")
    assert first.status == 0, first.err
    assert "building EfficientNet-Lite0" in first.err
    assert sample_bundle_path().is_relative_to(cache)
    assert sample_bundle_path().with_suffix(".keras").is_file()

    with av.open(str(tmp_path / "demo" / "bikes.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 250
    assert len(read_jsonl((tmp_path / "demo" / "bikes.jsonl").read_text())) == 250
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert all(row["status"] == "ok" for row in report["rows"])

    for name in ("bikes.mp4", "bikes.jsonl", "report.json", "efficientnet-lite0.keras", "efficientnet-lite0.edgevid"):
        assert name in first.out
    assert re.search(r"250 frames in [\d.]+ s, [\d.]+ frames per second", first.out)
    assert re.search(r"^ +0\.00– +[\d.]+ s  \w+", first.out, re.MULTILINE)  # the timeline
    flips = re.search(r"raw (\d+) .*smoothed (\d+) ", first.out)
    assert flips
    raw, smoothed = int(flips[1]), int(flips[2])
    assert raw > 20
    assert smoothed * 3 <= raw

    made = sample_bundle_path().stat().st_mtime_ns
    second = cli("demo", "--output", tmp_path / "demo")
    assert second.status == 0
    assert "using the sample bundle" in second.err
    assert sample_bundle_path().stat().st_mtime_ns == made


def test_the_sample_bundle_is_as_good_as_measured_before() -> None:
    """Floors well under what was measured, to catch a broken conversion and not a noisy one."""
    agreement = {variant.id: variant.parity for variant in Bundle(sample_bundle_path()).manifest.variants}
    floors = {"tflite-fp32": 1.0, "onnx-fp32": 1.0, "tflite-fp16": 0.97, "tflite-int8": 0.80, "onnx-int8": 0.80}
    for variant, floor in floors.items():
        parity = agreement[variant]
        assert parity is not None
        assert parity.top1_agreement >= floor, variant


def test_real_photographs_get_the_right_labels(cli: Cli, keras: Any, tmp_path: Path) -> None:
    """The frames at the end of ``bikes`` show a parked bicycle, full frame."""
    outcome = cli("run", sample_bundle_path(), "--source", "sample:bikes", "--window", 1, "--predictions", "-")
    last = [record["label"] for record in read_jsonl(outcome.out)[-10:]]
    assert last.count("mountain bike") + last.count("tandem bicycle") >= 5, last


@pytest.mark.parametrize(("name", "shape"), [("bigbuckbunny", (720, 1280)), ("carphone", (144, 176))])
def test_the_other_clips_run_and_are_annotated(cli: Cli, tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    video = tmp_path / "out.mp4"
    outcome = cli("run", sample_bundle_path(), "--source", f"sample:{name}", "--save", video)
    assert outcome.status == 0, outcome.err
    with open_source(f"sample:{name}") as original, open_source(video) as annotated:
        pairs = list(zip(original, annotated, strict=True))
        assert original.rate == annotated.rate
    assert pairs[0][1].image.shape[:2] == shape
    assert [a.time for a, _ in pairs] == pytest.approx([b.time for _, b in pairs], abs=1e-3)
    upper = slice(0, shape[0] * 3 // 4)  # above the label: the picture itself
    assert np.abs(pairs[5][0].image[upper].astype(int) - pairs[5][1].image[upper]).mean() < 6

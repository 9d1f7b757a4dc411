"""The accuracy gate, and the search that repairs what it rejects, as a user meets them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgevid.bundle import Bundle
from edgevid.manifest import MANIFEST_FILE
from edgevid_convert.converter import convert_model
from edgevid_convert.options import ConvertOptions
from tests.conftest import LABELS, SIZE, Outcome, picture, write_clip

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
INT8 = ("--precision", "int8")


@pytest.fixture(scope="module")
def fragile(keras: Any, trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that plain int8 breaks: between two scalings of pixels the image is a thousandth of the range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = keras.layers
        image = keras.Input((SIZE, SIZE, 3))
        faint = layers.ReLU()(layers.Rescaling(0.001 / 127.5, offset=0.999)(image))  # 0.999 to 1.001
        model = keras.Model(image, trained(layers.Rescaling(1000.0, offset=-1000.0)(faint)))
        path = tmp_path_factory.mktemp("fragile") / "fragile.keras"
        model.save(path)
    (path.parent / "labels.txt").write_text("\n".join(LABELS))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of all four colours, five frames each in turn."""
    colors = [color for _ in range(4) for color in LABELS for _ in range(5)]
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", colors)


def convert(cli: Cli, fragile: Path, film: Path, output: Path, *more: object) -> Outcome:
    labels = fragile.parent / "labels.txt"
    return cli("convert", fragile, "-o", output, "--labels", labels, "--calib", film, "--window", 2, *more)


def test_a_variant_that_breaks_is_rejected_and_not_run(cli: Cli, fragile: Path, film: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    outcome = convert(cli, fragile, film, output, *INT8, "--formats", "tflite", "--no-search")
    assert outcome.status == 3
    assert "--precision int8: no variant passed the gate (tflite-int8 loses" in outcome.error
    assert "with --max-drop 0.02" in outcome.error
    assert "rejected" in outcome.out
    assert "run takes none of them unless --variant names one" in outcome.out
    assert Bundle(output).variant("tflite-int8").rejected  # it is there all the same, and says what it is
    outcome = cli("run", output, "--source", film)
    assert outcome.status == 1
    assert "every variant that runs here was rejected at conversion (tflite-int8: loses" in outcome.error
    outcome = cli("run", output, "--source", film, "--variant", "tflite-int8")
    assert outcome.status == 0
    assert "rejected at conversion: it loses" in outcome.err


def test_run_takes_the_fastest_that_passed(cli: Cli, fragile: Path, film: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    outcome = convert(cli, fragile, film, output, "--no-search", "--formats", "tflite", "--precision", "fp32,int8")
    assert outcome.status == 3  # int8 was asked for by name
    assert "run takes tflite-fp32: the fastest kind that passed the gate" in outcome.out
    assert "tflite-fp32 on litert" in cli("run", output, "--source", film).err


def test_the_search_repairs_what_the_gate_rejects(cli: Cli, fragile: Path, film: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    outcome = convert(cli, fragile, film, output, *INT8)
    assert outcome.status == 0, outcome.err
    assert "run takes tflite-int8: the fastest kind that passed the gate" in outcome.out
    bundle = Bundle(output)
    bundle.verify()
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.searched > 0
    for variant_id in ("tflite-int8", "onnx-int8"):
        variant = bundle.variant(variant_id)
        assert variant.rejected is None
        assert variant.parity is not None
        assert variant.parity.smoothed_agreement >= 0.98
        search = variant.search
        assert search is not None
        assert search.plain.smoothed_agreement < 0.98
        assert search.in_float
        assert search.sensitivity
        assert search.complete
        assert min(one.loss for one in search.candidates) < max(one.loss for one in search.candidates)
    assert not list(output.glob("plain*"))
    shown = cli("inspect", output, "--layers")
    assert shown.status == 0
    for text in ("layer of tflite-int8", "layer of onnx-int8", "loss saved in float", "× plain int8's latency"):
        assert text in shown.out
    assert "tflite-int8 on litert" in cli("run", output, "--source", film).err


def test_search_can_be_asked_for_and_bounded(cli: Cli, model_file: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    options = ("--mean", 127.5, "--std", 127.5, "--formats", "tflite", *INT8, "--search-minutes", 0.001, "--search")
    outcome = cli("convert", model_file, "-o", output, "--calib", clip, *options)
    assert outcome.status == 0, outcome.err
    search = Bundle(output).variant("tflite-int8").search
    assert search is not None
    assert not search.complete
    plain = tmp_path / "plain.edgevid"
    assert cli("convert", model_file, "-o", plain, "--calib", clip, *options[:-1]).status == 0
    assert Bundle(plain).variant("tflite-int8").search is None  # it passed, so nothing was searched for
    assert "no variant was searched for" in cli("inspect", plain, "--layers").out


def test_the_gate_can_be_opened(cli: Cli, fragile: Path, film: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    outcome = convert(cli, fragile, film, output, *INT8, "--formats", "tflite", "--max-drop", 1)
    assert outcome.status == 0
    assert json.loads((output / MANIFEST_FILE).read_text())["max_drop"] == 1.0
    assert Bundle(output).variant("tflite-int8").rejected is None


def test_with_labels_the_gate_goes_by_accuracy(cli: Cli, fragile: Path, film: Path, tmp_path: Path) -> None:
    for label in LABELS:
        (tmp_path / "truth" / label).mkdir(parents=True)
        for index in range(6):
            cv2.imwrite(str(tmp_path / "truth" / label / f"{index}.png"), picture(label, seed=50 + index))
    output, labelled = tmp_path / "o.edgevid", ("--eval", tmp_path / "truth")
    outcome = convert(cli, fragile, film, output, *INT8, "--formats", "tflite", "--no-search", *labelled)
    assert outcome.status == 3
    assert "less accurate than the Keras model" in outcome.error
    manifest = Bundle(output).manifest
    assert manifest.keras_accuracy is not None
    assert manifest.keras_accuracy.accuracy > 0.95
    assert manifest.variants[0].accuracy is not None
    assert manifest.variants[0].accuracy.accuracy < 0.9


def test_an_interrupted_search_leaves_nothing(
    fragile: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(what: str, done: int, total: int | None) -> None:
        if what.startswith("tflite-int8: "):
            raise KeyboardInterrupt

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    options = ConvertOptions(
        model=fragile, output=tmp_path / "o.edgevid", calib=(str(film),), formats=("tflite",), precisions=("int8",)
    )
    with pytest.raises(KeyboardInterrupt):
        convert_model(options, interrupting)
    assert list(tmp_path.iterdir()) == [scratch]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-drop", 2), "--max-drop 2: expected a share from 0 to 1"),
        (("--max-drop", "nan"), "--max-drop nan: expected a share from 0 to 1"),
        (("--search-minutes", 0), "--search-minutes 0: expected a number above 0"),
        (("--search-minutes", "inf"), "--search-minutes inf: expected a number above 0"),
        (("--seed", -1), "--seed -1: expected 0 or more"),
        (("--search",), "--search needs frames to calibrate on: add --calib"),
    ],
)
def test_options_that_cannot_be_meant(
    cli: Cli, model_file: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", *options)
    assert outcome.status == 2
    assert message in outcome.error


def test_pictures_are_judged_one_by_one(cli: Cli, fragile: Path, tmp_path: Path) -> None:
    for index in range(40):  # one class after the other, which a rolling average would take for a film
        (tmp_path / "pics").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pics" / f"{index}.png"), picture(LABELS[index // 10], seed=index))
    options = (*INT8, "--formats", "tflite", "--no-search")
    outcome = convert(cli, fragile, tmp_path / "pics", tmp_path / "o.edgevid", *options, "--window", 64)
    assert outcome.status == 3
    parity = Bundle(tmp_path / "o.edgevid").variant("tflite-int8").parity
    assert parity is not None
    assert parity.frames == 20
    assert parity.smoothed_agreement == parity.top1_agreement < 1

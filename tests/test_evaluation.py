"""``edgevid convert --eval``: how often the Keras model and its variants are right on labelled data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgevid.bundle import Bundle
from edgevid.manifest import Accuracy
from edgevid_convert.evaluation import LabelledClip, measure_accuracy
from edgevid_convert.frames import Clip
from tests.conftest import LABELS, Outcome, picture, write_clip

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
NORMALIZED = ("--mean", 127.5, "--std", 127.5)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Clips of red and green, pictures of blue, of which two of five are really green, and a sequence of grey."""
    folder = tmp_path / "labelled"
    for name in ("red", "green", "blue", "grey/walk"):
        (folder / name).mkdir(parents=True)
    write_clip(folder / "red" / "a.mp4", ["red"] * 12)
    write_clip(folder / "red" / "b.mp4", ["red"] * 8 + ["blue"] + ["red"] * 3)
    write_clip(folder / "green" / "c.mp4", ["green"] * 12)
    for index in range(5):
        cv2.imwrite(str(folder / "blue" / f"{index}.png"), picture("green" if index < 2 else "blue", seed=index))
    for index in range(6):
        cv2.imwrite(str(folder / "grey" / "walk" / f"{index}.png"), picture("grey", seed=index))
    (folder / "notes.txt").write_text("no class")
    (folder / "red" / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture
def convert(cli: Cli, model_file: Path, labels_file: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Convert the colour model with ``--eval``."""

    def run(*arguments: object) -> Outcome:
        output = ("-o", tmp_path / "o.edgevid", "--labels", labels_file, "--window", 4, "--force")
        formats = () if "--formats" in arguments else ("--formats", "tflite", "--precision", "fp32,fp16")
        return cli("convert", model_file, *output, *formats, *arguments)

    return run


def accuracy(**changes: Any) -> dict[str, Any]:
    right = {"frames": 47, "accuracy": 44 / 47, "smoothed_accuracy": 45 / 47}
    return {**right, "worst_class": "blue", "worst_class_accuracy": 0.6, **changes}


def test_a_folder_with_a_sub_folder_a_class(
    cli: Cli, convert: Callable[..., Outcome], labelled: Path, tmp_path: Path
) -> None:
    outcome = convert(*NORMALIZED, "--eval", labelled)
    assert outcome.status == 0, outcome.err
    assert "of the labelled frames only" not in outcome.err
    manifest = Bundle(tmp_path / "o.edgevid").manifest
    # Three of 47 frames are wrong; the flicker in the red clip is smoothed away, the green pictures called blue not.
    for found in (manifest.keras_accuracy, *(variant.accuracy for variant in manifest.variants)):
        assert isinstance(found, Accuracy)
        assert found.frames == 47
        assert found.accuracy == pytest.approx(44 / 47)
        assert found.smoothed_accuracy == pytest.approx(45 / 47)
        assert found.worst_class == "blue"
        assert found.worst_class_accuracy == pytest.approx(0.6)
    for shown in (outcome.out, cli("inspect", tmp_path / "o.edgevid").out):
        lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
        assert lines["variant"][-5:] == ["smoothed", "accuracy", "worst", "class", "gate"]
        for name, gate in (("Keras", []), ("tflite-fp32", ["passed"])):
            assert lines[name][-4 - len(gate) :] == ["0.936", "0.957", "blue", "0.600", *gate]
        assert "right on 47 labelled frames" in shown


def test_a_csv_names_clips_beside_it(convert: Callable[..., Outcome], labelled: Path, tmp_path: Path) -> None:
    file = labelled / "test.csv"
    rows = ["red/a.mp4,red", "green/c.mp4,green", "blue/4.png, blue", "grey/walk,grey"]
    file.write_text("\n".join(["clip,label,note", *(f"{row},x" for row in rows)]))
    outcome = convert(*NORMALIZED, "--eval", file)
    assert outcome.status == 0, outcome.err
    found = Bundle(tmp_path / "o.edgevid").manifest.keras_accuracy
    assert found == Accuracy(
        frames=12 + 12 + 1 + 6, accuracy=1.0, smoothed_accuracy=1.0, worst_class="green", worst_class_accuracy=1.0
    )


def test_frames_are_bounded(convert: Callable[..., Outcome], labelled: Path, tmp_path: Path) -> None:
    for most, expected in ((27, 3 * 4 + 3 + 5), (3, 3)):
        outcome = convert(*NORMALIZED, "--eval", labelled, "--eval-frames", most)
        assert outcome.status == 0, outcome.err
        found = Bundle(tmp_path / "o.edgevid").manifest.keras_accuracy
        assert found is not None
        assert found.frames == expected


def test_wrong_preprocessing_shows_in_the_accuracy_but_not_in_the_agreement(
    convert: Callable[..., Outcome], labelled: Path, tmp_path: Path
) -> None:
    outcome = convert("--eval", labelled, "--preprocess", "tf", "--color", "bgr")
    assert outcome.status == 0, outcome.err
    assert "of the labelled frames only: was it trained with this --preprocess and --color" in outcome.err
    manifest = Bundle(tmp_path / "o.edgevid").manifest
    assert manifest.variants[0].parity is not None
    assert manifest.variants[0].parity.top1_agreement == 1.0
    assert manifest.keras_accuracy is not None
    assert manifest.keras_accuracy.accuracy < 0.5


def test_without_labelled_data_there_is_no_accuracy(bundle: Bundle, cli: Cli) -> None:
    assert bundle.manifest.keras_accuracy is None
    assert "accuracy" not in cli("inspect", bundle.path).out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (lambda folder: ["--eval", folder / "absent"], 1, "absent: no such file or folder; expected a folder with a"),
        (lambda folder: ["--eval", folder / "red"], 1, "red: no clips and no images in it; expected a folder with a"),
        (
            lambda folder: ["--eval", _with(folder, "gray", "a.mp4")],
            2,
            "the model has no label 'gray' (nearest: 'grey'",
        ),
        (lambda folder: ["--eval", _with(folder, "empty")], 1, "empty: no clips and no images in it"),
        (lambda folder: ["--eval", _csv(folder, "clip;label\nred/a.mp4;red")], 2, "line 2 has no clip or no label"),
        (lambda folder: ["--eval", _csv(folder, "clip,label\nabsent.mp4,red")], 1, "line 2: "),
        (lambda folder: ["--eval", _csv(folder, "clip,label\nred/a.mp4,rot")], 2, "the model has no label 'rot'"),
        (lambda folder: ["--eval", folder, "--calib", folder / "red"], 2, "a.mp4 is in --calib"),
        (lambda folder: ["--eval", folder, "--calib", folder / "red" / "a.mp4"], 2, "too; judge by others"),
        (lambda folder: ["--eval", folder, "--eval-frames", 0], 2, "--eval-frames 0: expected 1 or more"),
        (
            lambda folder: ["--eval", _csv(folder, "clip,label\nred/a.mp4,red\nred/../red/a.mp4,blue")],
            2,
            "red/../red/a.mp4 is labelled 'blue', and",
        ),
        (lambda folder: ["--eval", _csv(folder, "\x00\xff")], 1, "no clips and no images in it"),
    ],
)
def test_bad_labelled_data_is_one_line_and_leaves_nothing(
    convert: Callable[..., Outcome],
    labelled: Path,
    tmp_path: Path,
    arguments: Callable[[Path], list[object]],
    status: int,
    message: str,
) -> None:
    outcome = convert(*NORMALIZED, *arguments(labelled))
    assert outcome.status == status, outcome.err
    assert message in outcome.error
    assert list(tmp_path.glob("*.edgevid")) == []


def test_sigmoids_have_no_top_1(cli: Cli, keras: Any, labelled: Path, tmp_path: Path, labels_file: Path) -> None:
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    keras.Model(image, layers.Dense(len(LABELS), "sigmoid")(hidden)).save(tmp_path / "model.keras")
    outcome = cli("convert", tmp_path / "model.keras", "--labels", labels_file, "--eval", labelled)
    assert outcome.status == 1
    assert "the model ends in sigmoids" in outcome.error
    assert "leave out --eval" in outcome.error


def test_accuracy_counts_what_it_says() -> None:
    rows = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.8, 0.1, 0.1]], np.float32)
    clips = [LabelledClip("cat", Clip([])), LabelledClip("dog", Clip([]))]
    others = np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]], np.float32)
    found = measure_accuracy([rows, others], clips, ("cat", "dog", "cat"), window=2)
    assert found == Accuracy(frames=5, accuracy=0.4, smoothed_accuracy=0.6)  # two classes are "cat", none has 5 frames
    many = measure_accuracy([rows, np.repeat(others, 3, axis=0)], clips, ("cat", "dog", "dog"), window=1)
    assert (many.worst_class, many.worst_class_accuracy) == ("dog", 1.0)
    assert many.accuracy == pytest.approx(8 / 9)


def _with(folder: Path, label: str, clip: str | None = None) -> Path:
    (folder / label).mkdir()
    if clip:
        (folder / label / clip).write_bytes((folder / "red" / "a.mp4").read_bytes())
    return folder


def _csv(folder: Path, text: str) -> Path:
    (folder / "test.csv").write_text(text)
    return folder / "test.csv"


def test_the_manifest_says_it_in_json(convert: Callable[..., Outcome], labelled: Path, tmp_path: Path) -> None:
    assert convert(*NORMALIZED, "--eval", labelled).status == 0
    content = json.loads((tmp_path / "o.edgevid" / "edgevid.json").read_text())
    assert content["schema"] == 1
    assert content["keras_accuracy"] == pytest.approx(accuracy())
    assert content["variants"][0]["accuracy"] == pytest.approx(accuracy())

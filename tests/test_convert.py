"""``edgevid convert``, as a user types it: every kind of model, every variant, and every way to get it wrong."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevid.bundle import Bundle
from edgevid.manifest import MANIFEST_FILE, VARIANT_IDS, Tensor
from edgevid.postprocess import softmax
from edgevid.preprocess import Preprocessor
from edgevid_convert.frames import sample_frames
from edgevid_convert.parity import compare, smoothed_labels
from tests.conftest import Outcome, picture, write_clip

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
FLOAT_ONLY = ("--formats", "tflite", "--precision", "fp32")


@pytest.fixture
def save(keras: Any, tmp_path: Path) -> Callable[[Any], Path]:
    """Save a Keras model to a ``.keras`` file."""

    def to_file(model: Any) -> Path:
        path = tmp_path / "model.keras"
        model.save(path)
        return path

    return to_file


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    return content


def test_every_variant_is_made_and_matches(bundle: Bundle) -> None:
    assert bundle.variant_ids == VARIANT_IDS
    for variant in bundle.manifest.variants:
        parity = variant.parity
        assert parity is not None
        assert parity.data == "held-out"
        assert parity.top1_agreement == 1.0
        assert parity.smoothed_agreement == 1.0
        assert parity.max_abs_error < (1e-4 if variant.precision == "fp32" else 0.2)
    full = bundle.variant("tflite-int8-full")
    assert (full.input.dtype, full.output.dtype) == ("int8", "int8")
    assert full.float_operators == ()
    assert bundle.variant("tflite-int8").input.dtype == "float32"
    sizes = {variant.id: variant.bytes for variant in bundle.manifest.variants}
    assert sizes["tflite-fp16"] < sizes["tflite-fp32"]


def test_calibration_and_judging_never_share_a_frame(bundle: Bundle, clip: Path, images: Path) -> None:
    calibration = bundle.manifest.calibration
    assert calibration is not None
    assert calibration.sources == (clip.name, images.name)
    calibrating = calibration.frames + calibration.near_duplicates
    assert (calibrating, calibration.searched, calibration.held_out) == (15 + 3, 15 + 3, 30 + 6)


def test_near_duplicates_do_not_calibrate_but_judge(tmp_path: Path, bundle: Bundle) -> None:
    import cv2

    for index in range(30):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture("red" if index < 24 else "blue", seed=0))
    as_float = Tensor(shape=(1, 32, 32, 3), dtype="float32")
    preprocessor = Preprocessor(bundle.manifest.input, bundle.manifest.preprocessing, as_float)
    frames = sample_frames([str(tmp_path)], preprocessor, calibration_frames=100)
    assert (len(frames.calibration), frames.near_duplicates, frames.held_out_count) == (2, 6, 15)


def test_a_model_in_one_line(cli: Cli, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("convert", model_file)
    assert outcome.status == 0
    assert [variant["id"] for variant in manifest(tmp_path / "colors.edgevid")["variants"]] == [
        "tflite-fp32",
        "onnx-fp32",
        "tflite-fp16",
        "tflite-dynamic-int8",
    ]
    assert "int8 variants were left out" in outcome.err
    assert "--calib" in outcome.err
    assert "labels are class 0 to class 3" in outcome.err
    assert "grey levels 0–255" in outcome.err
    assert "16 frames of noise, which say nothing of your video" in outcome.out
    for noise in ("tensorflow", "WARNING", "oneDNN", "Saved artifact", "absl"):
        assert noise not in outcome.err + outcome.out
    assert list(tmp_path.iterdir()) == [tmp_path / "colors.edgevid"]  # and nothing temporary
    assert cli("run", "--source", write_clip(tmp_path / "c.mp4", ["red"] * 3)).status == 0  # as it stands there


def test_h5_and_saved_model_give_the_same_bundle(
    cli: Cli, trained: Any, model_file: Path, tmp_path: Path, clip: Path
) -> None:
    trained.save(tmp_path / "model.h5")
    trained.export(tmp_path / "saved", verbose=False)
    answers = []
    for index, model in enumerate((model_file, tmp_path / "model.h5", tmp_path / "saved")):
        output = tmp_path / f"{index}.edgevid"
        outcome = cli("convert", model, "-o", output, *FLOAT_ONLY, "--mean", 127.5, "--std", 127.5)
        assert outcome.status == 0, outcome.err
        answers.append(cli("run", output, "--source", clip, "--predictions", "-").out)
        assert manifest(output)["output"]["activation"] == "softmax"
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(("head", "activation"), [("sigmoid", "sigmoid"), (None, "logits"), ("softmax", "softmax")])
def test_the_activation_is_found(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path, head: str | None, activation: str
) -> None:
    layers = keras.layers
    x = keras.Input((16, 16, 1))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    model = keras.Model(x, layers.Dense(5, head)(hidden))
    outcome = cli("convert", save(model), "-o", tmp_path / "o.edgevid", "--precision", "fp32")
    assert outcome.status == 0, outcome.err
    content = manifest(tmp_path / "o.edgevid")
    assert content["output"] == {"classes": 5, "activation": activation, "binary": False}
    assert content["input"] == {"height": 16, "width": 16, "channels": 1, "color": "grey"}
    for variant in content["variants"]:
        assert variant["parity"]["max_abs_error"] < 1e-4


def test_a_normalization_layer_inside_survives_onnx(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path
) -> None:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    inner = layers.Normalization(mean=[100.0, 120, 130], variance=[400.0, 500, 600])(layers.Rescaling(1.0)(x))
    model = keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inner))))
    outcome = cli("convert", save(model), "-o", tmp_path / "o.edgevid", "--formats", "onnx", "--precision", "fp32")
    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "o.edgevid")["variants"][0]["parity"]["max_abs_error"] < 1e-4


def test_swish_has_a_gradient_of_its_own_and_converts(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path
) -> None:
    layers = keras.layers
    x = keras.Input((24, 24, 3))
    inner = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="swish")(layers.Rescaling(1 / 255)(x)))
    path = save(keras.Model(x, layers.Dense(3, "softmax")(inner)))
    outcome = cli("convert", path, "-o", tmp_path / "o.edgevid", *FLOAT_ONLY)
    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "o.edgevid")["variants"][0]["parity"]["max_abs_error"] < 1e-4


def test_an_open_size_needs_image_size(cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((None, None, 3))
    path = save(keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))))
    outcome = cli("convert", path, "-o", tmp_path / "o.edgevid", *FLOAT_ONLY)
    assert outcome.status == 2
    assert "(?, ?, ?, 3) leaves the size open; give --image-size H,W" in outcome.error
    outcome = cli("convert", path, "-o", tmp_path / "o.edgevid", *FLOAT_ONLY, "--image-size", "24,40")
    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "o.edgevid")["input"]["width"] == 40


def _no_image(keras: Any) -> Any:
    return keras.Sequential([keras.Input((7,)), keras.layers.Dense(3, "softmax")])


def _two_inputs(keras: Any) -> Any:
    a, b = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()([a, b]))
    return keras.Model([a, b], keras.layers.Dense(3, "softmax")(pooled))


def _two_outputs(keras: Any) -> Any:
    x = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(x, [keras.layers.Dense(3, "softmax")(pooled), keras.layers.Dense(2)(pooled)])


def _a_feature_map(keras: Any) -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3)])


def _softmax_of_one(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([keras.Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Dense(1, "softmax")])


def _broken(keras: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")])
    model.layers[-1].bias.assign([np.nan, 0, 0])
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_no_image, "input of shape (?, 7); expected one image"),
        (_two_inputs, "2 inputs (left, right); expected one image input"),
        (_two_outputs, "2 outputs"),
        (_a_feature_map, "expected one score a class, such as (batch, classes)"),
        (_softmax_of_one, "its last layer is a softmax of one unit, which answers 1 whatever it sees"),
        (_broken, "it answers with NaN or infinity to ordinary pictures: its weights are broken"),
    ],
)
def test_a_model_that_is_no_image_classifier(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path, build: Callable[[Any], Any], message: str
) -> None:
    outcome = cli("convert", save(build(keras)), "-o", tmp_path / "o.edgevid")
    assert outcome.status == 1
    assert message in outcome.error
    assert not list(tmp_path.glob("*.edgevid"))


def _file(name: str, data: bytes) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        (folder / name).write_bytes(data)
        return [folder / name]

    return make


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (lambda folder: ["absent.keras"], 1, "absent.keras: no such model; expected a .keras"),
        (_file("text.keras", b"hello\n"), 1, "text.keras: not a Keras model"),
        (
            _file("text.h5", b"hello\n"),
            1,
            "text.h5: not a Keras model; expected a .keras file",
        ),
        (_file("model.pt", b"hello\n"), 1, "model.pt: not a Keras model; expected a .keras file"),
        (
            _file("half.keras", b"PK\x05\x06" + bytes(18)),
            1,
            "half.keras: not a Keras model: an archive without",
        ),
        (lambda folder: [folder], 1, "no saved_model.pb in it"),
        (lambda folder: ["MODEL", "--precision", "int4"], 2, "precision 'int4': expected one or more of fp32,fp16"),
        (lambda folder: ["MODEL", "--formats", "tf,onnx"], 2, "format 'tf': expected one or more of tflite,onnx"),
        (lambda folder: ["MODEL", "--precision", "int8"], 2, "--precision int8 needs frames to calibrate on"),
        (lambda folder: ["MODEL", "--formats", "onnx", "--precision", "fp16"], 2, "no variant is both in the format"),
        (lambda folder: ["MODEL", "--labels", "absent.txt"], 1, "--labels absent.txt: no such file"),
        (lambda folder: ["MODEL", "--labels", *_file("l.txt", b"a\nb\n")(folder)], 1, "2 labels for the model's 4 cl"),
        (lambda folder: ["MODEL", "--labels", *_file("l.txt", b"\xff\xfe\n")(folder)], 2, "not UTF-8 text"),
        (lambda folder: ["MODEL", "--calib", "absent.mp4"], 1, "--calib absent.mp4: no such file or folder"),
        (lambda folder: ["MODEL", "--calib", *_file("e.mp4", b"")(folder)], 1, "e.mp4: the file is empty"),
        (lambda folder: ["MODEL", "--calib", *_file("n.mp4", b"no")(folder)], 1, "n.mp4: it cannot be read as a video"),
        (lambda folder: ["MODEL", "--calib", folder], 1, "no images in it"),
        (lambda folder: ["MODEL", "--calib", write_clip(folder / "1.mp4", ["red"])], 2, "only 1 frame; expected 2 or"),
        (lambda folder: ["MODEL", "--image-size", "16,16"], 2, "--image-size 16,16: the model takes 32,32"),
        (lambda folder: ["MODEL", "--image-size", "16"], 2, "--image-size 16: expected height,width"),
        (lambda folder: ["MODEL", "--mean", "1,2"], 2, "--mean: 2 numbers for 3 channel(s)"),
        (lambda folder: ["MODEL", "--mean", "half"], 2, "'half': expected a number"),
        (lambda folder: ["MODEL", "--mean", "nan"], 2, "'nan': expected a number"),
        (lambda folder: ["MODEL", "--image-size", "inf,1"], 2, "'inf,1': expected a number"),
        (lambda folder: ["MODEL", "--formats", ""], 2, "format '': expected one or more of tflite,onnx"),
        (lambda folder: ["MODEL", "--std", "0"], 2, "expected numbers above 0"),
        (lambda folder: ["MODEL", "--window", "0"], 2, "window 0: expected a whole number"),
        (lambda folder: ["MODEL", "-o", folder / "out"], 2, "expected a name ending in .edgevid"),
        (lambda folder: ["MODEL", "-o", folder / "absent" / "o.edgevid"], 1, "absent cannot be written; use --output"),
        (lambda folder: ["MODEL", "-o", "/proc/o.edgevid"], 1, "the folder /proc cannot be written ("),
        (lambda folder: ["MODEL", "--formats"], 2, "requires an argument"),
        (lambda folder: [], 2, "Missing argument 'MODEL'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    cli: Cli,
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Callable[[Path], list[object]],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [model_file if argument == "MODEL" else argument for argument in arguments(tmp_path)]
    before = set(tmp_path.iterdir())
    outcome = cli("convert", *given)
    assert outcome.status == status, outcome.err
    assert message in outcome.error
    assert set(tmp_path.iterdir()) == before


def test_an_existing_bundle_is_kept_unless_forced(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    assert cli("convert", model_file, "-o", output, *FLOAT_ONLY).status == 0
    made = output.stat().st_ino
    outcome = cli("convert", model_file, "-o", output, *FLOAT_ONLY)
    assert outcome.status == 1
    assert "it exists already; name another with --output, or use --force" in outcome.error
    assert output.stat().st_ino == made
    assert cli("convert", model_file, "-o", output, *FLOAT_ONLY, "--force").status == 0
    assert output.stat().st_ino != made
    assert list(tmp_path.iterdir()) == [output]
    assert sorted(path.name for path in output.iterdir()) == [MANIFEST_FILE, "labels.txt", "tflite-fp32.tflite"]


def test_force_replaces_bundles_only(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.edgevid"
    output.mkdir()
    (output / "precious").write_text("x")
    outcome = cli("convert", model_file, "-o", output, *FLOAT_ONLY, "--force")
    assert outcome.status == 1
    assert "it exists and is no bundle, so --force keeps it" in outcome.error
    assert (output / "precious").exists()


def test_on_a_terminal_there_is_progress_and_no_noise(model_file: Path, clip: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgevid", "convert", str(model_file), "-o", str(tmp_path / "o.edgevid")]
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*command, "--calib", str(clip)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so when the other end closes
            while block := os.read(controller, 65536):
                shown += block
    os.close(controller)
    assert process.returncode == 0
    text = shown.decode()
    for step in ("loading the model", "converting to"):  # the others can be over between two looks at the bar
        assert step in text
    for noise in ("tensorflow:", "WARNING", "INFO", "deprecated", "oneDNN", "Saved artifact", "%|"):
        assert noise not in text


def test_a_variant_that_cannot_be_expressed_is_left_out_unless_it_was_named(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path
) -> None:
    """The inverse of the error function: neither TFLite nor ONNX has it."""
    x = keras.Input((16, 16, 3))
    hidden = keras.ops.erfinv(0.5 * keras.ops.tanh(keras.layers.Conv2D(8, 3)(x)))
    path = save(keras.Model(x, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(hidden))))
    outcome = cli("convert", path, "-o", tmp_path / "n.edgevid", "--formats", "tflite")
    assert outcome.status == 1
    assert "it can be converted to nothing; TFLite has no operator for " in outcome.error
    assert "Erfinv" in outcome.error
    outcome = cli("convert", path, "-o", tmp_path / "n.edgevid", "--precision", "fp32")
    assert outcome.status == 1
    assert "leave it out with --formats or --precision" in outcome.error
    assert not list(tmp_path.glob("*.edgevid"))


def test_a_softmax_that_is_not_the_last_layer_is_not_applied_twice(
    cli: Cli, keras: Any, save: Callable[[Any], Path], tmp_path: Path
) -> None:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    head = layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
    outcome = cli(
        "convert", save(keras.Model(x, layers.Rescaling(1.0)(head))), "-o", tmp_path / "o.edgevid", *FLOAT_ONLY
    )
    assert outcome.status == 0
    assert manifest(tmp_path / "o.edgevid")["output"]["activation"] == "softmax"


def test_a_std_for_pixels_of_0_to_1_is_remarked(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    numbers = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", *FLOAT_ONLY, *numbers)
    assert outcome.status == 0
    assert "multiply --mean and --std by 255" in outcome.err
    assert "int8 variants were left out" not in outcome.err  # fp32 was asked for by name


def test_calib_takes_a_folder_of_clips_and_the_model_anywhere(
    cli: Cli, model_file: Path, clip: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_bytes(clip.read_bytes())
    output = tmp_path / "o.edgevid"
    outcome = cli(
        "convert", "-o", output, "--formats", "tflite", "--precision", "int8", "--calib", clips, clip, model_file
    )
    assert outcome.status == 0, outcome.err
    calibration = manifest(output)["calibration"]
    assert calibration["sources"] == ["clips", "colors.mp4"]
    assert calibration["held_out"] == 90


def test_parity_counts_what_it_says() -> None:
    reference = np.array([[0.9, 0.1, 0], [0.52, 0.48, 0], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]], np.float32)
    candidate = np.array([[0.8, 0.2, 0], [0.48, 0.52, 0], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]], np.float32)
    parity = compare([reference], [candidate], [1.0], window=1, data="held-out")
    assert parity.top1_agreement == 0.75
    assert parity.confident_agreement == 1.0  # the frame that differs was a toss-up
    assert parity.smoothed_agreement == 0.75
    assert parity.max_abs_error == pytest.approx(0.1)
    assert (parity.kl_divergence or 0) > 0
    same = compare([reference], [reference], [1.0], window=4, data="held-out")
    assert (same.top1_agreement, same.smoothed_agreement, same.max_abs_error) == (1.0, 1.0, 0.0)
    assert same.kl_divergence == pytest.approx(0, abs=1e-6)
    # Every third frame only, so the window holds a third as many.
    assert smoothed_labels(reference, window=6, spacing=3.0).tolist() == [0, 0, 1, 1]


def test_softmax_is_safe_against_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0], np.float32)), [0.5, 0.5])


def test_a_model_that_mixes_frames_takes_one_at_a_time(
    cli: Callable[..., Outcome], keras: Any, tmp_path: Path, clip: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own, against NumPy
        image = keras.Input((32, 32, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
        mixed = pooled + keras.ops.mean(pooled, axis=0, keepdims=True)
        model = keras.Model(image, keras.layers.Dense(4, "softmax")(mixed))
        model.save(tmp_path / "mixing.keras")
    output = tmp_path / "mixing.edgevid"
    assert cli("convert", tmp_path / "mixing.keras", "-o", output, "--precision", "fp32").status == 0
    assert not Bundle(output).variant("tflite-fp32").free_batch
    outcome = cli("run", output, "--source", clip, "--variant", "tflite-fp32", "--batch", 4)
    assert outcome.status == 2
    assert "batch 4: tflite-fp32 takes one frame at a time" in outcome.error

"""``edgevid pack``: a bundle of a file that is converted already answers as the bundle that the file came from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgevid.backends import BackendOptions
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.engine import Engine
from edgevid.manifest import VARIANT_IDS
from tests.conftest import COLORS, LABELS, Outcome, picture

Cli = Callable[..., Outcome]
NORMALIZED = ("--mean", 127.5, "--std", 127.5)


def answers(bundle: Bundle, variant_id: str) -> list[np.ndarray]:
    backend, variant = choose_backend(bundle, variant_id=variant_id)
    engine = Engine(bundle, variant, backend, BackendOptions(threads=1))
    return [engine(picture(color, seed=3)) for color in COLORS]


@pytest.mark.parametrize("variant_id", VARIANT_IDS)
def test_it_answers_as_before(cli: Cli, bundle: Bundle, labels_file: Path, tmp_path: Path, variant_id: str) -> None:
    file = bundle.path / bundle.variant(variant_id).file
    output = tmp_path / "packed.edgevid"
    outcome = cli("pack", file, "-o", output, "--labels", labels_file, "--preprocess", "tf")
    assert outcome.status == 0, outcome.err
    assert f"{variant_id}: " in outcome.out
    assert "input 32×32×3 rgb, 4 classes, softmax" in outcome.out
    packed = Bundle(output)
    packed.verify()
    assert packed.labels == LABELS
    (variant,) = packed.manifest.variants
    assert (variant.input, variant.output) == (bundle.variant(variant_id).input, bundle.variant(variant_id).output)
    assert variant.free_batch
    for mine, original in zip(answers(packed, variant_id), answers(bundle, variant_id), strict=True):
        np.testing.assert_array_equal(mine, original)


@pytest.fixture
def channels_first(bundle: Bundle, tmp_path: Path) -> Path:
    """The fp32 ONNX file as PyTorch would have written it: its input is (1, 3, 32, 32)."""
    model = onnx.load(bundle.path / bundle.variant("onnx-fp32").file)
    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["image_last" if each == name else each for each in node.input]
    graph.node.insert(0, onnx.helper.make_node("Transpose", [name], ["image_last"], perm=[0, 2, 3, 1]))
    dimensions = graph.input[0].type.tensor_type.shape.dim
    dimensions[1].dim_value, dimensions[3].dim_value = 3, 32
    path = tmp_path / "torch.onnx"
    onnx.save(model, path)
    return path


def test_channels_may_come_first(cli: Cli, bundle: Bundle, channels_first: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "torch.edgevid"
    assert cli("pack", channels_first, "-o", output, *NORMALIZED).status == 0
    packed = Bundle(output)
    assert packed.manifest.variants[0].input.channels_first
    assert packed.manifest.variants[0].input.shape == (1, 3, 32, 32)
    assert packed.labels == ("class 0", "class 1", "class 2", "class 3")
    for mine, original in zip(answers(packed, "onnx-fp32"), answers(bundle, "onnx-fp32"), strict=True):
        np.testing.assert_allclose(mine, original, atol=1e-6)
    for backend in ("onnxruntime", "openvino", "null"):
        assert cli("run", output, "--source", clip, "--backend", backend, "--batch", 4).status == 0


def test_a_size_that_is_open_is_asked_for(cli: Cli, channels_first: Path, tmp_path: Path) -> None:
    model = onnx.load(channels_first)
    for index in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = f"side{index}"
    onnx.save(model, tmp_path / "open.onnx")
    outcome = cli("pack", tmp_path / "open.onnx", "-o", tmp_path / "o.edgevid", *NORMALIZED)
    assert outcome.status == 2
    assert "it leaves its image size open; give it with --image-size H,W" in outcome.error
    assert cli("pack", tmp_path / "open.onnx", "-o", tmp_path / "o.edgevid", "--image-size", "32,32").status == 0
    outcome = cli("pack", channels_first, "-o", tmp_path / "p.edgevid", "--image-size", "64,64")
    assert outcome.status == 2
    assert "--image-size 64,64: " in outcome.error


def test_logits_are_told_by_the_answers(cli: Cli, bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle.path / bundle.variant("onnx-fp32").file)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output[0].name = softmax.input[0]
    model.graph.node.remove(softmax)
    onnx.save(model, tmp_path / "logits.onnx")
    outcome = cli("pack", tmp_path / "logits.onnx", "-o", tmp_path / "logits.edgevid", *NORMALIZED)
    assert outcome.status == 0, outcome.err
    assert "4 classes, logits" in outcome.out
    for mine, original in zip(
        answers(Bundle(tmp_path / "logits.edgevid"), "onnx-fp32"), answers(bundle, "onnx-fp32"), strict=True
    ):
        np.testing.assert_allclose(mine, original, atol=1e-5)


def test_bad_input_is_one_line_and_leaves_nothing(
    cli: Cli, bundle: Bundle, model_file: Path, labels_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"TFL3 this is no model" * 100)
    (tmp_path / "bad.onnx").write_bytes(b"this is no model" * 100)
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    onnx_file = bundle.path / bundle.variant("onnx-fp32").file
    before = sorted(tmp_path.iterdir())
    for arguments, status, message in (
        ([tmp_path / "bad.tflite"], 1, "bad.tflite: LiteRT cannot load it"),
        ([tmp_path / "bad.onnx"], 1, "bad.onnx: ONNX Runtime cannot load it"),
        ([tmp_path / "absent.onnx"], 1, "absent.onnx: no such file"),
        ([model_file], 1, "expected a .tflite or .onnx file; for a Keras model use edgevid convert"),
        ([onnx_file, "--labels", tmp_path / "three.txt"], 1, "3 labels for the model's 4 classes"),
        ([onnx_file, "--mean", "1,2"], 2, "--mean: 2 numbers for 3 channel(s)"),
        ([onnx_file, "--image-size", "1,2,3"], 2, "--image-size: expected height,width"),
        ([onnx_file, "-o", tmp_path / "name"], 2, "expected a name ending in .edgevid"),
    ):
        outcome = cli("pack", *arguments, *(() if "-o" in arguments else ("-o", tmp_path / "o.edgevid")))
        assert message in outcome.error
        assert outcome.status == status
        assert sorted(tmp_path.iterdir()) == before


def test_a_bundle_is_replaced_only_with_force(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    file, output = bundle.path / bundle.variant("tflite-fp32").file, tmp_path / "o.edgevid"
    assert cli("pack", file, "-o", output).status == 0
    outcome = cli("pack", file, "-o", output)
    assert outcome.status == 1
    assert "it exists already; name another with --output, or use --force" in outcome.error
    assert cli("pack", file, "-o", output, "--force").status == 0


def test_packing_loads_no_tensorflow(bundle: Bundle, tmp_path: Path) -> None:
    file = bundle.path / bundle.variant("onnx-fp32").file
    code = f"""
import sys
from edgevid.cli import main
try:
    main(["pack", {str(file)!r}, "-o", {str(tmp_path / "o.edgevid")!r}])
except SystemExit as end:
    assert end.code == 0
assert not {{"tensorflow", "keras", "tf2onnx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

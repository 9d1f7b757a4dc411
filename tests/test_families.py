"""Families of Keras classifiers through ``edgevid convert``: right numbers, a clean graph, and what targets ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgevid.bundle import Bundle
from edgevid.errors import ModelError
from edgevid.manifest import VARIANT_IDS
from edgevid_bench.studies.coverage import Outcome, try_family
from edgevid_bench.studies.families import FAMILIES, make_realistic, pictures
from tests.conftest import Outcome as CommandOutcome

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., CommandOutcome]
SIZE = 32


@pytest.fixture(scope="session")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated pictures."""
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(pictures(9, SIZE)):
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    return folder


@pytest.fixture
def convert(cli: Cli, calib: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """Give a model realistic weights, save it, and convert it through the command line, which must succeed."""

    def to_bundle(model: Any, *arguments: object) -> Bundle:
        make_realistic(model, np.stack(pictures(8, SIZE)).astype(np.float32))
        model.save(tmp_path / "model.keras")
        model_file, output = tmp_path / "model.keras", tmp_path / "o.edgevid"
        outcome = cli("convert", model_file, "-o", output, "--calib", calib, "--no-search", "--max-drop", 1, *arguments)
        assert outcome.status == 0, outcome.err
        return Bundle(tmp_path / "o.edgevid")

    return to_bundle


def hard_swish_net(keras: Any, size: int | None = SIZE) -> Any:
    """What MobileNetV3 is made of: hard-swish, squeeze-excite with hard-sigmoid, batch normalization, a residual."""
    layers = keras.layers
    x = keras.Input((size, size, 3))
    hidden = layers.Rescaling(1 / 127.5, -1.0)(x)
    hidden = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(hidden)
    hidden = before = layers.Activation("hard_swish")(layers.BatchNormalization()(hidden))
    hidden = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(hidden))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(hidden)
    squeezed = layers.Conv2D(8, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="relu")(squeezed))
    hidden = layers.Add()([before, layers.Multiply()([hidden, squeezed])])
    return keras.Model(x, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(hidden)))


def swish_net(keras: Any) -> Any:
    """What EfficientNet is made of: Normalization inside, swish, squeeze-excite by way of a Reshape, odd padding."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 3))
    hidden = layers.Normalization(mean=[120.0, 110, 100], variance=[3000.0, 3100, 3200])(layers.Rescaling(1.0)(x))
    hidden = layers.Conv2D(8, 3, 2, use_bias=False)(layers.ZeroPadding2D(((0, 1), (0, 1)))(hidden))
    hidden = before = layers.Activation("swish")(layers.BatchNormalization()(hidden))
    hidden = layers.BatchNormalization()(layers.DepthwiseConv2D(5, padding="same", use_bias=False)(hidden))
    squeezed = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(hidden))
    squeezed = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="swish")(squeezed))
    hidden = layers.Add()([before, layers.Multiply()([hidden, squeezed])])
    return keras.Model(x, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(hidden)))


def grouped_net(keras: Any) -> Any:
    """Grouped convolutions of every kind: two channels a group, one (with and without a multiplier), strides."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 3))
    hidden = layers.Conv2D(8, 3)(layers.Rescaling(1 / 127.5, -1.0)(x))
    hidden = layers.Conv2D(12, 3, groups=4, activation="relu")(hidden)
    hidden = layers.Conv2D(12, 3, groups=12, padding="same")(hidden)
    hidden = layers.Conv2D(24, 3, 2, groups=12, activation="relu", padding="same")(hidden)
    return keras.Model(x, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(hidden)))


def convnext(keras: Any) -> Any:
    """The real thing with one block a stage: layer normalization, GELU, one group a channel, layer scale."""
    from keras.src.applications.convnext import ConvNeXt

    return ConvNeXt(
        depths=[1, 1, 1, 1], projection_dims=[8, 12, 16, 20], weights=None, classes=5, input_shape=(SIZE, SIZE, 3)
    )


@pytest.fixture
def block(keras: Any, convert: Callable[..., Bundle], blocks: dict[str, Bundle], kept: Path) -> Callable[..., Bundle]:
    """Convert one of the networks above, with random weights, to every variant: once for all tests."""

    def to_bundle(net: Callable[[Any], Any]) -> Bundle:
        if net.__name__ not in blocks:
            keras.utils.set_random_seed(1)  # random weights may quantize badly
            made = convert(net(keras))
            blocks[net.__name__] = Bundle(shutil.copytree(made.path, kept / f"{net.__name__}.edgevid"))
        return blocks[net.__name__]

    return to_bundle


@pytest.fixture(scope="module")
def blocks() -> dict[str, Bundle]:
    return {}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


def onnx_operators(bundle: Bundle, variant_id: str) -> Counter[str]:
    graph = onnx.load(bundle.path / bundle.variant(variant_id).file).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize(
    "net", [hard_swish_net, swish_net, grouped_net, pytest.param(convnext, marks=pytest.mark.slow)]
)
def test_every_variant_of_every_building_block(net: Any, block: Callable[..., Bundle]) -> None:
    bundle = block(net)
    assert bundle.manifest.left_out == {}
    assert bundle.variant_ids == VARIANT_IDS
    for variant in bundle.manifest.variants:
        assert variant.parity
        assert variant.parity.max_abs_error < (1e-4 if variant.precision == "fp32" else 0.35), variant.id
    assert bundle.variant("tflite-int8-full").float_operators == ()


@pytest.mark.parametrize("net", [hard_swish_net, swish_net, grouped_net])
def test_a_plain_network_has_a_clean_onnx_graph(net: Any, block: Callable[..., Bundle]) -> None:
    bundle = block(net)
    for variant_id in ("onnx-fp32", "onnx-int8"):
        operators = onnx_operators(bundle, variant_id)
        assert operators["Transpose"] <= 2
        assert operators["BatchNormalization"] == operators["Pad"] == operators["Identity"] == 0
        model = onnx.load(bundle.path / bundle.variant(variant_id).file)
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version <= 8
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
        assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "output"]
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    inputs = {made_by[node.input[0]] for node in model.graph.node if node.op_type == "Conv"}
    assert inputs == {"DequantizeLinear"}  # with no Transpose between


def test_hard_activations_are_operators_of_onnx(block: Callable[..., Bundle]) -> None:
    operators = onnx_operators(block(hard_swish_net), "onnx-fp32")
    assert (operators["HardSwish"], operators["HardSigmoid"], operators["Clip"]) == (1, 1, 0)


def test_squeeze_and_excite_needs_no_reshapes(block: Callable[..., Bundle]) -> None:
    operators = onnx_operators(block(swish_net), "onnx-fp32")
    assert operators["Reshape"] + operators["Squeeze"] + operators["Unsqueeze"] <= 1  # before the dense layer
    assert operators["Transpose"] <= 1


def test_a_grouped_convolution_is_one_convolution(block: Callable[..., Bundle]) -> None:
    bundle = block(grouped_net)
    graph = onnx.load(bundle.path / bundle.variant("onnx-fp32").file).graph
    groups = [
        attribute.i
        for node in graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert groups == [1, 4, 12, 12]


def tflite_operators(bundle: Bundle, variant_id: str) -> dict[str, int]:
    from edgevid_convert.targets import operator_versions

    return operator_versions(bundle.path / bundle.variant(variant_id).file)


def test_every_tflite_file_names_its_input_and_output(bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import Interpreter

    for variant in bundle.manifest.variants:
        if variant.format == "tflite":
            interpreter = Interpreter(model_path=str(bundle.path / variant.file))
            assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["output"]}}
            classify = interpreter.get_signature_runner("serving_default")
            image = np.zeros((1, 32, 32, 3), variant.input.dtype)
            assert classify(image=image)["output"].shape == (1, 4)


def test_operators_that_a_format_lacks_are_named(cli: Cli, keras: Any, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 4)), tf.float32)

    class Odd(tf.Module):  # type: ignore[misc]  # TensorFlow publishes no types
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, image: Any) -> Any:
            odd = tf.math.bessel_i0(image / 255) + tf.math.igamma(image / 255 + 1, image / 255 + 2)
            return {"scores": tf.nn.softmax(tf.matmul(tf.reduce_mean(odd, [1, 2]), kernel))}

    odd = Odd()
    tf.saved_model.save(odd, str(tmp_path / "odd"), signatures=odd.__call__.get_concrete_function())
    for format_, what in (("tflite", "TFLite"), ("onnx", "ONNX")):
        arguments = ["--formats", format_, "--precision", "fp32"]
        outcome = cli("convert", tmp_path / "odd", "-o", tmp_path / "o.edgevid", *arguments)
        assert outcome.status == 1
        assert f"{format_}-fp32: {what} has no operator for BesselI0, Igamma; leave it out" in outcome.error


def test_int8_full_is_integers_only_or_is_left_out(cli: Cli, keras: Any, calib: Path, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 3))
    hidden = layers.Activation("exponential")(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(x)))
    hidden = layers.Rescaling(0.1)(keras.ops.sin(hidden))
    keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(hidden))).save(tmp_path / "m.keras")
    outcome = cli(
        "convert", tmp_path / "m.keras", "-o", tmp_path / "o.edgevid", "--calib", calib, "--formats", "tflite"
    )
    assert outcome.status == 0, outcome.err
    assert "tflite-int8-full was left out: TFLite has SIN in float only" in outcome.err
    outcome = cli(
        "convert", tmp_path / "m.keras", "-o", tmp_path / "n.edgevid", "--calib", calib, "--precision", "int8-full"
    )
    assert outcome.status == 1
    assert "tflite-int8-full: TFLite has SIN in float only; leave it out" in outcome.error


def test_files_for_tflite_runtime_have_operators_that_it_loads(keras: Any, convert: Any, tmp_path: Path) -> None:
    from edgevid_convert.targets import fit_to_target

    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3)(layers.Rescaling(1 / 255)(x)))
    model = keras.Model(x, layers.Dense(64, "softmax")(layers.Dense(64, "relu")(hidden)))
    plain = convert(model, "--formats", "tflite", "--precision", "dynamic-int8")
    variant = plain.variant("tflite-dynamic-int8")
    with pytest.raises(
        ModelError, match=r"dynamic-int8: tflite-runtime 2.14 does not load FULLY_CONNECTED version 12 "
    ):
        fit_to_target(variant, "tflite-runtime", plain.path)
    suited = convert(model, "--formats", "tflite", "--target", "tflite-runtime", "--force")
    assert suited.variant_ids == tuple(name for name in VARIANT_IDS if name.startswith("tflite"))
    for name in suited.variant_ids:
        assert fit_to_target(suited.variant(name), "tflite-runtime", suited.path) == suited.variant(name)
    assert tflite_operators(suited, "tflite-dynamic-int8")["FULLY_CONNECTED"] <= 10


COMPILER = """#!{python}
import pathlib, sys
_, flag, option, folder, file = sys.argv
assert (flag, option) == ("-s", "-o"), sys.argv
stem = pathlib.Path(file).stem
assert pathlib.Path(file).read_bytes()[4:8] == b"TFL3"
if {broken}:
    print("Edge TPU Compiler version 16.0.384591198")
    print("Invalid model: " + file)
    print("Model not quantized")
    sys.exit(1)
pathlib.Path(folder, stem + "_edgetpu.tflite").write_bytes(pathlib.Path(file).read_bytes() + b"compiled")
report = "Number of operations that will run on Edge TPU: 5\\nNumber of operations that will run on CPU: 1\\n"
pathlib.Path(folder, stem + "_edgetpu.log").write_text(report)
print("Model compiled successfully in 12 ms.")
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Put a script on the PATH that behaves like Google's compiler, on a good day or a bad one."""

    def install(broken: bool) -> None:
        script = tmp_path / "bin" / "edgetpu_compiler"
        script.parent.mkdir()
        script.write_text(COMPILER.format(python=sys.executable, broken=broken))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)

    return install


EDGE_TPU = ("--mean", 127.5, "--std", 127.5, "--target", "edgetpu", "--formats", "tflite", "--precision", "int8-full")


def test_a_model_is_compiled_for_the_edge_tpu(
    cli: Cli, model_file: Path, clip: Path, tmp_path: Path, compiler: Callable[[bool], None]
) -> None:
    compiler(False)
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--calib", clip, *EDGE_TPU)
    assert outcome.status == 0, outcome.err
    made = Bundle(tmp_path / "o.edgevid")
    compiled = made.variant("tflite-int8-full").edgetpu
    assert compiled
    assert (compiled.mapped_operators, compiled.cpu_operators) == (5, 1)
    assert "edgetpu_compiler is not installed" not in outcome.err
    assert sorted(path.suffix for path in made.path.iterdir()) == [".json", ".tflite", ".tflite", ".txt"]
    made.verify()
    (made.path / compiled.file).write_bytes(b"damaged")
    assert compiled.file in cli("inspect", made.path).error


def test_without_its_compiler_the_edge_tpu_gets_its_file_and_a_word(
    cli: Cli, model_file: Path, clip: Path, tmp_path: Path
) -> None:
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--calib", clip, *EDGE_TPU)
    assert outcome.status == 0, outcome.err
    assert "edgetpu_compiler is not installed here: run  edgetpu_compiler " in outcome.err
    assert Bundle(tmp_path / "o.edgevid").variant("tflite-int8-full").edgetpu is None


def test_a_compiler_that_fails_fails_the_conversion(
    cli: Cli, model_file: Path, clip: Path, tmp_path: Path, compiler: Callable[[bool], None]
) -> None:
    compiler(True)
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--calib", clip, *EDGE_TPU)
    assert outcome.status == 1
    assert "tflite-int8-full: edgetpu_compiler cannot compile it: Invalid model: " in outcome.error
    assert not (tmp_path / "o.edgevid").exists()


@pytest.mark.parametrize("arguments", [(), ("--formats", "onnx", "--calib", "CLIP")])
def test_the_edge_tpu_takes_int8_full_alone(
    cli: Cli, model_file: Path, clip: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    given = [clip if argument == "CLIP" else argument for argument in arguments]
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--target", "edgetpu", *given)
    assert outcome.status == 2
    assert "--target edgetpu takes tflite-int8-full alone, which is not asked for" in outcome.error


def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgevid_bench.studies.coverage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_coverage_refuses_what_it_does_not_know() -> None:
    process = coverage("--families", "mobilenet,lenet")
    assert process.returncode == 2
    assert "'lenet': expected some of xception, vgg" in process.stderr


def test_a_family_that_crashes_is_a_row_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "no such allocator")  # Python itself gives up on that
    assert try_family("mobilenet", 96, ["onnx-fp32"]) == [
        Outcome("mobilenet", "onnx-fp32", "the process ended with status 1")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenet_v3"])
def test_a_family_of_keras_applications_converts(family: str, tmp_path: Path) -> None:
    process = coverage("--families", family, "--output", str(tmp_path / "coverage.md"))
    assert process.returncode == 0, process.stderr
    table = (tmp_path / "coverage.md").read_text(encoding="utf-8")
    assert table == process.stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] == FAMILIES[family].member]
    assert {row[1] for row in rows} >= {"tflite-fp32", "onnx-fp32", "onnx-int8"}
    for _, variant, verdict, error, _, transposes, _ in rows:
        assert verdict == "ok"
        assert float(error) < (1e-4 if variant.endswith("fp32") else 1.0)
        assert int(transposes) <= 2

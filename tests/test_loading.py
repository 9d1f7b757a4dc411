"""Every kind of Keras file becomes the same thing, one graph of one channels-last image; and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevid.bundle import Bundle
from edgevid.errors import ModelError, UsageError
from edgevid.manifest import VARIANT_IDS
from edgevid_convert.loading import child as load_child
from edgevid_convert.loading.model import FrozenModel, Request, load_model, read_frozen
from tests.conftest import Outcome

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
FLOAT_ONLY = ("--formats", "tflite", "--precision", "fp32")
CUSTOM = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.factor

class Classifier(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.first = Scale(), keras.layers.Conv2D(4, 3, activation="relu")
        self.pool, self.head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax")

    def call(self, x, training=False):
        return self.head(self.pool(self.first(self.scale(x))))
"""


def loaded(path: Path, folder: Path, image_size: tuple[int, int] | None = None) -> FrozenModel:
    """Load a model with the child's own steps, here: the process around them costs seconds, and is tested below."""
    request = Request(path=str(path), image_size=image_size, custom_objects=None, trust=False, memory_gb=4.0)
    facts = load_child.load(request, folder)
    return read_frozen(facts, folder)


def noise(height: int = 16, width: int = 16, channels: int = 3) -> Any:
    return np.random.default_rng(1).integers(0, 256, (1, height, width, channels)).astype(np.float32)


def check_graph(model: FrozenModel) -> None:
    """Check what everything after loading builds on."""
    nodes = {node.name: node for node in model.graph.node}
    placeholders = [node for node in nodes.values() if node.op == "Placeholder"]
    assert [node.name for node in placeholders] == ["image"]
    sizes = [dimension.size for dimension in placeholders[0].attr["shape"].shape.dim]
    assert sizes == [1, model.height, model.width, model.channels]
    assert nodes["output"].op == "Identity"
    assert not model.graph.library.function
    assert model(noise(model.height, model.width, model.channels)).shape == (1, model.classes)
    for node in nodes.values():
        assert "Random" not in node.op
        assert "Variable" not in node.op
        assert "Call" not in node.op
        assert node.attr["data_format"].s != b"NCHW"


def _sequential(keras: Any) -> Any:
    layers = keras.layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
    return keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3, activation="relu"), *head])


def _functional(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 20, 3))
    a, b = layers.Conv2D(4, 3, padding="same")(x), layers.Conv2D(4, 5, padding="same")(x)
    hidden = layers.ReLU(6.0)(layers.Add()([a, b]))
    inner = keras.Sequential([keras.Input((16, 20, 4)), layers.BatchNormalization(), layers.GlobalAveragePooling2D()])
    return keras.Model(x, layers.Dense(3, "softmax")(inner(hidden)))


def _grey_logits(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 1))
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))))


def _uint8_multilabel(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3), dtype="uint8")
    hidden = layers.Conv2D(4, 3)(layers.Rescaling(1 / 127.5, -1)(x))
    return keras.Model(x, layers.Dense(5, "sigmoid")(layers.GlobalAveragePooling2D()(hidden)))


def _channels_first(keras: Any) -> Any:
    layers = keras.layers
    first: dict[str, Any] = {"data_format": "channels_first"}
    x = keras.Input((3, 24, 16))
    hidden = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", **first)(x)
    hidden = layers.BatchNormalization(axis=1)(hidden)
    hidden = layers.Conv2D(8, 3, groups=4, dilation_rate=2, padding="same", **first)(hidden)
    hidden = layers.DepthwiseConv2D(3, padding="same", **first)(layers.MaxPooling2D(**first)(hidden))
    hidden = layers.AveragePooling2D(2, padding="same", **first)(layers.ZeroPadding2D(1, **first)(hidden))
    return keras.Model(x, layers.Dense(3, "softmax")(layers.Flatten(**first)(hidden)))


def _mixed_precision(keras: Any) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return _functional(keras)
    finally:
        keras.config.set_dtype_policy(before)


def _augmented_and_normalized(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    hidden = layers.RandomContrast(0.3)(layers.RandomRotation(0.2)(layers.RandomFlip()(x)))
    hidden = layers.Normalization(mean=[100.0, 120, 130], variance=[400.0, 500, 600])(hidden)
    hidden = layers.Dropout(0.5)(layers.GaussianNoise(0.3)(layers.Conv2D(4, 3)(hidden)))
    return keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(hidden)))


def _grouped(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    hidden = layers.Conv2D(8, 3, groups=4, activation="gelu")(layers.Conv2D(8, 3)(x))
    return keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(hidden)))


KINDS: dict[Callable[[Any], Any], tuple[tuple[int, int, int], str]] = {
    _sequential: ((16, 16, 3), "softmax"),
    _functional: ((16, 20, 3), "softmax"),
    _grey_logits: ((16, 16, 1), "logits"),
    _uint8_multilabel: ((16, 16, 3), "sigmoid"),
    _channels_first: ((24, 16, 3), "softmax"),
    _mixed_precision: ((16, 20, 3), "softmax"),
    _grouped: ((16, 16, 3), "softmax"),
    _augmented_and_normalized: ((16, 16, 3), "softmax"),
}
FILES = [(build, container) for build in KINDS for container in ("keras", "h5", "saved")]
FILES.remove((_augmented_and_normalized, "saved"))  # see test_a_model_that_answers_at_random_is_refused


@pytest.mark.parametrize(("build", "container"), FILES)
def test_every_kind_of_model_answers_as_in_keras(
    keras: Any, tmp_path: Path, build: Callable[[Any], Any], container: str
) -> None:
    size, activation = KINDS[build]
    model = build(keras)
    path = tmp_path / ("saved" if container == "saved" else f"model.{container}")
    if container == "saved":
        model.export(path, verbose=False)
    else:
        model.save(path)
    frozen = loaded(path, tmp_path)
    check_graph(frozen)
    assert (frozen.height, frozen.width, frozen.channels) == size
    assert frozen.activation == activation
    image = noise(*size)
    given = image.transpose(0, 3, 1, 2) if build is _channels_first else image
    expected = np.asarray(model(given.astype(model.inputs[0].dtype), training=False))
    half = build is _mixed_precision
    np.testing.assert_allclose(frozen(image), expected.astype(np.float32), rtol=1e-5, atol=5e-3 if half else 1e-5)


def test_mixed_precision_is_computed_in_float32(keras: Any, tmp_path: Path) -> None:
    _mixed_precision(keras).save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    half = [node.name for node in frozen.graph.node if node.attr["T"].type == 19]  # TensorFlow's number for float16
    assert half == []


def test_the_h5_file_of_keras_2(keras: Any, tmp_path: Path) -> None:
    """As tf.keras 2.x wrote it: no module names, batch_input_shape, an initializer by its class, axes in lists."""
    import json

    import h5py

    path = tmp_path / "old.h5"
    model = _sequential(keras)
    model.save(path)
    initializer = {"class_name": "GlorotUniform", "config": {"seed": None}}
    common = {"trainable": True, "dtype": "float32"}
    conv: dict[str, Any] = {
        "filters": 4, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid", "data_format": "channels_last",
        "dilation_rate": [1, 1], "groups": 1, "activation": "relu", "use_bias": True, "kernel_initializer": initializer,
        "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
    }  # fmt: skip
    names = [layer.name for layer in model.layers]
    conv["batch_input_shape"] = [None, 16, 16, 3]
    layers: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {
            "batch_input_shape": [None, 16, 16, 3], "dtype": "float32", "sparse": False, "ragged": False, "name": "in",
        }},
        {"class_name": "Conv2D", "config": {"name": names[0], **common, **conv}},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": names[1], **common}},
        {"class_name": "Dense", "config": {"name": names[2], **common, "units": 3, "activation": "softmax"}},
    ]  # fmt: skip
    config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.11.0"
    frozen = loaded(path, tmp_path)
    check_graph(frozen)
    np.testing.assert_allclose(frozen(noise()), np.asarray(model(noise())), atol=1e-5)


def test_operations_between_the_layers(keras: Any, tmp_path: Path) -> None:
    ops, layers = keras.ops, keras.layers
    x = keras.Input((16, 16, 3))
    hidden = ops.mean(ops.silu(layers.Conv2D(4, 3)(x[:, 2:-2] / 255.0 - 0.5)), axis=(1, 2))
    model = keras.Model(x, layers.Dense(3, "softmax")(layers.Activation(ops.gelu)(hidden)))
    model.save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    check_graph(frozen)
    np.testing.assert_allclose(frozen(noise()), np.asarray(model(noise())), atol=1e-5)


def test_a_model_that_answers_at_random_is_refused(keras: Any, tmp_path: Path) -> None:
    """Keras exports layers that augment as they are in training."""
    _augmented_and_normalized(keras).export(tmp_path / "saved", verbose=False)
    with pytest.raises(ModelError, match=r"it answers at random \(.*Random.*; convert the .keras file"):
        loaded(tmp_path / "saved", tmp_path)


@pytest.mark.parametrize("name", ["RandomHue", "RandomSaturation", "RandomGrayscale", "RandomSharpness", "MixUp"])
def test_a_layer_that_augments_in_training_only_does_nothing(keras: Any, tmp_path: Path, name: str) -> None:
    """These draw a random state at inference too, and then do not read it."""
    layers = keras.layers
    given = {"MixUp": (), "RandomGrayscale": ()}.get(name, (0.3, (0, 255)))
    head = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((16, 16, 3)), getattr(layers, name)(*given), *head])
    model.save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    check_graph(frozen)
    np.testing.assert_allclose(frozen(noise()), np.asarray(model(noise(), training=False)), atol=1e-5)


def test_a_frozen_model_is_saved_with_named_input_and_output(keras: Any, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    _sequential(keras).save(tmp_path / "model.keras")
    frozen = loaded(tmp_path / "model.keras", tmp_path)
    frozen.save_frozen(tmp_path / "frozen")
    signature = tf.saved_model.load(str(tmp_path / "frozen")).signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["image"]
    answer = signature(image=tf.constant(noise()))["output"]
    np.testing.assert_allclose(answer, frozen(noise()), atol=1e-6)


@pytest.fixture(scope="session")
def subclassed(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A subclassed model, ``.keras``, and the module that defines it; written in a process of its own."""
    folder = tmp_path_factory.mktemp("subclassed")
    (folder / "mine.py").write_text(CUSTOM)
    script = "import numpy, mine; m = mine.Classifier(); m(numpy.zeros((1, 12, 12, 3), 'float32')); m.save('m.keras')"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True)
    return folder / "m.keras", folder / "mine.py"


def test_a_subclassed_model_needs_its_module(cli: Cli, subclassed: tuple[Path, Path], tmp_path: Path) -> None:
    path, module = subclassed
    output = tmp_path / "o.edgevid"
    outcome = cli("convert", path, "-o", output, *FLOAT_ONLY)
    assert outcome.status == 1
    assert "is of 'Classifier', which is not part of Keras; give the Python file that defines it with" in outcome.error
    outcome = cli("convert", path, "-o", output, *FLOAT_ONLY, "--custom-objects", module)
    assert outcome.status == 0, outcome.err
    assert "mine" not in sys.modules  # it ran in the child only
    assert "took " in outcome.err
    assert " GB" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_function_of_ones_own_is_named(keras: Any, tmp_path: Path, suffix: str) -> None:
    def my_gate(x: Any) -> Any:
        return x

    layers = keras.layers
    x = keras.Input((8, 8, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation=my_gate)(x))
    path = tmp_path / f"model{suffix}"
    keras.Model(x, layers.Dense(3, "softmax")(hidden)).save(path)
    with pytest.raises(ModelError, match="it needs 'my_gate', which is not part of Keras; give the Python file"):
        loaded(path, tmp_path)


def test_a_module_that_defines_something_else(subclassed: tuple[Path, Path], tmp_path: Path) -> None:
    module = tmp_path / "other.py"
    module.write_text("class Other: pass\n")
    with pytest.raises(UsageError, match=r"it needs 'Classifier', which --custom-objects .*other.py does not define"):
        load_model(subclassed[0], custom_objects=module)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "the process that loaded it died of SIGABRT; if it needs more than the 2.0 GB"),
        pytest.param(
            "import os; os._exit(3)", "the process that loaded it ended with status 3", marks=pytest.mark.slow
        ),
        (
            "memory = [bytes(100 << 20) for _ in range(10**6)]",
            "loading it takes more than the 2.0 GB of memory allowed",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        pytest.param("raise SystemExit(5)", "SystemExit: 5", marks=pytest.mark.slow),
    ],
)
def test_a_child_that_fails_is_one_line(
    cli: Cli, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    monkeypatch.setenv("EDGEVID_LOAD_MEMORY", "2")
    module = tmp_path / "bad.py"
    module.write_text(code)
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--custom-objects", module)
    assert outcome.status in (1, 2)
    assert message in outcome.error
    assert list(tmp_path.iterdir()) == [module]


def test_absent_modules_and_absurd_limits(
    cli: Cli, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid", "--custom-objects", "absent.py")
    assert outcome.status == 1
    assert "--custom-objects absent.py: no such file" in outcome.error
    monkeypatch.setenv("EDGEVID_LOAD_MEMORY", "lots")
    outcome = cli("convert", model_file, "-o", tmp_path / "o.edgevid")
    assert outcome.status == 2
    assert "EDGEVID_LOAD_MEMORY=lots: expected a number of GB, 1 or more" in outcome.error


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _waiting_child(process: subprocess.Popen[str], mark: Path) -> int:
    """Return the process id of the loading child once the custom module has made its mark."""
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert mark.exists()
    return _children(process.pid)[0]


def _command(model: Path, output: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgevid", "convert", str(model), "-o", str(output), *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_child_never_outlives_its_parent(model_file: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The child hangs, and its parent is interrupted, or killed outright."""
    module, mark = tmp_path / "hangs.py", tmp_path / "mark"
    module.write_text(f"import time\nopen({str(mark)!r}, 'w').close()\nwhile True: time.sleep(1)\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        _command(model_file, tmp_path / "o.edgevid", "--custom-objects", module),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    child = _waiting_child(process, mark)
    time.sleep(1)  # let it finish an import, which takes no interruption well
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
    if number == signal.SIGINT:
        assert (process.returncode, err.strip()) == (130, "edgevid: interrupted")
        assert list(scratch.iterdir()) == []
    assert not (tmp_path / "o.edgevid").exists()


def test_whole_numbers_are_not_cast_and_cast_back(keras: Any, tmp_path: Path) -> None:
    _uint8_multilabel(keras).save(tmp_path / "model.keras")
    assert "Cast" not in {node.op for node in loaded(tmp_path / "model.keras", tmp_path).graph.node}


@pytest.mark.slow
def test_channels_first_becomes_every_variant(cli: Cli, keras: Any, clip: Path, tmp_path: Path) -> None:
    _channels_first(keras).save(tmp_path / "model.keras")
    outcome = cli("convert", tmp_path / "model.keras", "-o", tmp_path / "o.edgevid", "--calib", clip)
    assert outcome.status == 0, outcome.err
    variants = {variant.id: variant.parity for variant in Bundle(tmp_path / "o.edgevid").manifest.variants}
    assert tuple(variants) == VARIANT_IDS
    for name in ("tflite-fp32", "onnx-fp32"):
        parity = variants[name]
        assert parity is not None
        assert parity.max_abs_error < 1e-4

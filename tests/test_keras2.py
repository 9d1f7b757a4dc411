"""What Keras 1 and 2 wrote, in every container, answers as Keras 2 (tf_keras) itself does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgevid_convert.loading.keras2 import as_keras_2
from tests.test_loading import check_graph, loaded, noise

pytestmark = pytest.mark.usefixtures("quiet_keras")
SIDE = 24
Build = Callable[[Any], Any]


@pytest.fixture
def keras2(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras 2, with seeded weights; opening its files sets this variable, which is not for other tests."""
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    return tf_keras


def classifier(k: Any, *body: Any, before: tuple[Any, ...] = ()) -> Any:
    layers = k.layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax")]
    image = layers.InputLayer(input_shape=(SIDE, SIDE, 3))
    return k.Sequential([image, *before, layers.Conv2D(8, 3, strides=2), *body, *head])


def _nested(k: Any) -> Any:
    image = k.Input((SIDE, SIDE, 3))
    base = k.Model(image, k.layers.BatchNormalization()(k.layers.Conv2D(8, 3, strides=2)(image)))
    return k.Sequential([base, k.layers.GlobalAveragePooling2D(), k.layers.Dense(5, activation="softmax")])


def _called(k: Any) -> Any:
    image, other = k.Input((SIDE, SIDE, 3)), k.Input((SIDE, SIDE, 3))
    base = k.Model(image, k.layers.Conv2D(8, 3, strides=2)(image))
    hidden = k.layers.GlobalAveragePooling2D()(base(other, training=False))
    return k.Model(other, k.layers.Dense(5, activation="softmax")(hidden))


def _operations(k: Any) -> Any:
    image = k.Input((SIDE, SIDE, 3))
    small = k.applications.mobilenet_v2.preprocess_input(image)[:, 2:-2] * 0.5 + 0.1
    hidden = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(8, 3, strides=2)(small))
    return k.Model(image, k.layers.Dense(5, activation="softmax")(hidden))


def _half(k: Any) -> Any:
    k.mixed_precision.set_global_policy("mixed_float16")
    try:
        return classifier(k, k.layers.BatchNormalization())
    finally:
        k.mixed_precision.set_global_policy("float32")


def _augmented(k: Any) -> Any:
    layers = k.layers
    before = (layers.RandomFlip(), layers.RandomRotation(0.1), layers.Rescaling(1 / 255))
    return classifier(k, layers.Dropout(0.3), before=before)


def _recurrent(k: Any) -> Any:
    layers = k.layers
    rows = [layers.Reshape((SIDE, SIDE * 3)), layers.LSTM(8, return_sequences=True), layers.GRU(6, dropout=0.2)]
    return k.Sequential([k.Input((SIDE, SIDE, 3)), *rows, layers.Dense(5, activation="softmax")])


def _of_applications(k: Any) -> Any:
    """The layers that two families of keras.applications have for themselves."""
    convnext = import_module("tf_keras.src.applications.convnext")
    scale = import_module("tf_keras.src.applications.inception_resnet_v2").CustomScaleLayer
    image = k.Input((SIDE, SIDE, 3))
    hidden = k.layers.Conv2D(8, 3, strides=2)(image)
    deep = convnext.StochasticDepth(0.3)(convnext.LayerScale(0.5, 8)(hidden))
    pooled = k.layers.GlobalAveragePooling2D()(scale(0.2)([hidden, deep]))
    return k.Model(image, k.layers.Dense(5, activation="softmax")(pooled))


BUILDS: dict[str, Build] = {
    "layers of applications": _of_applications,
    "depthwise": lambda k: classifier(k, k.layers.DepthwiseConv2D(3)),
    "separable": lambda k: classifier(k, k.layers.SeparableConv2D(8, 3)),
    "layer norm": lambda k: k.Sequential([k.Input((SIDE, SIDE, 3)), k.layers.LayerNormalization(), classifier(k)]),
    "transposed": lambda k: classifier(k, k.layers.Conv2DTranspose(8, 3, strides=2)),
    "nested": _nested,
    "called": _called,
    "operations": _operations,
    "half": _half,
    "augmented": _augmented,
    "recurrent": _recurrent,
}


def without_modules(part: Any) -> Any:
    """Return a configuration as Keras 2.4 to 2.12 wrote it in ``.h5``: no modules."""
    if isinstance(part, list):
        return [without_modules(each) for each in part]
    if not isinstance(part, dict):
        return part
    keys = part.keys() - {"module", "registered_name", "optional"}
    return {key: without_modules(part[key]) for key in part if key in keys}


def reconfigure(path: Path, change: Callable[[Any], Any], version: str = "2.11.0", backend: str = "tensorflow") -> None:
    with h5py.File(path, "r+") as file:
        config = change(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"], file.attrs["backend"] = version.encode(), backend.encode()


def check_same(path: Path, folder: Path, model: Any, atol: float = 1e-5) -> None:
    frozen = loaded(path, folder)
    check_graph(frozen)
    image = noise(SIDE, SIDE)
    np.testing.assert_allclose(frozen(image), np.asarray(model(image, training=False)), atol=atol)


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("container", ["h5", "keras"])
def test_what_keras_2_wrote_answers_as_there(keras2: Any, tmp_path: Path, name: str, container: str) -> None:
    model = BUILDS[name](keras2)
    path = tmp_path / f"model.{container}"
    model.save(path)
    if container == "h5":
        reconfigure(path, without_modules)
    check_same(path, tmp_path, model, 5e-3 if name == "half" else 1e-5)


@pytest.mark.parametrize("name", ["nested", "operations", "half"])
def test_its_saved_models_answer_as_there(keras2: Any, tmp_path: Path, name: str) -> None:
    model = BUILDS[name](keras2)
    model.save(tmp_path / "saved", save_format="tf")
    check_same(tmp_path / "saved", tmp_path, model, 5e-3 if name == "half" else 1e-5)


def test_a_saved_model_with_an_adapted_normalization(keras2: Any, tmp_path: Path) -> None:
    """It holds the function that adapted it, which reads data sets, and which nothing runs."""
    normalization = keras2.layers.Normalization()
    normalization.adapt(noise(SIDE, SIDE))
    model = classifier(keras2, before=(normalization,))
    model.save(tmp_path / "saved", save_format="tf")
    check_same(tmp_path / "saved", tmp_path, model)


@pytest.mark.parametrize("name", ["model.keras", "model.model", "model", "MODEL.H5"])
def test_the_first_bytes_tell_the_kind_of_a_file(keras2: Any, tmp_path: Path, name: str) -> None:
    model = classifier(keras2)
    model.save(tmp_path / "x.h5")
    shutil.move(tmp_path / "x.h5", tmp_path / name)
    check_same(tmp_path / name, tmp_path, model)


def test_a_sequential_without_an_input_layer(keras2: Any, tmp_path: Path) -> None:
    """Up to Keras 2.3 the first layer says batch_input_shape; up to 2.2.3 the configuration is a list."""
    model = classifier(keras2)
    for as_list in (True, False):
        path = tmp_path / "model.h5"
        model.save(path)

        def change(config: Any, as_list: bool = as_list) -> Any:
            layers = without_modules(config["config"]["layers"][1:])
            layers[0]["config"]["batch_input_shape"] = [None, SIDE, SIDE, 3]
            return {"class_name": "Sequential", "config": layers if as_list else {"name": "s", "layers": layers}}

        reconfigure(path, change, "2.2.2")
        check_same(path, tmp_path, model)


def test_a_model_of_keras_1(keras2: Any, tmp_path: Path) -> None:
    layers = keras2.layers
    model = keras2.Sequential(
        [
            layers.InputLayer(input_shape=(SIDE, SIDE, 3)),
            layers.ZeroPadding2D(((1, 0), (2, 0)), name="pad"),
            layers.Conv2D(8, (3, 5), strides=(2, 2), padding="same", activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D((2, 2), name="pool"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(5, activation="softmax", name="dense"),
        ]
    )
    path = tmp_path / "model.h5"
    model.save(path)
    old = [
        ("ZeroPadding2D", {"name": "pad", "padding": {"top_pad": 1, "bottom_pad": 0, "left_pad": 2, "right_pad": 0},
                           "dim_ordering": "tf", "batch_input_shape": [None, SIDE, SIDE, 3], "input_dtype": "float32"}),
        ("Convolution2D", {"name": "conv", "nb_filter": 8, "nb_row": 3, "nb_col": 5, "init": "glorot_uniform",
                           "activation": "relu", "border_mode": "same", "subsample": [2, 2], "dim_ordering": "tf",
                           "W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.1}, "bias": True}),
        ("BatchNormalization", {"name": "norm", "mode": 0, "axis": -1, "epsilon": 0.001, "momentum": 0.99}),
        ("MaxPooling2D", {"name": "pool", "pool_size": [2, 2], "strides": [2, 2], "border_mode": "valid",
                          "dim_ordering": "tf"}),
        ("Dropout", {"name": "drop", "p": 0.5}),
        ("Flatten", {"name": "flat"}),
        ("Dense", {"name": "dense", "output_dim": 5, "init": "he_normal", "activation": "softmax", "bias": True,
                   "input_dim": None, "b_constraint": None}),
    ]  # fmt: skip
    config = {"class_name": "Sequential", "config": [{"class_name": kind, "config": each} for kind, each in old]}
    reconfigure(path, lambda _: config, "1.2.2")
    check_same(path, tmp_path, model)


def test_the_kernels_of_theano_are_turned_around(keras2: Any, tmp_path: Path) -> None:
    model = classifier(keras2)
    path = tmp_path / "model.h5"
    model.save(path)
    reconfigure(path, without_modules, "2.2.4", "theano")
    kernel = model.layers[0].kernel
    kernel.assign(kernel.numpy()[::-1, ::-1])
    check_same(path, tmp_path, model)


def test_custom_objects_are_of_the_keras_that_reads_the_file(keras2: Any, tmp_path: Path) -> None:
    from edgevid_convert.loading import child
    from edgevid_convert.loading.model import Request, read_frozen

    (tmp_path / "halving.py").write_text(
        "import tensorflow as tf\nclass Half(tf.keras.layers.Layer):\n    def call(self, x):\n        return x * 0.5\n"
    )

    class Half(keras2.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 0.5

    model = classifier(keras2, Half(name="half"))
    model.save(tmp_path / "model.h5")
    request = Request(
        path=str(tmp_path / "model.h5"),
        image_size=None,
        custom_objects=str(tmp_path / "halving.py"),
        trust=False,
        memory_gb=4,
    )
    image = noise(SIDE, SIDE)
    frozen = read_frozen(child.load(request, tmp_path), tmp_path)
    np.testing.assert_allclose(frozen(image), np.asarray(model(image)), atol=1e-5)


def test_words_of_keras_2_stay_as_they_are() -> None:
    layer = {"class_name": "Conv2D", "config": {"name": "c", "filters": 3, "padding": "same", "use_bias": True}}
    assert as_keras_2(Path("m.h5"), layer) == layer

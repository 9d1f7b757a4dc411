"""Every known way in which a model file ran code, read other files or filled the memory, each built as it was used."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgevid.errors import ModelError
from edgevid_convert.loading.containers import container_of
from edgevid_convert.loading.security.config import SUSPICIOUS
from edgevid_convert.loading.security.scan import scan_model
from tests.conftest import Outcome

pytestmark = pytest.mark.usefixtures("quiet_keras")
Cli = Callable[..., Outcome]
Edit = Callable[[dict[str, Any]], object]


def vet(path: Path, scratch: Path, *, trust: bool, custom: bool) -> frozenset[str]:
    """Look a file through, and return the names in it that are no part of Keras."""
    return scan_model(path, container_of(path), scratch, trust=trust, custom=custom).custom_names


@pytest.fixture(scope="session")
def small(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmless classifier, ``.keras``: what the exploits below are built into."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    hidden = layers.Activation("relu", name="gate")(layers.Conv2D(2, 3, name="first")(image))
    model = keras.Model(image, layers.Dense(2, "softmax", name="dense")(layers.GlobalAveragePooling2D()(hidden)))
    path = tmp_path_factory.mktemp("small") / "small.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def rewritten(source: Path, path: Path, **members: bytes) -> Path:
    """Write a ``.keras`` file with some members exchanged or added; ``__`` stands for a dot in their names."""
    exchanged = {name.replace("__", "."): data for name, data in members.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, exchanged.pop(name) if name in exchanged else old.read(name))
        for name, data in exchanged.items():
            new.writestr(name, data)
    return path


def edited(source: Path, path: Path, edit: Edit) -> Path:
    """Write a ``.keras`` file whose configuration was changed."""
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read("config.json"))
    edit({layer["name"]: layer for layer in config["config"]["layers"]})
    return rewritten(source, path, config__json=json.dumps(config).encode())


def with_weights(source: Path, path: Path, edit: Callable[[h5py.File], object]) -> Path:
    """Write a ``.keras`` file whose weights were changed."""
    with zipfile.ZipFile(source) as archive:
        weights = Path(archive.extract("model.weights.h5", path.parent))
    with h5py.File(weights, "r+") as file:
        edit(file)
    content = weights.read_bytes()
    weights.unlink()
    return rewritten(source, path, model__weights__h5=content)


def refused(cli: Cli, model: Path, *arguments: object) -> str:
    """Return the one line in which a model is refused; nothing else may be left by it."""
    folder = model.parent
    before = set(folder.iterdir())
    outcome = cli("convert", model, "-o", folder / "o.edgevid", *arguments)
    assert outcome.status == 1, outcome.err
    assert set(folder.iterdir()) == before
    assert str(model) in outcome.error
    return outcome.error


def touching(keras: Any, touched: Path) -> Any:
    """Return a classifier with a Lambda layer that makes the file ``touched`` wherever it is called."""
    image = keras.Input((8, 8, 3))
    name = str(touched)
    code = eval(f"lambda x: (open({name!r}, 'w').close(), x)[1]")
    hidden = keras.layers.Lambda(code, output_shape=(8, 8, 3), name="backdoor")(image)
    model = keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(hidden)))
    touched.unlink(missing_ok=True)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_runs_only_when_it_is_trusted(cli: Cli, keras: Any, tmp_path: Path, suffix: str) -> None:
    """CVE-2024-3660, and CVE-2025-9905 where it is an .h5 file."""
    touched = tmp_path / "touched"
    model = tmp_path / f"lambda{suffix}"
    touching(keras, touched).save(model)
    touched.unlink(missing_ok=True)
    line = refused(cli, model)
    assert "layer 'backdoor' is a Lambda, which holds Python code; --trust-model loads it all the same" in line
    assert not touched.exists()
    arguments = ("--formats", "tflite", "--precision", "fp32", "--trust-model")
    outcome = cli("convert", model, "-o", tmp_path / "o.edgevid", *arguments)
    assert outcome.status == 0, outcome.err
    assert touched.exists()  # so the refusal above kept something away


def _function(module: str, name: str) -> dict[str, str]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def _set_activation(value: object) -> Edit:
    return lambda layers: layers["gate"]["config"].update(activation=value)


def _set_class(module: str | None, name: str, **config: object) -> Edit:
    return lambda layers: layers["gate"].update(
        module=module, class_name=name, registered_name=None, config={"name": "gate", **config}
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        # CVE-2025-1550: any function of any module
        (_set_activation(_function("os", "system")), "layer 'gate' names os.system, which is Python code"),
        (_set_activation(_function("subprocess", "run")), "layer 'gate' names subprocess.run"),
        # CVE-2025-8747: one of Keras' own that does more than compute
        (_set_activation(_function("keras.utils", "get_file")), "layer 'gate' names keras.utils.get_file"),
        (_set_activation(_function("keras.src.utils.file_utils", "get_file")), "file_utils.get_file"),
        (_set_class("keras.utils", "get_file", origin="x"), "layer 'gate' names keras.utils.get_file"),
        (_set_class("keras.models", "load_model", filepath="x"), "layer 'gate' names keras.models.load_model"),
        (_set_class("keras.callbacks", "CSVLogger", filename="x"), "names keras.callbacks.CSVLogger"),
        (_set_class("keras.src.saving.saving_lib", "DiskIOStore", root_path="x"), "saving_lib.DiskIOStore"),
        # CVE-2026-1462, and its kin
        (_set_class("keras.layers", "TFSMLayer", filepath="x"), "'gate' is a TFSMLayer, which runs a TensorFlow graph"),
        (_set_class("keras.src.export.tfsm_layer", "TFSMLayer", filepath="x"), "'gate' is a TFSMLayer"),
        (_set_class("keras.layers", "TorchModuleWrapper", blob="x"), "is a TorchModuleWrapper, which runs a pickled"),
        (_set_class("keras.layers", "JaxLayer"), "is a JaxLayer, which runs JAX code"),
        (_set_class("keras.layers", "FlaxLayer"), "is a FlaxLayer, which runs Flax code"),
        (_set_class("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "reads the file '/etc/passwd'"),
        # Python code, wherever it stands
        (_set_activation({"class_name": "__lambda__", "config": {"code": "x"}}), "is a lambda, which is Python code"),
        (_set_activation({"function_type": "lambda", "function": "x"}), "which holds Python code"),
        (_set_activation("4wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="), "compiled Python code"),
        # strangers
        (_set_activation(_function("builtins", "mine>gate")), "is of 'mine>gate', which is not part of Keras"),
        (_set_activation(_function("builtins", "keras.utils.get_file")), "names builtins.keras.utils.get_file"),
        (_set_class("builtins", "eval"), "is of 'eval', which is not part of Keras; give the Python file that defines"),
        (_set_class("my.layers", "Gate"), "--custom-objects MODULE.py"),
        (_set_class(None, "Gate"), "layer 'gate' is of 'Gate', which is not part of Keras"),
        # functions with the names of classes, and operations that would call them with the file's own arguments
        (_set_class("keras.applications.convnext", "ConvNeXtTiny"), "names keras.applications.convnext.ConvNeXtTiny"),
        (_set_class("keras.src.ops.core", "Switch"), "layer 'gate' is Switch, which calls what the file names"),
        (_set_class("keras.src.ops.core", "Cond"), "layer 'gate' is Cond, which calls what the file names"),
        (_set_activation(_function("keras.ops", "while_loop")), "is while_loop, which calls what the file names"),
        # what Keras 2 wrapped in layers: operations of TensorFlow, methods, Python's own functions
        (_set_class("keras.src.layers.core.tf_op_layer", "TFOpLambda", function="io.write_file"), "io.write_file"),
        (_set_class(None, "TFOpLambda", function="numpy_function"), "calls TensorFlow's numpy_function, of which"),
        (_set_class(None, "TensorFlowOpLayer", node_def='{"op": "WriteFile"}'), "calls TensorFlow's WriteFile"),
        (_set_class(None, "TensorFlowOpLayer", node_def="?"), "calls TensorFlow's None"),
        (_set_class(None, "ClassMethod", cls_symbol="io"), "is a ClassMethod, which calls what the file names"),
        (_set_class(None, "InstanceMethod", attr_name="x"), "is a InstanceMethod, which calls what the file names"),
        (_set_activation(_function("builtins", "eval")), "names builtins.eval, which is Python code"),
        # sizes
        (lambda layers: layers["dense"]["config"].update(units=10**12), "layer 'dense' states units=1000000000000"),
        (lambda layers: layers["first"]["config"].update(filters=10**30), "layer 'first' states filters=1000000"),
    ],
)
def test_a_configuration_that_names_more_than_a_model(small: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(ModelError) as error:
        vet(edited(small, tmp_path / "m.keras", edit), tmp_path, trust=False, custom=False)
    assert message in str(error.value)


def test_the_front_door_refuses_before_anything_runs(cli: Cli, small: Path, tmp_path: Path) -> None:
    """CVE-2025-1550 through the command line: a function that makes a folder of the name it is called with."""
    made = tmp_path / "made"

    def edit(layers: dict[str, Any]) -> None:
        layers["gate"].update(
            class_name="function", module="os", config="mkdir", registered_name="mkdir", inbound_nodes=[]
        )
        layers["gate"]["inbound_nodes"] = [{"args": [str(made)], "kwargs": {}}]

    line = refused(cli, edited(small, tmp_path / "m.keras", edit))
    assert "os.mkdir, which is Python code and no part of a model; --trust-model loads it all the same" in line
    assert not made.exists()


def test_custom_objects_open_no_door_for_keras_own_functions(cli: Cli, small: Path, tmp_path: Path) -> None:
    """CVE-2025-8747 with --custom-objects given: names of Keras and of Python stay refused."""
    module = tmp_path / "mine.py"
    module.write_text("")
    fetched = tmp_path / "fetched"
    for function in (_function("keras.utils", "get_file"), _function("os", "system")):
        path = edited(small, tmp_path / "m.keras", _set_activation(function))
        assert "which is Python code" in refused(cli, path, "--custom-objects", module)
    assert not fetched.exists()


def _first(file: h5py.File) -> tuple[Any, str]:
    """Return the group and the name of a weight."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    group, _, name = found[0].rpartition("/")
    return file[group], name


def _external_link(file: h5py.File) -> None:
    group, name = _first(file)
    del group[name]
    group[name] = h5py.ExternalLink("/etc/secret.h5", "/secret")


def _external_link_beside(file: h5py.File) -> None:
    file.create_group("a/b")["c"] = h5py.ExternalLink("../other.h5", "/")


def _external_storage(file: h5py.File) -> None:
    group, name = _first(file)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, np.float32, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/secret.h5", "secret", (4,))
    file.create_virtual_dataset("virtual", layout)


def _absurd(file: h5py.File) -> None:
    file.create_dataset("huge", (1 << 20, 1 << 20), np.float32)


def _compressed(file: h5py.File) -> None:
    file.create_dataset("dense_zeros", data=np.zeros((8 << 20,), np.float32), compression="gzip", chunks=(1 << 20,))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_external_link, "is a link to another file, '/etc/secret.h5'"),  # CVE-2026-1669
        (_external_link_beside, "/a/b/c is a link to another file, '../other.h5'"),
        (_external_storage, "lie in another file"),
        (_virtual, "the data of /virtual lie in another file"),
        (_absurd, "/huge states a shape of 1048576×1048576, 4398046511104 bytes, and 0 are stored"),
        (_compressed, "/dense_zeros states a shape of 8388608"),
    ],
)
def test_weights_that_lead_elsewhere_or_are_absurd(
    cli: Cli, small: Path, tmp_path: Path, edit: Callable[[h5py.File], object], message: str
) -> None:
    path = with_weights(small, tmp_path / "m.keras", edit)
    assert message in refused(cli, path, "--trust-model")  # insisting does not help


def test_links_within_the_file_are_followed_nowhere_twice(small: Path, tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["again"] = file["layers"]  # a hard link: a circle, once it is in itself
        file["layers/round"] = file["/layers"]
        file["soft"] = h5py.SoftLink("/layers")
        file["dangling"] = h5py.SoftLink("/nowhere")

    assert vet(with_weights(small, tmp_path / "m.keras", edit), tmp_path, trust=False, custom=False) == frozenset()


def test_an_h5_file_is_looked_through_too(cli: Cli, keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]).save(path)
    with h5py.File(path, "r+") as file:
        file["model_weights/x"] = h5py.ExternalLink("/etc/secret.h5", "/secret")
    assert "/model_weights/x is a link to another file" in refused(cli, path)
    with h5py.File(path, "r+") as file:
        del file["model_weights/x"]
        del file.attrs["model_config"]
    assert "it holds weights only, no model" in refused(cli, path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../escaped.txt": b"x"}, "its member '../escaped.txt' would be unpacked outside its folder"),
        ({"/tmp/escaped.txt": b"x"}, "its member '/tmp/escaped.txt' would be unpacked outside"),
        ({"assets/..\\..\\escaped": b"x"}, "would be unpacked outside"),
        ({"assets/zeros": bytes(64 << 20)}, "unpacks to 67108864; no Keras model has that, but a zip bomb has"),
        ({"config__json": b"[" * 100_000}, "its configuration is nested deeper than any model's"),
        ({"config__json": b'{"a":' * 300 + b"1" + b"}" * 300}, "is nested deeper than 200 levels"),
        ({"config__json": b"{"}, "its configuration is no JSON"),
        ({"model__weights__h5": b"\x89HDF\r\n\x1a\n" + bytes(100)}, "the HDF5 weights are damaged"),
    ],
)
def test_an_archive_that_is_no_model(
    cli: Cli, small: Path, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    assert message in refused(cli, rewritten(small, folder / "m.keras", **members))
    assert list(tmp_path.iterdir()) == [folder]


def test_many_members_are_a_bomb_together(small: Path, tmp_path: Path) -> None:
    members = {f"assets/{index}": bytes(15 << 20) for index in range(8)}
    path = rewritten(small, tmp_path / "m.keras", **members)
    with pytest.raises(ModelError, match=r"bytes unpack to \d+; no Keras model has that, but a zip bomb has"):
        vet(path, tmp_path, trust=False, custom=False)


def test_sizes_that_are_not_true_are_refused(small: Path, tmp_path: Path) -> None:
    """The directory of the archive says that the bomb is hardly compressed."""
    path = rewritten(small, tmp_path / "m.keras")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(64 << 20))
        archive.getinfo("assets/zeros").compress_size = 1 << 20
    with pytest.raises(ModelError, match="its members claim more bytes than the file has"):
        vet(path, tmp_path, trust=False, custom=False)


@pytest.mark.parametrize("text", [" " * 60, " " * 1_000_000 + "!", "       " + "a b" * 30])
def test_a_text_that_only_looks_like_code_takes_no_time(small: Path, tmp_path: Path, text: str) -> None:
    path = edited(small, tmp_path / "m.keras", _set_activation(text))
    assert vet(path, tmp_path, trust=False, custom=False) == frozenset()


def test_two_members_of_one_name_are_refused(small: Path, tmp_path: Path) -> None:
    path = rewritten(small, tmp_path / "m.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelError, match="two of its members have one name"):
        vet(path, tmp_path, trust=False, custom=False)


def test_a_loss_of_ones_own_does_not_matter(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])

    def my_loss(truth: Any, answer: Any) -> Any:
        return keras.ops.mean(answer)

    model.compile("sgd", my_loss)
    model.save(tmp_path / "m.keras")
    assert vet(tmp_path / "m.keras", tmp_path, trust=False, custom=False) == frozenset()


@pytest.mark.parametrize("kind", ["WriteFile", "ReadFile", "EagerPyFunc", "PrintV2", "ImmutableConst"])
def test_a_saved_model_that_does_more_than_compute(kind: str, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    touched = tmp_path / "touched"
    actions: dict[str, Callable[[], Any]] = {
        "WriteFile": lambda: tf.io.write_file(str(touched), "x"),
        "ReadFile": lambda: tf.io.read_file("/etc/passwd"),
        "EagerPyFunc": lambda: tf.py_function(touched.touch, [], []),
        "PrintV2": lambda: tf.print("x", output_stream=f"file://{touched}"),
        "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(
            dtype=tf.uint8, shape=(3,), memory_region_name="/etc/hostname"
        ),
    }

    class Exploit(tf.Module):  # type: ignore[misc]  # TensorFlow publishes no types
        @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3))])  # type: ignore[untyped-decorator]
        def serve(self, image: Any) -> Any:
            actions[kind]()
            return tf.nn.softmax(tf.reduce_mean(image, (1, 2)))

    module = Exploit()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    with pytest.raises(ModelError, match=f"holds the operator {kind}, which does more than compute; --trust-model"):
        vet(tmp_path / "saved", tmp_path, trust=False, custom=False)
    vet(tmp_path / "saved", tmp_path, trust=True, custom=False)
    assert not touched.exists()


def test_no_operator_that_takes_the_name_of_a_file_is_let_through() -> None:
    """Of all that this TensorFlow has, so that a newer one's are noticed."""
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.python.client import pywrap_tf_session

    operators = OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())).op
    named = re.compile(r"(^|_)(file|filename|path|dir|directory|address|region|url)s?(_|$)")
    takes_names = {
        operator.name
        for operator in operators
        if any(named.search(part.name) for part in (*operator.input_arg, *operator.attr))
    }
    assert len(operators) > 1000
    assert {"ReadFile", "DumpTensor", "ImmutableConst", "FixedUnigramCandidateSampler"} <= takes_names
    # It has no more than a number of paths, through a lattice.
    assert {name for name in takes_names if not SUSPICIOUS.search(name)} <= {"CTCBeamSearchDecoder"}


def test_what_saves_is_let_through_only_where_nothing_runs_it(tmp_path: Path) -> None:
    """A resource is initialized as soon as it is loaded: by the function that its node names, whatever lists say."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from edgevid_convert.engine import tf

    class Resource(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="r")

        def _initialize(self) -> None:
            tf.no_op()

    class Exploit(tf.Module):  # type: ignore[misc]  # TensorFlow publishes no types
        def __init__(self) -> None:
            super().__init__()
            self.resource = Resource()
            self.handle = self.resource.resource_handle

        @tf.function(input_signature=[])  # type: ignore[untyped-decorator]
        def _traced_save(self) -> None:
            tf.raw_ops.SaveV2(
                prefix=str(tmp_path / "written"),
                tensor_names=["s"],
                shape_and_slices=[""],
                tensors=[tf.constant([7.0])],
            )

        @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3))])  # type: ignore[untyped-decorator]
        def serve(self, image: Any) -> Any:
            return tf.nn.softmax(tf.reduce_mean(image, (1, 2)))

    module, folder = Exploit(), tmp_path / "saved"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    objects = saved.meta_graphs[0].object_graph_def
    (saver,) = (
        function.signature.name
        for function in saved.meta_graphs[0].graph_def.library.function
        if any(node.op == "SaveV2" for node in function.node_def) and not function.signature.input_arg
    )
    (resource,) = (node for node in objects.nodes if node.WhichOneof("kind") == "resource")
    initializer = objects.nodes[{child.local_name: child.node_id for child in resource.children}["_initialize"]]
    initializer.ClearField("function")
    initializer.bare_concrete_function.concrete_function_name = saver
    for node in objects.nodes:
        if saver in node.function.concrete_functions:
            del node.function.concrete_functions[:]
    objects.concrete_functions.pop(saver, None)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ModelError, match="holds the operator SaveV2, which does more than compute"):
        vet(folder, tmp_path, trust=False, custom=False)
    assert not list(tmp_path.glob("written*"))


@pytest.mark.slow
def test_a_saved_model_that_writes_is_refused_at_the_front_door(cli: Cli, tmp_path: Path) -> None:
    from edgevid_convert.engine import tf

    touched = tmp_path / "touched"

    class Exploit(tf.Module):  # type: ignore[misc]  # TensorFlow publishes no types
        @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3))])  # type: ignore[untyped-decorator]
        def serve(self, image: Any) -> Any:
            tf.io.write_file(str(touched), "x")
            return tf.nn.softmax(tf.reduce_mean(image, (1, 2)))

    module = Exploit()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    assert "holds the operator WriteFile" in refused(cli, tmp_path / "saved")
    assert not touched.exists()


def test_a_damaged_or_strange_saved_model(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff" * 50)
    with pytest.raises(ModelError, match="TensorFlow cannot load it"):
        vet(folder, tmp_path, trust=False, custom=False)
    (folder / "saved_model.cpb").write_bytes(b"")
    with pytest.raises(ModelError, match="a SavedModel in chunks"):
        vet(folder, tmp_path, trust=False, custom=False)

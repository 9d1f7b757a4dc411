"""Looks through a Keras model's configuration: only what belongs in a model may be named in it."""

from __future__ import annotations

import base64
import builtins
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgevid.errors import ModelError

__all__ = ["INSIST", "SUSPICIOUS", "vet_config"]

INSIST = "--trust-model loads it all the same"
DEEPEST = 200  # a model in a model is six levels
LARGEST_SIZE = 1 << 24
SIZE_KEYS = frozenset({"units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "depth_multiplier"})
SHAPE_KEYS = frozenset({"batch_shape", "batch_input_shape", "input_shape", "target_shape", "kernel_size", "pool_size"})
# Keras' marks of values that are no objects.
VALUE_CLASSES = frozenset(
    {
        "__keras_tensor__",
        "__tensor__",
        "__numpy__",
        "__bytes__",
        "__ellipsis__",
        "__slice__",
        "__tuple__",
        "TensorShape",
    }
)
CODE_CLASSES = {
    "Lambda": "holds Python code",
    "__lambda__": "is Python code",
    "ClassMethod": "calls what the file names",
    "InstanceMethod": "calls what the file names",
    "InstanceProperty": "reads what the file names",
    "TFSMLayer": "runs a TensorFlow graph from another file",
    "TorchModuleWrapper": "runs a pickled PyTorch module",
    "JaxLayer": "runs JAX code",
    "FlaxLayer": "runs Flax code",
}
OF_A_MODEL = (
    "engine|layers|mixed_precision|models|initializers|regularizers|constraints|activations|dtype_policies|quantizers|losses|metrics|"
    "optimizers|ops"
)
# These two families of keras.applications have layers of their own. Under its public name the module offers functions
# with the names of classes, which fetch weights.
WITH_LAYERS = r"(tf_)?keras\.src\.applications\.(convnext|inception_resnet_v2)"
LAYERS_OF_APPLICATIONS = frozenset({"Custom>CustomScaleLayer"})  # as the legacy format names them
MODEL_MODULES = re.compile(rf"keras|keras\.random|{WITH_LAYERS}|(tf_)?keras\.(src\.)?({OF_A_MODEL})(\.\w+)*")
# Operations of TensorFlow that Keras 2 calls by name: they compute one array from others, and reach nothing else.
TF_OPERATIONS = re.compile(
    r"__operators__\.\w+|(compat\.v1\.)?(math|nn|linalg|signal|image|dtypes|bitwise|keras\.activations|sets)\.\w+|"
    r"(compat\.v1\.|keras\.backend\.)?(abs|add|add_n|argmax|argmin|argsort|batch_normalization|boolean_mask|"
    r"broadcast_to|cast|clip_by_value|clip|concat|concatenate|constant|convert_to_tensor|cos|cumsum|divide|einsum|equal|"
    r"exp|expand_dims|eye|fill|flatten|floor|floordiv|gather|gather_nd|greater|greater_equal|identity|l2_normalize|less|"
    r"less_equal|log|logical_and|logical_not|logical_or|matmul|max|maximum|mean|min|minimum|multiply|negative|norm|"
    r"not_equal|one_hot|ones|ones_like|pad|permute_dimensions|pow|prod|range|rank|realdiv|reduce_\w+|relu|repeat|"
    r"resize_images|reshape|reverse|roll|round|scalar_mul|sequence_mask|shape|sigmoid|sign|sin|size|slice|softmax|sort|"
    r"space_to_batch|split|sqrt|square|squeeze|stack|stop_gradient|strided_slice|subtract|sum|tanh|tensordot|tile|"
    r"transpose|truediv|unstack|where|zeros|zeros_like)"
)
OPERATION_CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
# Operations of Keras that call what they are given, with the arguments that the file gives them.
CALLING_OPERATIONS = frozenset(
    {"associativescan", "cond", "customgradient", "foriloop", "map", "scan", "switch", "vectorize", "vectorizedmap"}
    | {"whileloop"}
)
CLASS_NAME = re.compile(r"[A-Z]\w*")
FUNCTION_MODULES = re.compile(r"builtins|(tf_)?keras\.(activations|initializers|regularizers|constraints|ops(\.\w+)?)")
BASE64 = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")
CODE_OBJECT_MARKS = (0x63, 0xE3)  # how marshal begins a code object


# Operators of TensorFlow that reach files, Python, the network or another process.
SUSPICIOUS = re.compile(
    "PyFunc|File|Checkpoint|^Save|^Restore|Dataset|Iterator|Reader|Record|Summary|Print|Debug|Rpc|Socket|Lmdb|"
    "CustomCall|RemoteCall|^_?(Host)?(Send|Recv)$|^DumpTensor$|^CalibrationStatisticsSaver$|^ImmutableConst$|"
    "VocabRemapping|^LoadAndRemap|^Skipgram$|^FixedUnigram|^DistributedSave$"
)


class Place(NamedTuple):
    """A part of the configuration, the layer it belongs to, and how deep it lies."""

    value: Any
    layer: str
    depth: int


def vet_config(path: Path, config: Any, *, custom: bool) -> frozenset[str]:
    """Check every class, function and size that a configuration names.

    Args:
        path: the model, for messages.
        config: the parsed JSON.
        custom: names outside of Keras are expected, and only collected.

    Returns:
        The names of classes and functions that are not part of Keras.

    Raises:
        ModelError: a part of it could run code, or is absurd.
    """
    foreign = set()
    for place in _places(path, config):
        if isinstance(place.value, str):
            _check_text(path, place)
        elif isinstance(place.value, Mapping):
            _check_sizes(path, place)
            _check_code(path, place)
            name = _foreign_name(path, place)
            if name and not custom:
                raise ModelError(
                    f"{path}: {_layer_name(place)} is of {name!r}, which is not part of Keras; "
                    "give the Python file that defines it with --custom-objects MODULE.py"
                )
            foreign.add(name)
    return frozenset(filter(None, foreign))


def _places(path: Path, config: Any) -> Iterator[Place]:
    """Yield every part of the configuration, without recursion: it may be nested as deep as its author likes."""
    places = [Place(config, "the model", 0)]
    while places:
        place = places.pop()
        if place.depth > DEEPEST:
            raise ModelError(f"{path}: {place.layer} is nested deeper than {DEEPEST} levels; no model is")
        yield place
        if isinstance(place.value, Mapping):
            layer = _layer_name(place)
            places += [Place(part, layer, place.depth + 1) for part in place.value.values()]
        elif isinstance(place.value, list):
            places += [Place(part, place.layer, place.depth + 1) for part in place.value]


def _layer_name(place: Place) -> str:
    """Return the layer that a part belongs to: its own name, where it is one."""
    inner = place.value.get("config")
    if isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and "inbound_nodes" not in inner:
        module = place.value.get("module")
        if module is None or not str(module).endswith("dtype_policies"):
            kind = place.value.get("class_name")
            return place.layer if kind in {"DTypePolicy", "FloatDTypePolicy"} else f"layer {inner['name']!r}"
    return place.layer


def _check_code(path: Path, place: Place) -> None:
    """Refuse a part that brings code, or calls or reads what the file names."""
    part, kind = place.value, place.value.get("class_name")
    if part.get("function_type") == "lambda" or kind in CODE_CLASSES:
        reason = CODE_CLASSES.get(str(kind), "holds Python code")
        raise ModelError(f"{path}: {_layer_name(place)} is a {str(kind).strip('_')}, which {reason}; {INSIST}")
    if kind in OPERATION_CLASSES:
        _check_operation(path, place, str(kind))
    if isinstance(part.get("vocabulary"), str):
        raise ModelError(f"{path}: {place.layer} reads the file {part['vocabulary']!r}; {INSIST}")


def _foreign_name(path: Path, place: Place) -> str | None:
    """Return the name of a class or function outside of Keras; None where a part names none, or one of Keras."""
    part = place.value
    kind = part.get("class_name")
    if not isinstance(kind, str) or kind in VALUE_CLASSES | OPERATION_CLASSES:
        return None
    if "module" not in part:  # of the legacy format, whose names Keras looks up among its own
        return kind if ">" in kind and kind not in LAYERS_OF_APPLICATIONS else None
    module, name = part["module"], part.get("config") if kind == "function" else kind
    if kind == "function" and module == "builtins" and isinstance(name, str) and ">" in name:
        return name  # registered under a package: Keras looks it up there only
    if _calls_back(module, name):
        raise ModelError(f"{path}: {_layer_name(place)} is {name}, which calls what the file names; {INSIST}")
    if isinstance(module, str) and isinstance(name, str) and _is_of_keras(module, name, function=kind == "function"):
        return None
    if isinstance(module, str) and (module.partition(".")[0] in ("keras", "tf_keras") or kind == "function"):
        raise ModelError(
            f"{path}: {_layer_name(place)} names {module}.{name}, which is Python code and no part of a model; {INSIST}"
        )
    return str(part.get("registered_name") or kind)


def _is_of_keras(module: str, name: str, *, function: bool) -> bool:
    """Return whether a name is one of Keras' classes, or of the functions that its layers call."""
    if not function:
        return bool(MODEL_MODULES.fullmatch(module) and CLASS_NAME.fullmatch(name))
    if module == "builtins" and hasattr(builtins, name):  # Keras 2 might take Python's own
        return False
    return bool(FUNCTION_MODULES.fullmatch(module) and re.fullmatch(r"\w+", name))


def _check_operation(path: Path, place: Place, kind: str) -> None:
    """Refuse an operation of TensorFlow that Keras 2 wrapped in a layer, unless it does nothing but compute."""
    options = place.value.get("config")
    options = options if isinstance(options, Mapping) else {}
    if kind == "TensorFlowOpLayer":
        name = _operator_of(options.get("node_def"))
        computes = name is not None and not SUSPICIOUS.search(name)
    else:
        name = str(options.get("function"))
        computes = TF_OPERATIONS.fullmatch(name) is not None
    if not computes:
        raise ModelError(
            f"{path}: {_layer_name(place)} calls TensorFlow's {name}, of which edgevid does not know that it only "
            f"computes; {INSIST}"
        )


def _operator_of(node: Any) -> str | None:
    """Return the operator of a node of a graph, which Keras 2 wrote as JSON."""
    try:
        operator = json.loads(node)["op"]
    except (TypeError, ValueError, KeyError):
        return None
    return operator if isinstance(operator, str) else None


def _calls_back(module: Any, name: Any) -> bool:
    of_operations = isinstance(module, str) and {"keras", "ops"} <= set(module.split("."))
    return of_operations and isinstance(name, str) and name.replace("_", "").lower() in CALLING_OPERATIONS


def _check_text(path: Path, place: Place) -> None:
    text = "".join(place.value.split())
    if BASE64.fullmatch(text) and base64.b64decode(text[:4])[0] in CODE_OBJECT_MARKS:
        raise ModelError(f"{path}: {place.layer} carries compiled Python code; {INSIST}")


def _check_sizes(path: Path, place: Place) -> None:
    for key, value in place.value.items():
        sizes = value if key in SHAPE_KEYS and isinstance(value, list) else [value] if key in SIZE_KEYS else []
        for size in sizes:
            if isinstance(size, int | float) and abs(size) > LARGEST_SIZE:
                raise ModelError(f"{path}: {place.layer} states {key}={value}; a model has at most {LARGEST_SIZE}")

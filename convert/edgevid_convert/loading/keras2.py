"""Configurations of Keras 1 and 2, as the last Keras 2 (``tf_keras``) reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgevid.errors import ModelError

__all__ = ["as_keras_2", "keras_generation"]

# Layers of Keras 1 under their names in Keras 2.
RENAMED_CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
# Options of Keras 1 under their names in Keras 2.
RENAMED_OPTIONS = {
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "filter_length": "kernel_size",
    "inner_activation": "recurrent_activation",
    "input_dtype": "dtype",
    "nb_filter": "filters",
    "pool_length": "pool_size",
    "sigma": "stddev",
    "stride": "strides",
    "subsample": "strides",
    "subsample_length": "strides",
}
OF_ONE_CLASS = {
    "Dropout": {"p": "rate"},
    "GaussianDropout": {"p": "rate"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "UpSampling1D": {"length": "size"},
    **{kind: {"output_dim": "units"} for kind in ("Dense", "SimpleRNN", "LSTM", "GRU")},
}
# What begins or guides training, and has no meaning after it.
OF_TRAINING = frozenset(
    {"init", "inner_init", "forget_bias_init", "beta_init", "gamma_init", "depthwise_init", "pointwise_init"}
    | {"consume_less", "learning_rate_multipliers", "weights", "input_length"}
    | {f"{part}_{what}" for part in "WUb" for what in ("regularizer", "constraint")}
)
DATA_FORMATS = {"tf": "channels_last", "th": "channels_first", "default": "channels_last"}
MERGES = {
    "ave": "Average",
    "concat": "Concatenate",
    "max": "Maximum",
    "min": "Minimum",
    "mul": "Multiply",
    "sum": "Add",
}
# Modules in which Keras 2 of 2022 and 2023 wrote its own classes, now at home in tf_keras.
MOVED_MODULES = ("keras.src.", "keras.engine.", "keras.layers.core.")


def keras_generation(version: str) -> int:
    """Return 2 for a version of Keras 1 or 2, which ``tf_keras`` reads; else 3."""
    return 2 if version.split(".")[0] in ("0", "1", "2") else 3


def as_keras_2(path: Path, config: Any) -> Any:
    """Return a configuration of Keras 1 or 2 in the words of the last Keras 2; the weights are read as they are.

    Raises:
        ModelError: a layer of Keras 1 has an option that Keras 2 has no word for.
    """
    if isinstance(config, list):
        return [as_keras_2(path, part) for part in config]
    if not isinstance(config, Mapping):
        return config
    part = {key: as_keras_2(path, value) for key, value in config.items()}
    module = part.get("module")
    if isinstance(module, str) and module.startswith(MOVED_MODULES):
        part["module"] = f"tf_keras.src.{module.removeprefix('keras.').removeprefix('src.')}"
    inner = part.get("config")
    if isinstance(part.get("class_name"), str) and isinstance(inner, dict) and "module" not in part:
        part["class_name"], part["config"] = _layer(path, part["class_name"], inner)
    return part


def _layer(path: Path, kind: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a layer's class and options in the words of Keras 2; as they are where they are Keras 2's already."""
    before, kind = kind, RENAMED_CLASSES.get(kind, kind)
    if before.startswith("CuDNN"):
        options = {**options, "recurrent_activation": "sigmoid"} | ({"reset_after": True} if kind == "GRU" else {})
    if kind == "Merge":
        return _merge(path, options)
    renamed = RENAMED_OPTIONS | OF_ONE_CLASS.get(kind, {})
    changed = {renamed.get(key, key): value for key, value in options.items() if key not in OF_TRAINING}
    if changed.get("data_format") in DATA_FORMATS:
        changed["data_format"] = DATA_FORMATS[changed["data_format"]]
    if "nb_row" in changed:
        changed["kernel_size"] = [changed.pop("nb_row"), changed.pop("nb_col")]
    elif isinstance(changed.get("nb_col"), int):
        changed.pop("nb_col")
    if "kernel_dim1" in changed:
        changed["kernel_size"] = [changed.pop(f"kernel_dim{axis}") for axis in (1, 2, 3)]
    if kind in SPECIAL:
        SPECIAL[kind](path, changed)
    return kind, changed


def _merge(path: Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    mode = options.get("mode")
    if mode not in MERGES or options.get("layers"):
        raise ModelError(
            f"{path}: layer {options.get('name')!r} of Keras 1 merges by {mode!r}, which Keras 2 has no layer for; "
            "build it again with a functional model of Keras 2 or 3"
        )
    axis = {"axis": options.get("concat_axis", -1)} if mode == "concat" else {}
    return MERGES[mode], {"name": options.get("name"), **axis}


def _dense(path: Path, options: dict[str, Any]) -> None:
    size = options.pop("input_dim", None)
    if size is not None and "batch_input_shape" not in options:
        options["batch_input_shape"] = [None, size]


def _batch_normalization(path: Path, options: dict[str, Any]) -> None:
    if options.pop("mode", 0):
        raise ModelError(
            f"{path}: layer {options.get('name')!r} of Keras 1 normalizes by the batch it is given (mode 1 or 2), "
            "which Keras 2 has no layer for; build it again with Keras 2 or 3"
        )


def _zero_padding(path: Path, options: dict[str, Any]) -> None:
    padding = options.get("padding")
    if isinstance(padding, Mapping):
        sides = [padding.get(f"{side}_pad", 0) for side in ("top", "bottom", "left", "right")]
        options["padding"] = [sides[:2], sides[2:]]
    elif isinstance(padding, list) and len(padding) == 4:
        options["padding"] = [padding[:2], padding[2:]]


SPECIAL: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "BatchNormalization": _batch_normalization,
    "Dense": _dense,
    "GRU": _dense,
    "LSTM": _dense,
    "SimpleRNN": _dense,
    "ZeroPadding2D": _zero_padding,
}

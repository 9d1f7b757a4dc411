"""A bundle of a model that is TFLite or ONNX already: what it says of itself, and what only its owner knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid._version import __version__
from edgevid.backends import BackendOptions, load_backend
from edgevid.bundle import Bundle, sha256_file, write_manifest
from edgevid.choice import choose_backend
from edgevid.errors import BackendError, MissingExtraError, ModelError, UsageError, first_line
from edgevid.manifest import (
    LABELS_FILE,
    Activation,
    ColorOrder,
    Fit,
    InputSpec,
    Manifest,
    OutputSpec,
    Precision,
    Resize,
    SourceModel,
    Tensor,
    Variant,
)
from edgevid.methods import Smoothing
from edgevid_convert.frames import Clip, noise_frames
from edgevid_convert.labels import read_labels
from edgevid_convert.loading.activation import SUM_SLACK, Operator, activation_of
from edgevid_convert.options import check_output
from edgevid_convert.preprocessing import Normalization
from edgevid_convert.proof import takes_batches, variant_answers
from edgevid_convert.writing import bundle_folder, preprocessing_for

__all__ = ["FORMAT_OF", "PackOptions", "describe_choice", "pack_model"]

FORMAT_OF = {".tflite": "tflite", ".onnx": "onnx"}
ENGINES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
ONNX_DTYPES = {"tensor(float)": "float32"}


@dataclass(frozen=True)
class PackOptions:
    """What a file does not say of itself.

    Attributes:
        model: the ``.tflite`` or ``.onnx`` file.
        output: the bundle to write.
        labels: one a line; None to number the classes.
        image_size: height and width, for a model that leaves them open.
        normalization, preprocess: how grey levels become its numbers, and the name of that, if it has one.
        color: the order of its channels; None for that of the normalization.
        resize, fit: how frames come to its size.
        activation: what its last layer is; None to tell it by its answers to noise.
        window: the bundle's default.
        force: replace a bundle of that name.
    """

    model: Path
    output: Path
    labels: Path | None = None
    image_size: tuple[int, int] | None = None
    normalization: Normalization = field(default_factory=Normalization)
    preprocess: str | None = None
    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    activation: Activation | None = None
    window: int = 64
    force: bool = False


@dataclass(frozen=True)
class Facts:
    """What a file says of itself; a dimension that it leaves open is None.

    ``operators`` are its graph's, each under the name of what it gives, of which ``last`` is the answer.
    """

    input_shape: Sequence[int | None]
    output_shape: Sequence[int | None]
    input: Tensor
    output: Tensor
    precision: Precision
    operators: Mapping[str, Operator] = field(default_factory=dict)
    last: str = ""


def pack_model(options: PackOptions) -> Bundle:
    """Make a bundle of one model file, which is copied into it.

    Raises:
        UsageError: an option contradicts the model.
        ModelError: it is no image classifier, or cannot be loaded.
        MissingExtraError: its engine is not installed.
        BundleError: the output exists, and ``options.force`` is false.
    """
    check_output(options.output, options.force, filter(None, (options.model, options.labels)))
    format_ = FORMAT_OF.get(options.model.suffix.lower())
    if format_ is None:
        raise ModelError(f"{options.model}: expected a .tflite or .onnx file; for a Keras model use edgevid convert")
    if not options.model.is_file():
        raise ModelError(f"{options.model}: no such file")
    facts = (_tflite_facts if format_ == "tflite" else _onnx_facts)(options.model)
    spec, channels_first = _image(options, facts)
    units = _units(options.model, facts.output_shape)
    color: ColorOrder = "grey" if spec[2] == 1 else options.normalization.color
    labels = read_labels(options.labels, max(2, units), binary=units == 1)
    shape = (1, spec[2], *spec[:2]) if channels_first else (1, *spec)
    preprocessing = preprocessing_for(
        options.normalization, options.preprocess, options.resize, options.fit, channels=spec[2]
    )
    variant_id = f"{format_}-{facts.precision}"
    file = f"{variant_id}.{format_}"
    with bundle_folder(options.output, options.force) as folder:
        copyfile(options.model, folder / file)
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in labels.names), encoding="utf-8")
        variant = Variant(
            id=variant_id,
            format=format_,  # type: ignore[arg-type]  # a value of FORMAT_OF
            precision=facts.precision,
            file=file,
            bytes=(folder / file).stat().st_size,
            sha256=sha256_file(folder / file),
            input=msgspec.structs.replace(facts.input, shape=shape, channels_first=channels_first),
            output=msgspec.structs.replace(facts.output, shape=(1, units)),
        )
        manifest = Manifest(
            name=options.output.stem,
            made_with={"edgevid": __version__, ENGINES[format_]: version(ENGINES[format_])},
            source=SourceModel(file=options.model.name, sha256=variant.sha256),
            input=InputSpec(height=spec[0], width=spec[1], channels=spec[2], color=color),  # type: ignore[arg-type]
            preprocessing=preprocessing,
            value_range=preprocessing.value_range,
            output=OutputSpec(classes=max(2, units), activation=options.activation or "sigmoid", binary=units == 1),
            smoothing=Smoothing(window=options.window),
            labels_sha256=sha256_file(folder / LABELS_FILE),
            calibration=None,
            variants=(variant,),
            remarks=labels.remarks,
        )
        write_manifest(manifest, folder)
        write_manifest(_tried(manifest, Bundle(folder), options, facts), folder)
    return Bundle(options.output)


def _tried(manifest: Manifest, bundle: Bundle, options: PackOptions, facts: Facts) -> Manifest:
    """Return the manifest with what only a run can tell: the activation, and whether it takes several frames."""
    (variant,), spec = manifest.variants, manifest.input
    clips = [*noise_frames(spec.height, spec.width, spec.channels), _plain_frames(spec)]
    try:
        with variant_answers(bundle, variant) as answers:
            rows = np.concatenate([answers(clip) for clip in clips])
        several = takes_batches(bundle, variant, clips)
    except BackendError as error:
        raise ModelError(str(error)) from error
    if not np.isfinite(rows).all():
        raise ModelError(f"{options.model}: it answers to noise with something that is no number")
    output = msgspec.structs.replace(
        manifest.output, activation=options.activation or _activation_of(options, manifest, facts, rows)
    )
    variants = (msgspec.structs.replace(variant, free_batch=several),)
    return msgspec.structs.replace(manifest, output=output, variants=variants)


def _plain_frames(spec: InputSpec) -> Clip:
    """Return pictures of one level each, from black to white."""
    shape = spec.height, spec.width, spec.channels
    return Clip([np.full(shape, level, np.uint8) for level in range(0, 256, 51)])


def _activation_of(options: PackOptions, manifest: Manifest, facts: Facts, rows: npt.NDArray[np.float32]) -> Activation:
    """Return what the last layer is, told by its operators and its answers.

    ``rows`` are of a manifest that says sigmoid, with which scores stay what they are; of a binary model two a frame.
    """
    scores = rows[:, 1:] if manifest.output.binary else rows
    (variant,) = manifest.variants
    step = variant.output.scale or (1 / 256 if variant.precision.startswith("int8") else 0.0)
    slack = SUM_SLACK + step * scores.shape[1]
    return activation_of(options.model, facts.operators, facts.last, scores, slack)


def _image(options: PackOptions, facts: Facts) -> tuple[tuple[int, int, int], bool]:
    """Return height, width and channels, and whether the channels come first.

    Raises:
        ModelError: the input is no image.
        UsageError: the size is open and not given, or is another than the one given.
    """
    shape = list(facts.input_shape)
    if len(shape) != 4 or shape[0] not in (1, None):
        raise ModelError(
            f"{options.model}: its input has the shape {shape}; expected one image, such as (1, 224, 224, 3)"
        )
    if shape[3] in (1, 3):
        first, channels, size = False, shape[3], shape[1:3]
    elif shape[1] in (1, 3):
        first, channels, size = True, shape[1], shape[2:4]
    else:
        raise ModelError(f"{options.model}: its input has the shape {shape}; expected 1 or 3 channels, first or last")
    asked = options.image_size
    if asked is None and None in size:
        raise UsageError(f"{options.model}: it leaves its image size open; give it with --image-size H,W")
    if asked and any(own not in (None, given) for own, given in zip(size, asked, strict=True)):
        raise UsageError(f"--image-size {asked[0]},{asked[1]}: {options.model} takes {size[0]},{size[1]}; leave it out")
    height, width = asked or (size[0], size[1])
    return (int(height or 0), int(width or 0), int(channels or 0)), first


def _units(model: Path, shape: Sequence[int | None]) -> int:
    """Return how many scores there are, in whatever place of the shape."""
    sizes = [size for size in shape[1:] if size is not None]
    if shape[:1] not in ([1], [None]) or len(sizes) < max(1, len(shape) - 1) or np.prod(sizes) != max(sizes):
        raise ModelError(f"{model}: its answer has the shape {list(shape)}; expected (1, classes), a classifier's")
    return max(sizes)


def _tflite_facts(path: Path) -> Facts:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: LiteRT cannot load it: {first_line(error)}") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    _one_of_each(path, [each["name"] for each in inputs], [each["name"] for each in outputs])
    image, answer = (_tflite_tensor(path, details[0]) for details in (inputs, outputs))
    dtypes = {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    kinds = {operator["op_name"] for operator in operators}
    precision: Precision = "fp16" if "float16" in dtypes else "fp32"
    if "int8" in dtypes or "uint8" in dtypes:
        precision = "int8" if "QUANTIZE" in kinds else "dynamic-int8"
    return Facts(
        input_shape=[None if size < 0 else int(size) for size in inputs[0]["shape_signature"]],
        output_shape=[int(size) for size in outputs[0]["shape"]],
        input=image,
        output=answer,
        precision="int8-full" if image.quantized else precision,
        operators={
            str(index): Operator(operator["op_name"], [str(each) for each in operator["inputs"]])
            for operator in operators
            if operator["op_name"] != "DELEGATE"
            for index in operator["outputs"]
        },
        last=str(outputs[0]["index"]),
    )


def _tflite_tensor(path: Path, details: dict[str, Any]) -> Tensor:
    dtype = np.dtype(details["dtype"]).name
    if dtype not in ("float32", "int8", "uint8"):
        raise ModelError(f"{path}: {details['name']!r} is of {dtype}; expected float32, int8 or uint8")
    scale, zero_point = details["quantization"]
    quantized = {} if dtype == "float32" else {"scale": float(scale), "zero_point": int(zero_point)}
    return msgspec.convert({"shape": (1,), "dtype": dtype, **quantized}, Tensor)


def _onnx_facts(path: Path) -> Facts:
    try:
        from edgevid.backends.onnxruntime import open_session, operator_kinds
    except ImportError as error:
        raise MissingExtraError(f"{path}", "onnxruntime", "onnx") from error
    try:
        session = open_session(path, 1)
    except Exception as error:
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _one_of_each(path, [each.name for each in inputs], [each.name for each in outputs])
    for each in (*inputs, *outputs):
        if each.type not in ONNX_DTYPES:
            raise ModelError(f"{path}: {each.name!r} is a {each.type}; expected tensor(float)")
    shapes = [[size if isinstance(size, int) else None for size in each.shape] for each in (*inputs, *outputs)]
    tensor = Tensor(shape=(1,), dtype="float32")
    integers = {"DequantizeLinear", "QLinearConv", "ConvInteger"} & operator_kinds(session)
    operators = _onnx_operators(path)
    return Facts(shapes[0], shapes[1], tensor, tensor, "int8" if integers else "fp32", operators, outputs[0].name)


def _onnx_operators(path: Path) -> dict[str, Operator]:
    """Return the operators of a file; none where the package onnx is not installed, which a device does without."""
    try:
        import onnx
    except ImportError:
        return {}
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return {name: Operator(node.op_type, list(node.input)) for node in nodes for name in node.output}


def _one_of_each(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for what, names in (("input", inputs), ("output", outputs)):
        if len(names) != 1:
            raise ModelError(f"{path}: {len(names)} {what}s ({', '.join(names)}); expected one, a classifier's")


def describe_choice(bundle: Bundle) -> str:
    """Return which backend runs the bundle's variant, where it runs, and what it takes, for reading."""
    (variant,) = bundle.manifest.variants
    name, _ = choose_backend(bundle, variant_id=variant.id)
    with load_backend(name, bundle, variant, BackendOptions(threads=1)) as backend:
        return f"{variant.id}: {name} on {backend.proof}"

"""A conversion from beginning to end: load, sample frames, convert, prove, and write the bundle."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid._version import __version__
from edgevid.backends import choose_backend, load_backend
from edgevid.bundle import Bundle, sha256_file
from edgevid.errors import BundleError, ModelError, UsageError
from edgevid.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    Calibration,
    InputSpec,
    Manifest,
    OutputSpec,
    Preprocessing,
    Smoothing,
    SourceModel,
    Tensor,
    Variant,
)
from edgevid.postprocess import Postprocessor, softmax
from edgevid.preprocess import Preprocessor
from edgevid_convert.frames import Clip, FrameSet, noise_frames, sample_frames
from edgevid_convert.loading import TracedModel, load_model
from edgevid_convert.options import CALIBRATED_PRECISIONS, ConvertOptions
from edgevid_convert.parity import Scores, compare
from edgevid_convert.to_onnx import convert_to_onnx, describe_onnx, quantize_onnx
from edgevid_convert.to_tflite import convert_to_tflite, describe_tflite

__all__ = ["convert_model"]

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")

# Called with what is being done, how far it has come, and how far it has to go (None: unknown).
Progress = Callable[[str, int, int | None], None]


def convert_model(options: ConvertOptions, progress: Progress = lambda what, done, total: None) -> Bundle:
    """Convert a Keras model into a bundle and measure each variant against it.

    The bundle appears under its name when it is complete; an interrupted conversion leaves nothing.

    Args:
        options: what to convert, and how.
        progress: called as the work goes on.

    Raises:
        ModelError: the model is no image classifier, or a converter cannot express it.
        UsageError: an option contradicts the model.
        SourceError: a calibration source cannot be read.
        BundleError: the output exists, and ``options.force`` is false.
    """
    progress("loading the model", 0, None)
    model = load_model(options.model, options.image_size)
    labels = _labels(options.labels, model.classes)
    input_spec = _input_spec(model)
    preprocessing = _preprocessing(options, model.channels)
    preprocessor = _float_preprocessor(input_spec, preprocessing)
    frames = _frames(options, preprocessor, progress)
    with _bundle_folder(options.output, options.force) as folder:
        calibration = _tensors(frames.calibration, preprocessor)
        variants, left_out = _convert_variants(model, options, calibration, folder, progress)
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        manifest = Manifest(
            name=options.output.stem,
            made_with=_versions(),
            source=SourceModel(file=options.model.name, sha256=_sha256(options.model)),
            input=input_spec,
            preprocessing=preprocessing,
            value_range=preprocessing.value_range,
            output=OutputSpec(classes=model.classes, activation=model.activation),
            smoothing=Smoothing(window=options.window),
            labels_sha256=sha256_file(folder / LABELS_FILE),
            calibration=_calibration(options, frames),
            variants=variants,
            left_out=left_out,
        )
        _write(manifest, folder)
        clips = frames.held_out or noise_frames(model.height, model.width, model.channels)
        _write(_proven(Bundle(folder), model, clips, progress), folder)
    return Bundle(options.output)


def _convert_variants(
    model: TracedModel,
    options: ConvertOptions,
    calibration: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    progress: Progress,
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Return the variants made, and the reason for each that could not be; one asked for by name must be made."""
    variants, left_out = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for index, variant_id in enumerate(options.variant_ids):
            progress(f"converting to {variant_id}", index, len(options.variant_ids))
            try:
                variants.append(_convert_variant(model, variant_id, calibration, folder, Path(scratch)))
            except ModelError as error:
                if options.by_name:
                    raise ModelError(f"{error}; leave it out with --formats or --precision") from error
                left_out[variant_id] = str(error)
                for rubble in folder.glob(f"{variant_id}.*"):
                    rubble.unlink()
    if not variants:
        raise ModelError(f"{options.model}: it can be converted to nothing; {next(iter(left_out.values()))}")
    return tuple(variants), left_out


def _convert_variant(
    model: TracedModel,
    variant_id: str,
    calibration: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    scratch: Path,
) -> Variant:
    """Write one variant into ``folder``; what several variants start from is made once, in ``scratch``."""
    saved_model, float_onnx = scratch / "frozen", scratch / "fp32.onnx"
    format_, precision = variant_id.split("-", 1)
    path = folder / f"{variant_id}.{format_}"
    if format_ == "tflite":
        if not saved_model.exists():
            model.save_frozen(saved_model)
        convert_to_tflite(saved_model, precision, calibration, path)
        return _variant(variant_id, path, describe_tflite(path))
    if not float_onnx.exists():
        convert_to_onnx(model, float_onnx)
    if precision == "int8":
        quantize_onnx(float_onnx, calibration, path)
    else:
        shutil.copyfile(float_onnx, path)
    return _variant(variant_id, path, describe_onnx(path))


def _variant(variant_id: str, path: Path, tensors: tuple[Tensor, Tensor, tuple[str, ...]]) -> Variant:
    format_, precision = variant_id.split("-", 1)
    input_tensor, output_tensor, float_operators = tensors
    return Variant(
        id=variant_id,
        format=format_,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        input=input_tensor,
        output=output_tensor,
        float_operators=float_operators if precision in CALIBRATED_PRECISIONS else (),
    )


def _proven(bundle: Bundle, model: TracedModel, clips: Sequence[Clip], progress: Progress) -> Manifest:
    """Return the manifest with every variant's parity, measured through the runtime's own backends."""
    manifest = bundle.manifest
    spacings = [clip.spacing for clip in clips]
    data: Literal["held-out", "noise"] = "held-out" if manifest.calibration else "noise"
    progress("asking the Keras model", 0, None)
    preprocessor = _float_preprocessor(manifest.input, manifest.preprocessing)
    reference = [
        _probabilities(np.concatenate([model(tensor) for tensor in _tensors(clip.frames, preprocessor)]), model)
        for clip in clips
    ]
    proven = []
    for index, variant in enumerate(manifest.variants):
        progress(f"comparing {variant.id} with Keras", index, len(manifest.variants))
        candidate = [_answers(bundle, variant, clip) for clip in clips]
        parity = compare(reference, candidate, spacings, manifest.smoothing.window, data, model.activation)
        if not np.isfinite(parity.max_abs_error):
            raise ModelError(
                f"{variant.id}: it answers with something that is no number; leave it out with --precision"
            )
        proven.append(msgspec.structs.replace(variant, parity=parity))
    return msgspec.structs.replace(manifest, variants=tuple(proven))


def _answers(bundle: Bundle, variant: Variant, clip: Clip) -> Scores:
    """Return what a variant answers to a clip: probabilities, float32 (frames, classes)."""
    manifest = bundle.manifest
    preprocessor = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
    postprocess = Postprocessor(manifest.output, variant.output)
    name, _ = choose_backend(bundle, variant_id=variant.id)
    answers = np.empty((len(clip.frames), manifest.output.classes), np.float32)
    with load_backend(name, bundle, variant) as backend:
        for row, pixels in zip(answers, clip.frames, strict=True):
            preprocessor.encode(pixels, backend.input)
            row[:] = postprocess(backend.infer())
    return answers


def _probabilities(answers: Scores, model: TracedModel) -> Scores:
    return softmax(answers) if model.activation == "logits" else answers


def _float_preprocessor(spec: InputSpec, preprocessing: Preprocessing) -> Preprocessor:
    """Return the runtime's preprocessing for the Keras model itself, which takes float32."""
    tensor = Tensor(shape=(1, spec.height, spec.width, spec.channels), dtype="float32")
    return Preprocessor(spec, preprocessing, tensor)


def _tensors(frames: Sequence[npt.NDArray[np.uint8]], preprocessor: Preprocessor) -> list[npt.NDArray[np.float32]]:
    tensors = []
    for pixels in frames:
        tensor = np.empty((1, *pixels.shape), np.float32)
        preprocessor.encode(pixels, tensor)
        tensors.append(tensor)
    return tensors


def _frames(options: ConvertOptions, preprocessor: Preprocessor, progress: Progress) -> FrameSet:
    if not options.calib:
        return FrameSet()

    def report(name: str, index: int, total: int | None) -> None:
        progress(f"sampling {name}", index, total)

    return sample_frames(options.calib, preprocessor, options.calib_frames, report)


def _calibration(options: ConvertOptions, frames: FrameSet) -> Calibration | None:
    if not options.calib:
        return None
    return Calibration(
        sources=tuple(Path(name).name for name in options.calib),
        frames=len(frames.calibration),
        near_duplicates=frames.near_duplicates,
        held_out=frames.held_out_count,
    )


def _input_spec(model: TracedModel) -> InputSpec:
    color = "grey" if model.channels == 1 else "rgb"
    return InputSpec(height=model.height, width=model.width, channels=model.channels, color=color)  # type: ignore[arg-type]


def _preprocessing(options: ConvertOptions, channels: int) -> Preprocessing:
    for name, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, channels):
            raise UsageError(f"{name}: {len(values)} numbers for {channels} channel(s); give one, or one a channel")
    return Preprocessing(
        resize=options.resize,
        fit=options.fit,
        mean=options.mean if len(options.mean) == channels else options.mean * channels,
        std=options.std if len(options.std) == channels else options.std * channels,
    )


def _labels(path: Path | None, classes: int) -> tuple[str, ...]:
    if path is None:
        return tuple(f"class {index}" for index in range(classes))
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except UnicodeDecodeError as error:
        raise UsageError(f"--labels {path}: not UTF-8 text; expected one label a line") from error
    if len(labels) != classes:
        raise ModelError(
            f"--labels {path}: {len(labels)} labels for the model's {classes} classes; expected one a line"
        )
    return labels


def _write(manifest: Manifest, folder: Path) -> None:
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_FILE).write_bytes(text + b"\n")


@contextmanager
def _bundle_folder(output: Path, force: bool) -> Iterator[Path]:
    """Yield a folder that takes the name ``output`` when the block ends well; else nothing of it is left."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise BundleError(
            f"{output}: the folder {output.parent.resolve()} cannot be written ({error.strerror}); use --output"
        ) from error
    try:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        old = scratch / "old"
        if output.exists() and force:
            output.rename(old)
        try:
            folder.rename(output)
        except BaseException:
            if old.exists():
                old.rename(output)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _versions() -> dict[str, str]:
    """Return the version of edgevid and of each tool that took part."""
    tools = {tool: str(import_module(tool).__version__) for tool in TOOLS}
    return {"edgevid": __version__, **tools, "ai-edge-litert": version("ai-edge-litert")}


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file or, for a SavedModel folder, of its files' names and SHA-256 in order."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()

"""A conversion from beginning to end: load, sample frames, convert, prove, and write the bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid._version import __version__
from edgevid.bundle import Bundle, sha256_file, write_manifest
from edgevid.errors import UsageError
from edgevid.manifest import (
    LABELS_FILE,
    Calibration,
    ColorOrder,
    InputSpec,
    Manifest,
    OutputSpec,
    SequenceSpec,
    SourceModel,
    Variant,
)
from edgevid.methods import Smoothing
from edgevid.preprocess import Preprocessor
from edgevid_convert.evaluation import LabelledClip, sample_labelled
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.frames import FrameSet, noise_frames, sample_frames, sample_windows
from edgevid_convert.input_checks import check_input
from edgevid_convert.judging import Judging, keras_accuracy
from edgevid_convert.loading.model import FrozenModel, load_model
from edgevid_convert.options import ConvertOptions
from edgevid_convert.proof import float_preprocessor, input_tensors, keras_answers, takes_batches
from edgevid_convert.writing import bundle_folder, preprocessing_for, read_labels

if TYPE_CHECKING:
    from edgevid_convert.variants import Progress

__all__ = ["convert_model"]

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")


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
    model = load_model(
        options.model, options.image_size, custom_objects=options.custom_objects, trust=options.trust_model
    )
    from edgevid_convert.variants import convert_variants  # TensorFlow comes with it; imported while the child loads

    if options.features:
        from edgevid_convert.loading.cutting import cut_before_last_layer

        model = cut_before_last_layer(options.model, model)
    labels = read_labels(options.labels, model.classes)
    input_spec = _input_spec(model, options)
    preprocessing = preprocessing_for(
        options.normalization, options.preprocess, options.resize, options.fit, model.channels
    )
    preprocessor = float_preprocessor(input_spec, preprocessing)
    frames = _frames(options, model, preprocessor, progress)
    progress("looking at the first layers", 0, None)
    layers = FirstLayers(model.graph)
    remarks = check_input(options, layers, model.statistics, input_spec, preprocessing, frames.calibration)
    labelled = _labelled(options, labels, model, preprocessor, progress)
    with bundle_folder(options.output, options.force) as folder:
        calibration = input_tensors(frames.calibration, preprocessor)
        variants, heads, left_out = convert_variants(model, options, calibration, folder, progress)
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        manifest = Manifest(
            name=options.output.stem,
            made_with=_versions(),
            source=SourceModel(file=options.model.name, sha256=_sha256(options.model)),
            input=input_spec,
            preprocessing=preprocessing,
            value_range=preprocessing.value_range,
            output=OutputSpec(classes=model.classes, activation=model.activation),
            smoothing=Smoothing(window=options.smoothing_window(model.frames)),
            labels_sha256=sha256_file(folder / LABELS_FILE),
            calibration=_calibration(options, frames),
            max_drop=options.max_drop,
            variants=variants,
            left_out=left_out,
            remarks=remarks,
            sequence=_sequence(model, options, heads),
        )
        write_manifest(manifest, folder)
        manifest = keras_accuracy(Bundle(folder), model, labelled)
        write_manifest(manifest, folder)
        proven = _proven(model, options, frames, calibration, labelled, folder, progress)
        progress("writing the bundle", 0, None)
        write_manifest(msgspec.structs.replace(manifest, variants=tuple(proven)), folder)
    return Bundle(options.output)


def _proven(
    model: FrozenModel,
    options: ConvertOptions,
    frames: FrameSet,
    calibration: Sequence[npt.NDArray[np.float32]],
    labelled: Sequence[LabelledClip],
    folder: Path,
    progress: Progress,
) -> list[Variant]:
    """Return the variants in ``folder`` held against the Keras model, and better ones for those that fall short."""
    from edgevid_convert.improve import SearchFrames, improved  # TensorFlow comes with it

    bundle = Bundle(folder)
    manifest, variants = bundle.manifest, bundle.manifest.variants
    progress("asking the Keras model", 0, None)
    clips = frames.held_out or noise_frames(*model.picture_shape)
    judging = Judging(bundle, clips, [keras_answers(model, manifest, clip) for clip in clips], labelled)
    judged = []
    for index, variant in enumerate(variants):
        progress(f"comparing {variant.id} with Keras", index, len(variants))
        judged.append(judging.judged(variant))
    preprocessor = float_preprocessor(manifest.input, manifest.preprocessing)
    searched = SearchFrames(
        clips=[input_tensors(clip.frames, preprocessor) for clip in frames.search],
        spacings=[clip.spacing for clip in frames.search],
        reference=[keras_answers(model, manifest, clip) for clip in frames.search],
    )
    better = improved(model, judged, options, calibration, searched, folder, judging.judged, progress)
    return [msgspec.structs.replace(each, free_batch=takes_batches(bundle, each, clips)) for each in better]


def _sequence(model: FrozenModel, options: ConvertOptions, heads: tuple[Variant, ...]) -> SequenceSpec | None:
    if model.head is not None:
        frames, features = model.head.input_shape[1:]
        return SequenceSpec(frames=frames, hop=options.hop or 1, features=features, heads=heads)
    if model.frames:
        return SequenceSpec(frames=model.frames, hop=options.hop or max(1, model.frames // 2))
    return None


def _frames(options: ConvertOptions, model: FrozenModel, preprocessor: Preprocessor, progress: Progress) -> FrameSet:
    if options.hop is not None and not model.frames:
        raise UsageError(f"--hop {options.hop}: the model takes single frames, not windows; leave it out")
    if not options.calib:
        return FrameSet()
    most, on_frame = options.calib_frames, _sampling(progress)
    if model.frames:
        split = model.head is not None
        frames = sample_windows(options.calib, preprocessor, model.frames, split, most, on_frame)
    else:
        frames = sample_frames(options.calib, preprocessor, most, on_frame)
    if options.search and not frames.search:
        raise UsageError(
            f"--search: too few frames to search by in --calib {' '.join(options.calib)}; give a longer one"
        )
    return frames


def _labelled(
    options: ConvertOptions,
    labels: Sequence[str],
    model: FrozenModel,
    preprocessor: Preprocessor,
    progress: Progress,
) -> list[LabelledClip]:
    if options.evaluation is None:
        return []
    output = OutputSpec(classes=model.classes, activation=model.activation)
    return sample_labelled(
        options.evaluation,
        labels,
        output,
        preprocessor,
        options.evaluation_frames,
        options.calib,
        _sampling(progress),
        model.frames,
    )


def _sampling(progress: Progress) -> Callable[[str, int, int | None], None]:
    return lambda name, index, total: progress(f"sampling {name}", index, total)


def _calibration(options: ConvertOptions, frames: FrameSet) -> Calibration | None:
    if not options.calib:
        return None
    return Calibration(
        sources=tuple(Path(name).name for name in options.calib),
        frames=len(frames.calibration),
        near_duplicates=frames.near_duplicates,
        held_out=frames.held_out_count,
        searched=sum(len(clip.frames) for clip in frames.search),
    )


def _input_spec(model: FrozenModel, options: ConvertOptions) -> InputSpec:
    if model.channels == 1 and options.color is not None:
        raise UsageError(f"--color {options.color}: the model takes one channel, grey; leave it out")
    color: ColorOrder = "grey" if model.channels == 1 else options.normalization.color
    return InputSpec(height=model.height, width=model.width, channels=model.channels, color=color)


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

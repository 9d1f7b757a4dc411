"""One conversion, in the process that does the work: load, sample frames, convert, prove, fill the bundle's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid._version import __version__
from edgevid.bundle import Bundle, sha256_file, write_manifest
from edgevid.errors import BackendError, ModelError, UsageError
from edgevid.manifest import (
    LABELS_FILE,
    Activation,
    Calibration,
    ColorOrder,
    InputSpec,
    Manifest,
    SequenceSpec,
    SourceModel,
    Variant,
)
from edgevid.methods import Smoothing
from edgevid.preprocess import Preprocessor
from edgevid_convert.calib_sources import source_names
from edgevid_convert.causes import cause_of
from edgevid_convert.evaluation import LabelledClip, sample_labelled
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.frames import FrameSet, noise_frames, sample_frames, sample_windows
from edgevid_convert.input_checks import check_input
from edgevid_convert.judging import Judging, keras_accuracy
from edgevid_convert.labels import read_labels
from edgevid_convert.loading.isolation import memory_limit
from edgevid_convert.loading.model import FrozenModel, load_model
from edgevid_convert.options import ConvertOptions
from edgevid_convert.proof import float_preprocessor, input_tensors, keras_answers, takes_batches
from edgevid_convert.reporting import Crashed, Progress, Reporter
from edgevid_convert.writing import preprocessing_for

__all__ = ["fill_bundle", "load_as_asked"]

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")


def load_as_asked(options: ConvertOptions) -> FrozenModel:
    """Load the model of a conversion, cut in two where its features are asked for.

    Raises:
        ModelError, UsageError: see :func:`edgevid_convert.loading.model.load_model`.
    """
    state = options.model.stat()
    remembering = options.model.is_file() and options.custom_objects is None
    model = (_loaded if remembering else _loaded.__wrapped__)(
        options.model,
        (state.st_mtime_ns, state.st_size, str(Path.cwd()), memory_limit()),
        options.image_size,
        options.custom_objects,
        options.trust_model,
        options.signature,
        options.activation,
    )
    if not options.features:
        return model
    from edgevid_convert.loading.graphs.cutting import cut_before_last_layer

    return cut_before_last_layer(options.model, model)


@lru_cache(maxsize=1)  # a program that converts one file in several ways waits for it once
def _loaded(
    path: Path,
    state: tuple[int, int, str, float],
    image_size: tuple[int, int] | None,
    custom_objects: Path | None,
    trust: bool,
    signature: str | None,
    activation: Activation | None,
) -> FrozenModel:
    """Load a model, of which ``state`` tells whether all is as it was before."""
    return load_model(
        path,
        image_size,
        custom_objects=custom_objects,
        trust=trust,
        signature=signature,
        activation=activation,
    )


def fill_bundle(folder: Path, options: ConvertOptions, crashed: Crashed, report: Reporter) -> None:
    """Convert a Keras model, measure each variant against it, and write all that into a folder.

    Args:
        folder: an empty one.
        options: what to convert, and how.
        crashed: what is not tried again.
        report: told as the work goes on.

    Raises:
        ModelError: the model is no image classifier, or a converter cannot express it.
        UsageError: an option contradicts the model.
        SourceError: a calibration source cannot be read.
    """
    report("loading the model", 0, None)
    model = load_as_asked(options)
    from edgevid_convert.variants import convert_variants  # TensorFlow comes with it; imported while the child loads

    labels = read_labels(options.labels, model.classes, model.binary)
    input_spec = _input_spec(model, options)
    preprocessing = preprocessing_for(
        options.normalization, options.preprocess, options.resize, options.fit, model.channels
    )
    preprocessor = float_preprocessor(input_spec, preprocessing)
    frames = _frames(options, model, preprocessor, report)
    report("looking at the first layers", 0, None)
    layers = FirstLayers(model.graph)
    remarks = check_input(options, layers, model.statistics, input_spec, preprocessing, frames.calibration)
    labelled = _labelled(options, labels.names, model, preprocessor, report)
    calibration = input_tensors(frames.calibration, preprocessor)
    variants, heads, left_out = convert_variants(model, options, calibration, folder, crashed.variants, report)
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in labels.names), encoding="utf-8")
    manifest = Manifest(
        name=options.output.stem,
        made_with=_versions(),
        source=SourceModel(file=options.model.name, sha256=_sha256(options.model)),
        input=input_spec,
        preprocessing=preprocessing,
        value_range=preprocessing.value_range,
        output=model.output,
        smoothing=Smoothing(window=options.smoothing_window(model.frames)),
        labels_sha256=sha256_file(folder / LABELS_FILE),
        calibration=_calibration(options, frames),
        max_drop=options.max_drop,
        variants=variants,
        left_out=left_out,
        remarks=(*remarks, *frames.remarks(), *labels.remarks),
        sequence=_sequence(model, options, heads),
    )
    write_manifest(manifest, folder)
    manifest = keras_accuracy(Bundle(folder), model, labelled)
    write_manifest(manifest, folder)
    proven, unloadable = _proven(model, options, frames, calibration, labelled, folder, crashed, report)
    report("writing the bundle", 0, None)
    left_out = {**left_out, **unloadable}
    write_manifest(msgspec.structs.replace(manifest, variants=tuple(proven), left_out=left_out), folder)


def _proven(
    model: FrozenModel,
    options: ConvertOptions,
    frames: FrameSet,
    calibration: Sequence[npt.NDArray[np.float32]],
    labelled: Sequence[LabelledClip],
    folder: Path,
    crashed: Crashed,
    report: Reporter,
) -> tuple[list[Variant], dict[str, str]]:
    """Return the variants held against the Keras model, better ones for those that fall short, and who cannot run.

    Raises:
        ModelError: none can run, or one that was asked for by name.
    """
    from edgevid_convert.improve import SearchFrames, improved  # TensorFlow comes with it

    bundle = Bundle(folder)
    manifest = bundle.manifest
    report("asking the Keras model", 0, None)
    clips = frames.held_out or noise_frames(*model.picture_shape)
    judging = Judging(bundle, clips, [keras_answers(model, manifest, clip) for clip in clips], labelled)
    judged, unloadable = _judged(judging, options, report)
    preprocessor = float_preprocessor(manifest.input, manifest.preprocessing)
    searched = SearchFrames(
        clips=[input_tensors(clip.frames, preprocessor) for clip in frames.search],
        spacings=[clip.spacing for clip in frames.search],
        reference=[keras_answers(model, manifest, clip) for clip in frames.search],
    )
    better = improved(model, judged, options, calibration, searched, folder, judging.judged, crashed.searches, report)
    proven = []
    for variant in better:
        with report.on(variant.id, "comparing"):
            proven.append(msgspec.structs.replace(variant, free_batch=takes_batches(bundle, variant, clips)))
    return proven, unloadable


def _judged(judging: Judging, options: ConvertOptions, report: Reporter) -> tuple[list[Variant], dict[str, str]]:
    """Return the variants with how they compare, and those that their engine cannot run, with the reason."""
    judged, unloadable = [], {}
    variants = judging.bundle.manifest.variants
    for index, variant in enumerate(variants):
        try:
            with report.on(variant.id, "comparing"):
                report(f"comparing {variant.id} with Keras", index, len(variants))
                judged.append(judging.judged(variant))
        except (BackendError, ModelError) as error:
            if options.needs(variant.id):
                raise ModelError(
                    f"{variant.id}: {cause_of(error)}; leave it out with --formats or --precision"
                ) from error
            unloadable[variant.id] = cause_of(error)
            (judging.bundle.path / variant.file).unlink(missing_ok=True)
    if not judged:
        raise ModelError(f"{options.model}: no variant of it runs; {next(iter(unloadable.values()))}")
    return judged, unloadable


def _sequence(model: FrozenModel, options: ConvertOptions, heads: tuple[Variant, ...]) -> SequenceSpec | None:
    if model.head is not None:
        frames, features = model.head.input_shape[1:]
        return SequenceSpec(frames=frames, hop=options.hop or 1, features=features, heads=heads)
    if model.frames:
        return SequenceSpec(frames=model.frames, hop=options.hop or max(1, model.frames // 2))
    return None


def _frames(options: ConvertOptions, model: FrozenModel, preprocessor: Preprocessor, report: Reporter) -> FrameSet:
    if options.hop is not None and not model.frames:
        raise UsageError(f"--hop {options.hop}: the model takes single frames, not windows; leave it out")
    if not options.calib:
        return FrameSet()
    most, on_frame = options.calib_frames, _sampling(report)
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
    report: Reporter,
) -> list[LabelledClip]:
    if options.evaluation is None:
        return []
    return sample_labelled(
        options.evaluation,
        labels,
        model.output,
        preprocessor,
        options.evaluation_frames,
        options.calib,
        _sampling(report),
        model.frames,
    )


def _sampling(progress: Progress) -> Callable[[str, int, int | None], None]:
    return lambda name, index, total: progress(f"sampling {name}", index, total)


def _calibration(options: ConvertOptions, frames: FrameSet) -> Calibration | None:
    if not options.calib:
        return None
    return Calibration(
        sources=source_names(options.calib),
        frames=len(frames.calibration),
        near_duplicates=frames.near_duplicates,
        held_out=frames.held_out_count,
        distinct_held_out=frames.distinct_held_out,
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

"""What a conversion is asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevid.bundle import BUNDLE_SUFFIX
from edgevid.errors import BundleError, ModelError, SourceError, UsageError
from edgevid.manifest import MANIFEST_FILE, VARIANT_IDS, Activation, ColorOrder, Fit, Resize, check_hop
from edgevid.window import parse_window
from edgevid_convert.calib_sources import find_calib
from edgevid_convert.preprocessing import Normalization, chosen_normalization

__all__ = [
    "CALIBRATED_PRECISIONS",
    "EDGE_TPU_VARIANT",
    "FORMATS",
    "MODEL_SUFFIXES",
    "PRECISIONS",
    "TARGETS",
    "ConvertOptions",
    "check_output",
    "default_output",
]

FORMATS = ("tflite", "onnx")
PRECISIONS = ("fp32", "fp16", "dynamic-int8", "int8", "int8-full")
DEFAULT_WINDOW = 64
CALIBRATED_PRECISIONS = frozenset({"int8", "int8-full"})
TARGETS = ("tflite-runtime", "edgetpu")
EDGE_TPU_VARIANT = "tflite-int8-full"
MODEL_SUFFIXES = frozenset({".h5", ".hd5", ".hdf", ".hdf5", ".keras", ".model", ".onnx", ".tflite"})


@dataclass(frozen=True)
class ConvertOptions:
    """A conversion, as asked for; refuses what cannot be meant.

    Attributes:
        model: a ``.keras`` or ``.h5`` file, whatever its name, or a SavedModel folder.
        output: the bundle to write, ``NAME.edgevid``.
        labels: a file of labels, or a folder whose sub-folders have their names; None for ``class 0``, ``class 1``, …
        calib: videos, pictures, folders and patterns of them, that look like what the device will see.
        calib_frames: how many frames to calibrate on, at most.
        formats: model formats to write; empty for all, of which one may fail.
        precisions: precisions to write; empty for all that are possible.
        target: what the TFLite files must also suit, one of ``TARGETS``; None for nothing in particular.
        image_size: height and width; None for what the model states.
        signature: of a SavedModel, the one to call; None for the default one.
        activation: what the last layer makes of its logits; None to tell it.
        insist: convert with a ``preprocess`` that a model which normalizes by itself makes doubtful.
        preprocess: a name in the table of normalizations; None for ``mean`` and ``std``.
        mean, std: in grey levels, one number or one a channel: input = (pixel − mean) / std; None for 0 and 1.
        color: the order of the model's channels; None for what ``preprocess`` says, else RGB.
        resize, fit: how frames come to the model's size.
        window: the bundle's default rolling average, in frames; None for 64 or, of a model of several frames at a time,
            as many as it takes: so the answers averaged are those that share a frame with the newest.
        hop: of such a model, the bundle's default: classify the window every ``hop`` frames; None for 1 where each
            frame passes its CNN once, else for half a window.
        features: cut an image classifier before its last layer, so that a clip's features can be pooled.
        force: replace a bundle of that name.
        custom_objects: a Python file that defines the model's own layers.
        trust_model: load a model that may run code of its own.
        evaluation: labelled clips, a folder with a sub-folder a class or a CSV file; None to judge by none.
        evaluation_frames: how many frames of them to judge by, at most.
        max_drop: the share of smoothed labels, or of accuracy, that a variant may lose before it is rejected.
        search: whether to search for the best int8; None to search where plain int8 misses the gate.
        search_minutes: how long to search, at most.
        seed: of what is chosen at random in a search.
    """

    model: Path
    output: Path
    labels: Path | None = None
    calib: tuple[str, ...] = ()
    calib_frames: int = 120
    formats: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    target: str | None = None
    image_size: tuple[int, int] | None = None
    signature: str | None = None
    activation: Activation | None = None
    insist: bool = False
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: ColorOrder | None = None
    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    window: int | None = None
    hop: int | None = None
    features: bool = False
    force: bool = False
    custom_objects: Path | None = None
    trust_model: bool = False
    evaluation: Path | None = None
    evaluation_frames: int = 300
    max_drop: float = 0.02
    search: bool | None = None
    search_minutes: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_known("format", self.formats, FORMATS)
        _check_known("precision", self.precisions, PRECISIONS)
        _check_known("target", (self.target,) if self.target else (), TARGETS)
        parse_window(self.smoothing_window())
        check_hop(1 if self.hop is None else self.hop)
        _ = self.normalization
        if self.calib_frames < 1:
            raise UsageError(f"--calib-frames {self.calib_frames}: expected 1 or more")
        if self.evaluation_frames < 1:
            raise UsageError(f"--eval-frames {self.evaluation_frames}: expected 1 or more")
        if not 0 <= self.max_drop <= 1:
            raise UsageError(f"--max-drop {self.max_drop:g}: expected a share from 0 to 1, such as 0.02")
        if not 0 < self.search_minutes < math.inf:
            raise UsageError(f"--search-minutes {self.search_minutes:g}: expected a number above 0")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if self.search and not self.calib:
            raise UsageError("--search needs frames to calibrate on: add --calib VIDEO or --calib FOLDER")
        asked_in_vain = CALIBRATED_PRECISIONS.intersection(self.precisions)
        if asked_in_vain and not self.calib:
            raise UsageError(
                f"--precision {'/'.join(sorted(asked_in_vain))} needs frames to calibrate on: "
                "add --calib VIDEO or --calib FOLDER"
            )
        if not self.variant_ids:
            raise UsageError(
                f"no variant is both in the format {', '.join(self.formats or FORMATS)} and of the precision "
                f"{', '.join(self.precisions)}; there are {', '.join(VARIANT_IDS)}"
            )
        if self.target == "edgetpu" and EDGE_TPU_VARIANT not in self.variant_ids:
            raise UsageError(
                f"--target edgetpu takes {EDGE_TPU_VARIANT} alone, which is not asked for: add "
                "--calib VIDEO or FOLDER, with tflite among --formats and int8-full among --precision"
            )
        self._check_paths()
        check_output(self.output, self.force, self._read())

    @property
    def normalization(self) -> Normalization:
        """How pixels become the numbers that the model gets."""
        return chosen_normalization(self.preprocess, self.mean, self.std, self.color)

    @property
    def by_name(self) -> bool:
        """Whether the user named the precisions to make, so that each must be made in each format."""
        return bool(self.precisions)

    @property
    def formats_named(self) -> bool:
        """Whether the user named the formats to make: whatever each of them can do."""
        return bool(self.formats)

    def smoothing_window(self, frames: int = 0) -> int:
        """Return how many predictions the rolling average spans of a model that takes so many frames at a time."""
        if self.window is not None:
            return self.window
        return min(frames, DEFAULT_WINDOW) if frames > 1 else DEFAULT_WINDOW

    def needs(self, variant_id: str) -> bool:
        """Whether the conversion fails without this variant."""
        return self.by_name or (self.target == "edgetpu" and variant_id == EDGE_TPU_VARIANT)

    @property
    def variant_ids(self) -> tuple[str, ...]:
        """The variants to make, in the order of the table of variants."""
        wanted = self.precisions or tuple(
            precision for precision in PRECISIONS if self.calib or precision not in CALIBRATED_PRECISIONS
        )
        return tuple(
            variant_id
            for variant_id in VARIANT_IDS
            if variant_id.split("-", 1)[0] in (self.formats or FORMATS) and variant_id.split("-", 1)[1] in wanted
        )

    def _read(self) -> Iterator[Path]:
        """Yield the files and folders that are read."""
        yield from filter(None, (self.model, self.labels, self.custom_objects, self.evaluation))
        yield from (file for source in find_calib(self.calib) for file in source.files)

    def _check_paths(self) -> None:
        if not self.model.exists():
            raise ModelError(f"{self.model}: no such model; expected a .keras or .h5 file, or a SavedModel folder")
        if self.labels is not None and not self.labels.exists():
            raise ModelError(
                f"--labels {self.labels}: no such file or folder; expected a file of labels, or a folder whose "
                "sub-folders have their names"
            )
        if self.custom_objects is not None and not self.custom_objects.is_file():
            raise ModelError(f"--custom-objects {self.custom_objects}: no such file; expected a Python file, MODULE.py")
        find_calib(self.calib)
        if self.evaluation is not None and not self.evaluation.exists():
            raise SourceError(
                f"--eval {self.evaluation}: no such file or folder; "
                "expected a folder with a sub-folder for each class, or a CSV file with the columns clip,label"
            )


def check_output(output: Path, force: bool, read: Iterable[Path]) -> None:
    """Check that a bundle can be written under a name, before any work; ``read`` is what it is made of.

    Raises:
        UsageError: the name is not one of a bundle; or something that is read is in the bundle to be replaced.
        BundleError: it exists, and is not to be replaced or no bundle; or its folder cannot be written.
    """
    if output.suffix != BUNDLE_SUFFIX:
        raise UsageError(f"--output {output}: expected a name ending in {BUNDLE_SUFFIX}")
    if output.exists() and not force:
        raise BundleError(f"{output}: it exists already; name another with --output, or use --force")
    if output.exists() and not (output / MANIFEST_FILE).is_file():
        raise BundleError(f"{output}: it exists and is no bundle, so --force keeps it; use --output")
    if output.exists() and (inside := [path for path in read if output.resolve() in path.resolve().parents]):
        raise UsageError(f"{inside[0]}: it is in {output}, and would be lost with it; name another --output")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise BundleError(f"{output}: the folder {output.parent.resolve()} cannot be written; use --output")


def default_output(model: Path) -> Path:
    """Return the bundle's name for a model when none is given, in the current folder."""
    path = model.resolve()
    # Other suffixes may be no suffixes: mobilenet_1.0_224.
    return Path(f"{path.stem if path.suffix.lower() in MODEL_SUFFIXES else path.name}{BUNDLE_SUFFIX}")


def _check_known(kind: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise UsageError(f"{kind} {value!r}: expected one or more of {','.join(known)}")

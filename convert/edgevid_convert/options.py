"""What a conversion is asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgevid.bundle import BUNDLE_SUFFIX
from edgevid.errors import BundleError, ModelError, SourceError, UsageError
from edgevid.manifest import MANIFEST_FILE, VARIANT_IDS, Fit, Resize
from edgevid.ring import check_window
from edgevid.sources import SAMPLE_PREFIX

__all__ = ["CALIBRATED_PRECISIONS", "FORMATS", "PRECISIONS", "ConvertOptions", "default_output"]

FORMATS = ("tflite", "onnx")
PRECISIONS = ("fp32", "fp16", "dynamic-int8", "int8", "int8-full")
CALIBRATED_PRECISIONS = frozenset({"int8", "int8-full"})


@dataclass(frozen=True)
class ConvertOptions:
    """A conversion, as asked for; refuses what cannot be meant.

    Attributes:
        model: a ``.keras`` or ``.h5`` file, or a SavedModel folder.
        output: the bundle to write, ``NAME.edgevid``.
        labels: a text file, one label a line; None for ``class 0``, ``class 1``, …
        calib: videos and folders of images that look like what the device will see.
        calib_frames: how many frames to calibrate on, at most.
        formats: model formats to write.
        precisions: precisions to write; empty for all that are possible.
        image_size: height and width; None for what the model states.
        mean, std: in grey levels, one number or one a channel: input = (pixel − mean) / std.
        resize, fit: how frames come to the model's size.
        window: the bundle's default rolling average, in frames.
        force: replace a bundle of that name.
    """

    model: Path
    output: Path
    labels: Path | None = None
    calib: tuple[str, ...] = ()
    calib_frames: int = 120
    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    window: int = 64
    force: bool = False

    def __post_init__(self) -> None:
        _check_known("format", self.formats or ("",), FORMATS)
        _check_known("precision", self.precisions, PRECISIONS)
        check_window(self.window)
        if self.calib_frames < 1:
            raise UsageError(f"--calib-frames {self.calib_frames}: expected 1 or more")
        asked_in_vain = CALIBRATED_PRECISIONS.intersection(self.precisions)
        if asked_in_vain and not self.calib:
            raise UsageError(
                f"--precision {'/'.join(sorted(asked_in_vain))} needs frames to calibrate on: "
                "add --calib VIDEO or --calib FOLDER"
            )
        if not self.variant_ids:
            raise UsageError(
                f"no variant is both in the format {', '.join(self.formats)} and of the precision "
                f"{', '.join(self.precisions)}; there are {', '.join(VARIANT_IDS)}"
            )
        self._check_paths()

    @property
    def by_name(self) -> bool:
        """Whether the user named what to make, so that every part of it must be made."""
        return bool(self.precisions) or self.formats != FORMATS

    @property
    def variant_ids(self) -> tuple[str, ...]:
        """The variants to make, in the order of the table of variants."""
        wanted = self.precisions or tuple(
            precision for precision in PRECISIONS if self.calib or precision not in CALIBRATED_PRECISIONS
        )
        return tuple(
            variant_id
            for variant_id in VARIANT_IDS
            if variant_id.split("-", 1)[0] in self.formats and variant_id.split("-", 1)[1] in wanted
        )

    def _check_paths(self) -> None:
        if not self.model.exists():
            raise ModelError(f"{self.model}: no such model; expected a .keras or .h5 file, or a SavedModel folder")
        if self.labels is not None and not self.labels.is_file():
            raise ModelError(f"--labels {self.labels}: no such file; expected a text file with one label a line")
        for source in self.calib:
            if not source.startswith(SAMPLE_PREFIX) and not Path(source).exists():
                raise SourceError(f"--calib {source}: no such file or folder; expected a video or a folder of images")
        if self.output.suffix != BUNDLE_SUFFIX:
            raise UsageError(f"--output {self.output}: expected a name ending in {BUNDLE_SUFFIX}")
        if self.output.exists() and not self.force:
            raise BundleError(f"{self.output}: it exists already; name another with --output, or use --force")
        if self.output.exists() and not (self.output / MANIFEST_FILE).is_file():
            raise BundleError(f"{self.output}: it exists and is no bundle, so --force keeps it; use --output")
        parent = self.output.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise BundleError(f"{self.output}: the folder {parent.resolve()} cannot be written; use --output")


def default_output(model: Path) -> Path:
    """Return the bundle's name for a model when none is given: beside nothing, in the current folder."""
    return Path(f"{model.resolve().stem}{BUNDLE_SUFFIX}")


def _check_known(kind: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise UsageError(f"{kind} {value!r}: expected one or more of {','.join(known)}")

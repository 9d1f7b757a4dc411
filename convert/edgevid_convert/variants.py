"""Makes the variants of a model, one after the other, each by the converter of its format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevid.bundle import sha256_file
from edgevid.errors import ModelError
from edgevid.manifest import Variant
from edgevid_convert.causes import cause_of
from edgevid_convert.loading.frozen import FrozenGraph, FrozenModel
from edgevid_convert.options import CALIBRATED_PRECISIONS, ConvertOptions
from edgevid_convert.reporting import Reporter
from edgevid_convert.targets import fit_to_target
from edgevid_convert.to_onnx import convert_to_onnx, describe_onnx, quantize_onnx
from edgevid_convert.to_tflite import convert_to_tflite, describe_tflite

__all__ = ["FloatFiles", "convert_head", "convert_variant", "convert_variants", "described"]


def convert_variants(
    model: FrozenModel,
    options: ConvertOptions,
    calibration: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    crashed: Mapping[str, str],
    report: Reporter,
) -> tuple[tuple[Variant, ...], tuple[Variant, ...], dict[str, str]]:
    """Return the variants made, the heads that go with them where the model is split, and why others could not be.

    Args:
        model: the float model.
        options: the conversion's.
        calibration: input tensors, float32 (1, height, width, channels).
        folder: where to write them.
        crashed: variants that are not tried, with the reason.
        report: told as the work goes on.

    Raises:
        ModelError: one that was asked for by name cannot be made, or none can of a format that was.
    """
    variants, left_out = [], {}
    heads: dict[str, Variant] = {}
    with tempfile.TemporaryDirectory() as scratch:
        starts = FloatFiles(model, Path(scratch))
        for index, variant_id in enumerate(options.variant_ids):
            format_ = variant_id.partition("-")[0]
            try:
                if variant_id in crashed:
                    raise ModelError(f"{variant_id}: {crashed[variant_id]}")
                with report.on(variant_id, "converting"):
                    report(f"converting to {variant_id}", index, len(options.variant_ids))
                    if model.head and format_ not in heads:
                        heads[format_] = convert_head(model.head, format_, folder, options.target)
                    variants.append(convert_variant(starts, variant_id, calibration, folder, options.target))
            except Exception as error:
                said = str(error) if isinstance(error, ModelError) else f"{variant_id}: {cause_of(error)}"
                if options.needs(variant_id):
                    remedy = "; leave it out with --formats or --precision" if options.by_name else ""
                    raise ModelError(f"{said}{remedy}") from error
                left_out[variant_id] = said.removeprefix(f"{variant_id}: ")
                for rubble in folder.glob(f"{variant_id}.*"):
                    rubble.unlink()
    _check_formats(options, variants, left_out)
    kept = {variant.format for variant in variants}
    for format_ in [each for each in heads if each not in kept]:
        (folder / heads.pop(format_).file).unlink()
    return tuple(variants), tuple(heads.values()), left_out


def _check_formats(options: ConvertOptions, variants: Sequence[Variant], left_out: Mapping[str, str]) -> None:
    """Check that there is a variant, and one of each format that was asked for by name."""
    if not variants:
        raise ModelError(f"{options.model}: it can be converted to nothing; {next(iter(left_out.values()))}")
    for format_ in options.formats if options.formats_named else ():
        if all(variant.format != format_ for variant in variants):
            reason = next(why for variant_id, why in left_out.items() if variant_id.startswith(format_))
            raise ModelError(f"{options.model}: nothing can be made in --formats {format_}: {reason}")


@dataclass(frozen=True)
class FloatFiles:
    """What several variants of one model start from, each made when it is first asked for.

    Args:
        model: the float model.
        folder: where to make it.
    """

    model: FrozenModel
    folder: Path

    @cached_property
    def saved_model(self) -> Path:
        """The model as a SavedModel folder."""
        path = self.folder / "frozen"
        self.model.save_frozen(path)
        return path

    @cached_property
    def onnx(self) -> Path:
        """The model as a float ``.onnx`` file."""
        path = self.folder / "fp32.onnx"
        convert_to_onnx(self.model, path, batches=not self.model.frames or self.model.head is not None)
        return path

    @cached_property
    def tflite(self) -> Path:
        """The model as a float ``.tflite`` file."""
        path = self.folder / "fp32.tflite"
        convert_to_tflite(self.saved_model, "fp32", [], path)
        return path


def convert_variant(
    starts: FloatFiles,
    variant_id: str,
    calibration: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    target: str | None,
) -> Variant:
    """Write one variant into ``folder``, by the converter of its format alone.

    Raises:
        ModelError: the converter cannot express the model, or not as the target takes it.
    """
    format_, precision = variant_id.split("-", 1)
    path = folder / f"{variant_id}.{format_}"
    if format_ == "tflite":
        convert_to_tflite(starts.saved_model, precision, calibration, path, per_channel_dense=target is None)
    elif precision == "int8":
        quantize_onnx(starts.onnx, calibration, path)
    else:
        shutil.copyfile(starts.onnx, path)
    if precision in CALIBRATED_PRECISIONS and not DESCRIBED[format_](path)[3]:
        raise ModelError(f"{variant_id}: all of it computes in float, so that it would be no int8")
    return fit_to_target(described(variant_id, path), target, folder)


def convert_head(head: FrozenGraph, format_: str, folder: Path, target: str | None) -> Variant:
    """Write the head of a split model into ``folder``, in float32: it is small, and sums up a whole window.

    Raises:
        ModelError: the converter cannot express it, or not as the target takes it.
    """
    path = folder / f"head.{format_}"
    if format_ == "tflite":
        with tempfile.TemporaryDirectory() as scratch:
            head.save_frozen(Path(scratch))
            convert_to_tflite(Path(scratch), "fp32", [], path)
    else:
        convert_to_onnx(head, path, batches=False)
    return fit_to_target(described(f"{format_}-fp32", path), target, folder)


def described(variant_id: str, path: Path) -> Variant:
    """Return the variant that a file is, as far as the file tells."""
    format_, precision = variant_id.split("-", 1)
    input_tensor, output_tensor, float_operators, _ = DESCRIBED[format_](path)
    return Variant(
        id=variant_id,
        format=format_,  # type: ignore[arg-type]  # the ids of the table of variants are made of these
        precision=precision,  # type: ignore[arg-type]
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        input=input_tensor,
        output=output_tensor,
        float_operators=float_operators if precision in CALIBRATED_PRECISIONS else (),
    )


DESCRIBED = {"tflite": describe_tflite, "onnx": describe_onnx}

"""Makes the variants of a model, one after the other, each by the converter of its format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid.bundle import sha256_file
from edgevid.errors import ModelError
from edgevid.manifest import Tensor, Variant
from edgevid_convert.loading import TracedModel
from edgevid_convert.options import CALIBRATED_PRECISIONS, ConvertOptions
from edgevid_convert.to_onnx import convert_to_onnx, describe_onnx, quantize_onnx
from edgevid_convert.to_tflite import convert_to_tflite, describe_tflite

__all__ = ["Progress", "convert_variants"]

# Called with what is being done, how far it has come, and how far it has to go (None: unknown).
Progress: TypeAlias = Callable[[str, int, int | None], None]


def convert_variants(
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
        format=format_,  # type: ignore[arg-type]  # the ids of the table of variants are made of these
        precision=precision,  # type: ignore[arg-type]
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        input=input_tensor,
        output=output_tensor,
        float_operators=float_operators if precision in CALIBRATED_PRECISIONS else (),
    )

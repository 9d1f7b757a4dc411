"""Opens SavedModels: the signature that takes images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevid.errors import ModelError, UsageError
from edgevid_convert.causes import cause_of
from edgevid_convert.engine import tf
from edgevid_convert.loading.opened import Opened

__all__ = ["open_saved_model"]

DEFAULT_SIGNATURE = "serving_default"


def open_saved_model(path: Path, signature_name: str | None) -> Opened:
    """Open a SavedModel that was looked through.

    Args:
        path: its folder.
        signature_name: the signature to call; None for the default one, or the only one that takes numbers.

    Raises:
        ModelError: it cannot be read, has no signature, or not one input and one output.
        UsageError: it has no signature of that name, or several that could be meant.
    """
    try:
        owner = tf.saved_model.load(str(path))
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot load it: {cause_of(error)}") from error
    signature = _signature(path, dict(owner.signatures), signature_name)
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1:
        raise ModelError(f"{path}: {len(inputs)} inputs ({', '.join(inputs)}); expected one image input")
    if len(outputs) != 1:
        raise ModelError(f"{path}: {len(outputs)} outputs ({', '.join(outputs)}); expected one, the classes")
    (input_name, spec), output_name = next(iter(inputs.items())), next(iter(outputs))
    shape = tuple(spec.shape) if spec.shape.rank is not None else ()
    return Opened(lambda image: signature(**{input_name: image})[output_name], shape, spec.dtype, owner)


def _signature(path: Path, signatures: Mapping[str, Any], wanted: str | None) -> Any:
    if not signatures:
        raise ModelError(f"{path}: it has no signature to call; save it with one, as model.export() does")
    listed = ", ".join(signatures)
    if wanted is not None:
        if wanted not in signatures:
            raise UsageError(f"{path}: --signature {wanted}: it has none of that name; expected one of {listed}")
        if not _takes_numbers(signatures[wanted]):
            raise UsageError(f"{path}: --signature {wanted}: it takes text or bytes, no pixels; it has {listed}")
        return signatures[wanted]
    if DEFAULT_SIGNATURE in signatures and _takes_numbers(signatures[DEFAULT_SIGNATURE]):
        return signatures[DEFAULT_SIGNATURE]
    of_numbers = [name for name, signature in signatures.items() if _takes_numbers(signature)]
    if not of_numbers:
        raise ModelError(
            f"{path}: no signature takes pixels: {listed} takes text or bytes; export the model that follows the "
            "decoding of the image"
        )
    if len(of_numbers) > 1:
        raise UsageError(f"{path}: it has several signatures: give one of {', '.join(of_numbers)} with --signature")
    return signatures[of_numbers[0]]


def _takes_numbers(signature: Any) -> bool:
    return all(spec.dtype != tf.string for spec in signature.structured_input_signature[1].values())

"""Where a frame goes in the model's input: which part of it, and to which part of the input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevid.manifest import Fit

__all__ = ["Fitting", "fitting"]


@dataclass(frozen=True)
class Fitting:
    """The part of the frame that is resized (``source``), and where in the input it then lies (``target``)."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the target."""
        rows, columns = self.target
        return rows.stop - rows.start, columns.stop - columns.start


def fitting(fit: Fit, frame: tuple[int, int], model: tuple[int, int]) -> Fitting:
    """Return the fitting of a frame of that height and width, in a model's input of that height and width."""
    whole, everything = _box(0, 0, *frame), _box(0, 0, *model)
    if fit == "crop":
        return Fitting(_centred(frame, model), everything)
    return Fitting(whole, _letterbox(frame, model) if fit == "letterbox" else everything)


def _centred(frame: tuple[int, int], model: tuple[int, int]) -> tuple[slice, slice]:
    """Return the largest centred part of the frame with the aspect of the model.

    To the pixel what Keras does for ``crop_to_aspect_ratio``, and in ``smart_resize``.
    """
    crop_height = max(1, min(frame[0], frame[1] * model[0] // model[1]))
    crop_width = max(1, min(frame[1], frame[0] * model[1] // model[0]))
    return _box((frame[0] - crop_height) // 2, (frame[1] - crop_width) // 2, crop_height, crop_width)


def _letterbox(frame: tuple[int, int], model: tuple[int, int]) -> tuple[slice, slice]:
    """Return where the whole frame lies between black bars.

    To the pixel what ``tf.image.resize_with_pad`` does, and Keras' image loading for ``pad_to_aspect_ratio``;
    Keras' Resizing layer adds its bars before it resizes, and differs where a bar begins.
    """
    # In float32, as TensorFlow does it: rounding decides about a row of pixels, and so it did in training.
    own_height, own_width = np.float32(frame[0]), np.float32(frame[1])
    ratio = max(own_width / np.float32(model[1]), own_height / np.float32(model[0]))
    inner_height, inner_width = own_height / ratio, own_width / ratio
    top, left = max(0, int((model[0] - inner_height) / 2)), max(0, int((model[1] - inner_width) / 2))
    return _box(top, left, max(1, int(inner_height)), max(1, int(inner_width)))


def _box(top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
    return slice(top, top + height), slice(left, left + width)

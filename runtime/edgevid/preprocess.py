"""From a frame to the input tensor: fit and resize, reorder the channels, then one table look-up per pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Image
from edgevid.errors import UsageError
from edgevid.manifest import InputSpec, Preprocessing, Tensor

__all__ = ["Preprocessor"]

# Half-pixel centres and no antialiasing, as tf.image.resize and Keras' image loading do it. OpenCV's bicubic has
# another kernel than TensorFlow's, so there is none here.
INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
}
COLOR_CONVERSION = {"rgb": cv2.COLOR_BGR2RGB, "grey": cv2.COLOR_BGR2GRAY}


class Preprocessor:
    """Turns frames into the input tensor of one variant.

    The steps are :meth:`pixels` (geometry and colour, still uint8) and :meth:`encode` (numbers). Normalization
    and, for an integer input, quantization are folded into one table of 256 entries a channel.

    Args:
        input_spec: height, width, channels and colour order of the model.
        preprocessing: resize method, fit, mean and std.
        tensor: dtype and quantization of the variant's input.
    """

    def __init__(self, input_spec: InputSpec, preprocessing: Preprocessing, tensor: Tensor) -> None:
        self._input = input_spec
        self._fit = preprocessing.fit
        self._interpolation = INTERPOLATION[preprocessing.resize]
        self._table = encoding_table(input_spec.channels, preprocessing, tensor)
        self._channels_first = tensor.channels_first

    def __call__(self, image: Image, out: npt.NDArray[Any]) -> None:
        """Write the input tensor of ``image`` into ``out``, in place.

        Args:
            image: uint8 of shape (height, width, 3), BGR.
            out: of the shape and the dtype of the variant's input.
        """
        self.encode(self.pixels(image), out)

    def pixels(self, image: Image) -> Image:
        """Return ``image`` in the model's size and colour order: uint8 of shape (height, width, channels).

        Args:
            image: uint8 of shape (height, width, 3), BGR.

        Raises:
            UsageError: ``image`` has another shape or dtype.
        """
        # It may be None, or a path, whatever its type says.
        shape: tuple[int, ...] = getattr(image, "shape", ())
        dtype = getattr(image, "dtype", None)
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            what = type(image).__name__ if dtype is None else f"array of shape {shape} and dtype {dtype}"
            raise UsageError(f"frame: {what}; expected BGR uint8 of shape (height, width, 3)")
        fitted = self._fitted(image)
        if self._input.color == "bgr":
            return fitted
        converted = cv2.cvtColor(fitted, COLOR_CONVERSION[self._input.color])
        return _uint8(converted).reshape(self._input.height, self._input.width, self._input.channels)

    def encode(self, pixels: Image, out: npt.NDArray[Any]) -> None:
        """Write normalized and, if need be, quantized ``pixels`` into ``out``, in place."""
        if self._channels_first:
            out[0] = cv2.LUT(pixels, self._table).reshape(pixels.shape).transpose(2, 0, 1)
            return
        written = cv2.LUT(pixels, self._table, out[0])
        if not np.shares_memory(written, out):  # OpenCV returns a new array when it cannot use the given one
            out[0] = written.reshape(out[0].shape)

    def _fitted(self, image: Image) -> Image:
        height, width = self._input.height, self._input.width
        if self._fit == "crop":
            image = _cropped(image, height, width)
        elif self._fit == "letterbox":
            return self._letterboxed(image)
        return self._resized(image, width, height)

    def _letterboxed(self, image: Image) -> Image:
        """Return the whole ``image`` between black bars.

        To the pixel what ``tf.image.resize_with_pad`` does, and Keras' image loading for ``pad_to_aspect_ratio``;
        Keras' Resizing layer adds its bars before it resizes, and differs where a bar begins.
        """
        height, width = self._input.height, self._input.width
        # In float32, as TensorFlow does it: rounding decides about a row of pixels, and so it did in training.
        own_height, own_width = np.float32(image.shape[0]), np.float32(image.shape[1])
        ratio = max(own_width / np.float32(width), own_height / np.float32(height))
        inner_height, inner_width = own_height / ratio, own_width / ratio
        top, left = max(0, int((height - inner_height) / 2)), max(0, int((width - inner_width) / 2))
        inner = self._resized(image, max(1, int(inner_width)), max(1, int(inner_height)))
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def _resized(self, image: Image, width: int, height: int) -> Image:
        if image.shape[:2] == (height, width):
            return image
        return _uint8(cv2.resize(image, (width, height), interpolation=self._interpolation))


def encoding_table(channels: int, preprocessing: Preprocessing, tensor: Tensor) -> npt.NDArray[Any]:
    """Return the table from grey level to tensor value: shape (1, 256, channels), dtype of the tensor."""
    levels = np.arange(256, dtype=np.float64)[:, None]
    mean = np.broadcast_to(np.asarray(preprocessing.mean), channels)
    std = np.broadcast_to(np.asarray(preprocessing.std), channels)
    real = (levels - mean) / std
    dtype = np.dtype(tensor.dtype)
    if tensor.quantized:
        limits = np.iinfo(tensor.dtype)
        real = np.clip(np.rint(real / tensor.scale) + tensor.zero_point, limits.min, limits.max)
    table = real.astype(dtype)
    if (table == table[:, :1]).all():
        table = table[:, :1]  # one table for all channels: OpenCV looks it up twice as fast
    return np.ascontiguousarray(table[None])


def _cropped(image: Image, height: int, width: int) -> Image:
    """Return the largest centred part of ``image`` with the aspect of ``height`` and ``width``.

    To the pixel what Keras does for ``crop_to_aspect_ratio``, and in ``smart_resize``.
    """
    own_height, own_width = image.shape[:2]
    crop_height = max(1, min(own_height, own_width * height // width))
    crop_width = max(1, min(own_width, own_height * width // height))
    top, left = (own_height - crop_height) // 2, (own_width - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]


def _uint8(array: npt.NDArray[Any]) -> Image:
    """Tell the type checker what OpenCV's stubs do not: uint8 in, uint8 out."""
    assert array.dtype == np.uint8
    return array

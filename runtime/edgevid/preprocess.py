"""From a frame to the input tensor: fit and resize, reorder the channels, then one table look-up per pixel."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Image, Matrix
from edgevid.colors import from_yuv
from edgevid.errors import UsageError
from edgevid.fitting import fitting
from edgevid.manifest import ColorOrder, InputSpec, Preprocessing, Tensor
from edgevid.picture import Picture

if TYPE_CHECKING:
    from edgevid.planes import PlaneResizer, Planes

__all__ = ["Preprocessor", "checked_shape"]

# Half-pixel centres and no antialiasing, as tf.image.resize and Keras' image loading do it. OpenCV's bicubic has
# another kernel than TensorFlow's, so there is none here.
INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
}
FINE = 256  # steps in a grey level of resized planes
COLOR_CONVERSION = {"rgb": cv2.COLOR_BGR2RGB, "grey": cv2.COLOR_BGR2GRAY}


class Preprocessor:
    """Turns frames into the input tensor of one variant.

    The steps are geometry and colour, still uint8, and then numbers: normalization and, for an integer input,
    quantization are folded into one table of 256 entries a channel. Of video, the planes are resized, and only what
    is left of them is converted to the model's colour order. Everything is written into memory that is kept from
    frame to frame, so a preprocessor is used by one thread at a time.

    Args:
        input_spec: height, width, channels and colour order of the model.
        preprocessing: resize method, fit, mean and std.
        tensor: dtype and quantization of the variant's input.
    """

    def __init__(self, input_spec: InputSpec, preprocessing: Preprocessing, tensor: Tensor) -> None:
        self._input = input_spec
        self._size = input_spec.height, input_spec.width
        self._fit = preprocessing.fit
        self._interpolation = INTERPOLATION[preprocessing.resize]
        # FFmpeg resizes whole planes, and of those ways only bilinearly as Keras does.
        self._planes_will_do = preprocessing.resize == "bilinear" and preprocessing.fit != "crop"
        self._table = encoding_table(input_spec.channels, preprocessing, tensor)
        self._channels_first = tensor.channels_first
        self._pixels = np.zeros((*self._size, input_spec.channels), np.uint8)
        self._encoded = np.zeros(self._pixels.shape, tensor.dtype)
        self._shape = 0, 0
        self._resize_planes: PlaneResizer | None = None
        self._from_yuv = cache(_fine_matrix)

    def __call__(self, picture: Picture, out: npt.NDArray[Any]) -> None:
        """Write the input tensor of ``picture`` into ``out``, in place.

        Args:
            picture: uint8 of shape (height, width, 3), BGR; or its planes, where it comes from a video.
            out: of the shape and the dtype of the variant's input.
        """
        self._fill(picture)
        self.encode(self._pixels, out)

    def pixels(self, picture: Picture) -> Image:
        """Return ``picture`` in the model's size and colour order: uint8 of shape (height, width, channels).

        Args:
            picture: uint8 of shape (height, width, 3), BGR; or its planes, where it comes from a video.

        Raises:
            UsageError: ``picture`` has another shape or dtype.
        """
        self._fill(picture)
        return self._pixels.copy()

    def encode(self, pixels: Image, out: npt.NDArray[Any]) -> None:
        """Write normalized and, if need be, quantized ``pixels`` into ``out``, in place."""
        if self._channels_first:
            encoded = cv2.LUT(pixels, self._table, self._encoded)
            for channel, plane in enumerate(out[0]):
                _into(plane, cv2.extractChannel(encoded, channel, plane))
        else:
            _into(out[0], cv2.LUT(pixels, self._table, out[0]))

    def _fill(self, picture: Picture) -> None:
        """Write ``picture`` in the model's size and colour order."""
        planes = cast("Planes", picture) if hasattr(picture, "to_bgr") else None
        if planes and self._planes_will_do:
            self._prepare(planes.shape)
            self._fill_from_planes(planes)
            return
        image = planes.to_bgr() if planes else cast(Image, picture)
        self._prepare(checked_shape(image))
        self._fill_from_image(image)

    def _prepare(self, shape: tuple[int, int]) -> None:
        """Allocate what frames of one height and width need; those that follow mostly have the same."""
        if shape == self._shape:
            return
        self._shape = shape
        self._fitting = fitting(self._fit, shape, self._size)
        self._resized = np.empty((*self._fitting.size, 3), np.uint8)
        self._yuv = np.empty((*self._fitting.size, 3), np.uint16)
        self._resize_planes = None
        self._pixels.fill(0)  # the bars of a letterbox
        target = self._pixels[self._fitting.target]
        self._target = target[:, :, 0] if target.shape[2] == 1 else target  # as OpenCV wants it
        self._converted = np.empty(self._target.shape, np.uint16)

    def _fill_from_image(self, image: Image) -> None:
        part = image[self._fitting.source]
        height, width = self._fitting.size
        if part.shape[:2] != (height, width):
            resized = cv2.resize(part, (width, height), self._resized, interpolation=self._interpolation)
            part = resized.astype(np.uint8, copy=False)
        if self._input.color == "bgr":
            np.copyto(self._target, part)
        else:
            _into(self._target, cv2.cvtColor(part, COLOR_CONVERSION[self._input.color], self._target))

    def _fill_from_planes(self, planes: Planes) -> None:
        if self._resize_planes is None:
            from edgevid.planes import PlaneResizer  # and FFmpeg, which cameras do without

            self._resize_planes = PlaneResizer(self._fitting.size)
        self._resize_planes(planes, self._yuv)
        matrix = self._from_yuv(planes.matrix, planes.full_range, self._input.color)
        converted = cv2.transform(self._yuv, matrix, self._converted)
        _into(self._target, cv2.convertScaleAbs(converted, self._target, alpha=1 / FINE))


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


def _fine_matrix(matrix: Matrix, full_range: bool, color: ColorOrder) -> npt.NDArray[np.float32]:
    """Return :func:`from_yuv` for values in steps of 1/FINE grey level."""
    return from_yuv(matrix, full_range, color) * np.array([1, 1, 1, FINE], np.float32)


def checked_shape(image: Image) -> tuple[int, int]:
    """Return height and width of an image, whatever was given for one.

    Raises:
        UsageError: it is none.
    """
    # It may be None, or a path, whatever its type says.
    shape: tuple[int, ...] = getattr(image, "shape", ())
    dtype = getattr(image, "dtype", None)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        what = type(image).__name__ if dtype is None else f"array of shape {shape} and dtype {dtype}"
        raise UsageError(f"frame: {what}; expected BGR uint8 of shape (height, width, 3)")
    return shape[0], shape[1]


def _into(out: npt.NDArray[Any], written: npt.NDArray[Any]) -> None:
    """Copy what OpenCV has written into ``out``, unless it is there already: it allocates where it cannot use it."""
    if not np.may_share_memory(written, out):
        np.copyto(out, written.reshape(out.shape))

"""From a frame to the input tensor: geometry, colour, numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevid import UsageError
from edgevid.manifest import InputSpec, Preprocessing, Tensor
from edgevid.preprocess import Preprocessor
from tests.conftest import picture

RGB = InputSpec(height=32, width=48, channels=3, color="rgb")


def steps(**changes: Any) -> Preprocessing:
    return Preprocessing(**{"mean": (127.0, 120.0, 110.0), "std": (128.0, 64.0, 32.0), **changes})


def tensor(dtype: str = "float32", channels: int = 3, **quantization: Any) -> Tensor:
    return Tensor(shape=(1, 32, 48, channels), dtype=dtype, **quantization)  # type: ignore[arg-type]


def encoded(image: Any, spec: InputSpec, preprocessing: Preprocessing, target: Tensor) -> Any:
    out = np.zeros(target.shape, target.dtype)
    Preprocessor(spec, preprocessing, target)(image, out)
    return out


def test_normalization_in_the_models_channel_order() -> None:
    image = picture("red", 32, 48)
    out = encoded(image, RGB, steps(), tensor())
    expected = (image[..., ::-1].astype(np.float64) - [127, 120, 110]) / [128, 64, 32]
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)


def test_bgr_models_get_bgr() -> None:
    image = picture("red", 32, 48)
    spec = InputSpec(height=32, width=48, channels=3, color="bgr")
    out = encoded(image, spec, steps(mean=(0.0,) * 3, std=(1.0,) * 3), tensor())
    np.testing.assert_array_equal(out[0], image)


def test_grey_models_get_luma() -> None:
    image = picture("green", 32, 48)
    spec = InputSpec(height=32, width=48, channels=1, color="grey")
    out = encoded(image, spec, steps(mean=(0.0,), std=(1.0,)), tensor(channels=1))
    luma = image @ np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
    assert np.abs(out[0, ..., 0] - luma).max() <= 1


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integer_inputs_are_quantized_as_the_real_values_would_be(dtype: str) -> None:
    scale, zero_point = 0.02, -20 if dtype == "int8" else 100
    image = picture("blue", 32, 48)
    out = encoded(image, RGB, steps(), tensor(dtype, scale=scale, zero_point=zero_point))
    real = (image[..., ::-1].astype(np.float64) - [127, 120, 110]) / [128, 64, 32]
    limits = np.iinfo(dtype)
    expected = np.clip(np.rint(real / scale) + zero_point, limits.min, limits.max)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[0], expected)


def test_bilinear_is_what_tensorflow_does() -> None:
    tf = pytest.importorskip("tensorflow")
    image = picture("grey", 90, 120)
    raw = steps(mean=(0.0,) * 3, std=(1.0,) * 3)
    out = encoded(image, RGB, raw, tensor())
    expected = tf.image.resize(image[..., ::-1], (32, 48), "bilinear").numpy()
    assert np.abs(out[0] - expected).max() <= 1  # one grey level: ours rounds


def test_crop_keeps_the_centre_and_letterbox_keeps_everything() -> None:
    image = np.zeros((100, 400, 3), np.uint8)
    image[:, 125:275] = 255  # the centre, at the model's aspect of 48 : 32
    raw = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    cropped = encoded(image, RGB, steps(fit="crop", **raw), tensor())
    assert cropped.min() == 255
    boxed = encoded(image, RGB, steps(fit="letterbox", **raw), tensor())
    assert (boxed[0, 0] == 0).all()  # black above
    assert boxed[0, 16, 24, 0] == 255
    assert boxed[0, 16, 0, 0] == 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_a_frame_of_another_kind_is_named(image: Any) -> None:
    with pytest.raises(UsageError, match=r"expected BGR uint8 of shape \(height, width, 3\)"):
        encoded(image, RGB, steps(), tensor())


def test_preprocessing_refuses_impossible_values() -> None:
    with pytest.raises(UsageError, match=r"std .* expected numbers above 0"):
        steps(std=(1.0, 0.0, 1.0))
    with pytest.raises(UsageError, match=r"mean has 3 .* std has 1"):
        steps(std=(1.0,))
    with pytest.raises(UsageError, match="input size 0×4"):
        InputSpec(height=0, width=4, channels=3, color="rgb")
    with pytest.raises(UsageError, match="does not go with"):
        InputSpec(height=4, width=4, channels=3, color="grey")

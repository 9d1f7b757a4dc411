"""From a frame to the input tensor: geometry, colour, numbers."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from edgevid import UsageError, open_source
from edgevid.manifest import Fit, InputSpec, Preprocessing, Tensor
from edgevid.planes import Planes, plane_arrays
from edgevid.preprocess import Preprocessor
from tests.conftest import picture, write_tagged_clip

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


MATRIX_NUMBERS = {"bt709": 1, "unspecified": 2, "bt601": 6, "bt2020": 9}  # of ITU-T H.273


def planes(y: Any, u: Any, v: Any, matrix: str = "bt601", full_range: bool = False) -> Planes:
    layout = {(2, 2): "yuv420p", (1, 2): "yuv422p", (1, 1): "yuv444p"}
    (height, width), (rows, columns) = np.shape(y), np.shape(u)
    frame = VideoFrame(width, height, layout[height // rows, width // columns])
    for own, given in zip(plane_arrays(frame), (y, u, v), strict=True):
        own[:] = given
    frame.colorspace, frame.color_range = MATRIX_NUMBERS[matrix], 2 if full_range else 1
    return Planes(frame)


# Y, U, V of pure colours, computed from the standards' own formulas by hand: 16 + 219 Y', 128 + 224 Pb, 128 + 224 Pr.
@pytest.mark.parametrize(
    ("matrix", "full_range", "yuv", "rgb"),
    [
        ("bt601", False, (81, 90, 240), (255, 0, 0)),
        ("unspecified", False, (145, 54, 34), (0, 255, 0)),
        ("bt709", False, (63, 102, 240), (255, 0, 0)),
        ("bt709", False, (173, 42, 26), (0, 255, 0)),
        ("bt2020", False, (29, 240, 119), (0, 0, 255)),
        ("bt601", True, (76, 85, 255), (255, 0, 0)),
        ("bt709", True, (18, 255, 116), (0, 0, 255)),
        ("bt601", False, (235, 128, 128), (255, 255, 255)),
        ("bt601", False, (16, 128, 128), (0, 0, 0)),
    ],
)
def test_planes_become_the_colours_of_the_standards(
    matrix: str, full_range: bool, yuv: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    y, u, v = (np.full(shape, level) for shape, level in zip(((36, 64), (18, 32), (18, 32)), yuv, strict=True))
    for color, expected in (("rgb", rgb), ("bgr", rgb[::-1]), ("grey", (np.dot(rgb, (0.299, 0.587, 0.114)),))):
        spec = InputSpec(height=32, width=48, channels=len(expected), color=color)  # type: ignore[arg-type]
        raw = steps(mean=(0.0,), std=(1.0,))
        out = encoded(planes(y, u, v, matrix, full_range), spec, raw, tensor(channels=len(expected)))
        assert np.abs(out[0] - expected).max() <= 2.5, color  # what rounding Y, U and V to bytes can do


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("chroma", [(45, 80), (90, 80), (90, 160)], ids=["4:2:0", "4:2:2", "4:4:4"])
def test_planes_go_where_their_picture_would(fit: Fit, chroma: tuple[int, int]) -> None:
    height, width = 90, 160
    rows, columns = np.mgrid[0:height, 0:width]
    y = 60 + rows + columns / 4  # smooth, so that chroma of fewer pixels says the same
    u, v = (cv2.resize(plane, chroma[::-1]) for plane in (100 + columns / 4.0, 150.0 - rows / 4))
    luma = (y - 16) * 255 / 219
    full = [cv2.resize(plane, (width, height)) - 128 for plane in (u, v)]
    blue, red = luma + 2.017 * full[0], luma + 1.596 * full[1]
    image = np.dstack([blue, luma - 0.392 * full[0] - 0.813 * full[1], red]).clip(0, 255).round().astype(np.uint8)
    raw = steps(fit=fit, mean=(0.0,), std=(1.0,))
    from_planes, from_image = (encoded(each, RGB, raw, tensor()) for each in (planes(y, u, v), image))
    difference = np.abs(from_planes - from_image)
    most = 6 if fit == "crop" else 4  # which FFmpeg converts as a whole, to two levels exactly
    assert difference.max() <= most
    assert difference.mean() <= most / 2


@pytest.mark.parametrize("numbers", [(1, 1), (6, 1), (9, 1), (1, 2)], ids=["709", "601", "2020", "709 full"])
def test_a_file_says_how_its_colours_are_coded(tmp_path: Path, numbers: tuple[int, int]) -> None:
    write_tagged_clip(tmp_path / "tagged.mp4", *numbers)
    with open_source(tmp_path / "tagged.mp4") as source:
        shown = next(iter(source))
    assert isinstance(shown.picture, Planes)
    out = encoded(shown.picture, RGB, steps(mean=(0.0,), std=(1.0,)), tensor())
    assert np.abs(out[0].mean((0, 1)) - (40, 200, 40)).max() < 5
    assert np.abs(shown.image.mean((0, 1)) - (40, 200, 40)).max() < 5


def test_nothing_is_allocated_for_a_frame_like_the_one_before() -> None:
    spec = InputSpec(height=160, width=240, channels=3, color="rgb")
    channels_last, channels_first = (1, 160, 240, 3), (1, 3, 160, 240)
    targets = [
        Tensor(shape=channels_last, dtype="float32"),
        Tensor(shape=channels_last, dtype="int8", scale=0.02, zero_point=-20),
        Tensor(shape=channels_first, dtype="float32", channels_first=True),
    ]
    image = picture("red", 270, 480)
    picture_planes = planes(np.full((270, 480), 99), np.full((135, 240), 99), np.full((135, 240), 99))
    for target in targets:
        preprocess, out = Preprocessor(spec, steps(fit="letterbox"), target), np.zeros(target.shape, target.dtype)
        for each in (image, picture_planes):
            preprocess(each, out)
            tracemalloc.start()
            for _ in range(20):
                preprocess(each, out)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 20_000, "of small Python objects; the smallest array here has 115,200 bytes"


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

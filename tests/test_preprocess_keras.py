"""The device's resizing against TensorFlow's and Keras', on noise, where half a pixel of difference would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgevid.arrays import Image
from edgevid.manifest import Fit, InputSpec, Preprocessing, Resize, Tensor
from edgevid.preprocess import Preprocessor

pytestmark = pytest.mark.usefixtures("quiet_keras")
tf = pytest.importorskip("tensorflow")
ONE_LEVEL = 1.0  # ours rounds to whole grey levels
SIZES = [(37, 53), (101, 67), (480, 641), (33, 300), (20, 15), (64, 64)]  # height, width
TARGETS = [(32, 48), (64, 64), (97, 31), (224, 224)]
BOTH = [(size, target) for size in SIZES for target in TARGETS]
SHRINKING = [(size, target) for size, target in BOTH if size[0] >= target[0] and size[1] >= target[1]]
GROWING = [(size, target) for size, target in BOTH if size[0] <= target[0] and size[1] <= target[1]]


def noise(size: tuple[int, int]) -> Image:
    return np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)


def ours(image: Image, target: tuple[int, int], resize: Resize = "bilinear", fit: Fit = "stretch") -> Any:
    """Return what the device makes of an RGB image, RGB."""
    height, width = target
    spec = InputSpec(height=height, width=width, channels=3, color="rgb")
    steps = Preprocessing(resize=resize, fit=fit, mean=(0.0,) * 3, std=(1.0,) * 3)
    preprocessor = Preprocessor(spec, steps, Tensor(shape=(1, height, width, 3), dtype="float32"))
    return preprocessor.pixels(np.ascontiguousarray(image[..., ::-1])).astype(np.float32)


def assert_same(one: Any, other: Any, tolerance: float = ONE_LEVEL) -> None:
    assert one.shape == other.shape
    assert np.abs(one - np.asarray(other, np.float32)).max() <= tolerance


@pytest.mark.parametrize(("size", "target"), BOTH)
def test_bilinear_is_tensorflows(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert_same(ours(noise(size), target), tf.image.resize(noise(size), target, "bilinear"))


@pytest.mark.parametrize(("size", "target"), SHRINKING)
def test_area_is_tensorflows_where_both_sides_shrink(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert_same(ours(noise(size), target, "area"), tf.image.resize(noise(size), target, "area"))


@pytest.mark.parametrize(("size", "target"), BOTH)
def test_nearest_is_pillows_and_tensorflows_but_for_ties(size: tuple[int, int], target: tuple[int, int]) -> None:
    """Where a pixel's centre falls between two, TensorFlow's float32 may take either; Keras' load_img is exact."""
    from PIL import Image as Pillow

    found = ours(noise(size), target, "nearest")
    resized = Pillow.fromarray(noise(size)).resize(target[::-1], Pillow.Resampling.NEAREST)
    assert_same(found, np.asarray(resized), tolerance=0)
    ties = [{(2 * i + 1) * side % (2 * new) for i in range(new)} for side, new in zip(size, target, strict=True)]
    if all(0 not in tie for tie in ties):
        assert_same(found, tf.image.resize(noise(size), target, "nearest"), tolerance=0)


@pytest.mark.parametrize(("size", "target"), BOTH)
def test_crop_is_keras_smart_resize(keras: Any, size: tuple[int, int], target: tuple[int, int]) -> None:
    image = noise(size).astype(np.float32)
    assert_same(ours(noise(size), target, fit="crop"), keras.preprocessing.image.smart_resize(image, target))
    assert_same(ours(noise(size), target, fit="crop"), keras.ops.image.resize(image, target, crop_to_aspect_ratio=True))


@pytest.mark.parametrize(("size", "target"), BOTH)
def test_letterbox_is_tensorflows_resize_with_pad(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert_same(ours(noise(size), target, fit="letterbox"), tf.image.resize_with_pad(noise(size), *target))


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
def test_image_dataset_from_directory(keras: Any, tmp_path: Path, fit: Fit) -> None:
    for size in SIZES:
        cv2.imwrite(str(tmp_path / f"{size[0]}x{size[1]}.png"), noise(size)[..., ::-1])
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path,
        labels=None,
        shuffle=False,
        image_size=(48, 64),
        crop_to_aspect_ratio=fit == "crop",
        pad_to_aspect_ratio=fit == "letterbox",
        verbose=False,
    )
    expected = np.concatenate([batch.numpy() for batch in dataset])
    for file, image in zip(dataset.file_paths, expected, strict=True):
        height, width = map(int, Path(file).stem.split("x"))
        assert_same(ours(noise((height, width)), (48, 64), fit=fit), image)


@pytest.mark.parametrize(("size", "target"), GROWING)
def test_load_img(keras: Any, tmp_path: Path, size: tuple[int, int], target: tuple[int, int]) -> None:
    """Pillow's bilinear blurs before it shrinks, and there it is another: its default is nearest."""
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), noise(size)[..., ::-1])

    def loaded(interpolation: str) -> Any:
        image = keras.utils.load_img(path, target_size=target, interpolation=interpolation)
        return keras.utils.img_to_array(image)

    assert_same(ours(noise(size), target), loaded("bilinear"))
    assert_same(ours(noise(size), target, "nearest"), loaded("nearest"), tolerance=0)

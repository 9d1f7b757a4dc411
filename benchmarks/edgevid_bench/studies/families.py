"""The smallest member of each family of ``keras.applications``, with weights that let errors show."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FAMILIES", "Family", "make_realistic", "pictures", "save_member"]

CLASSES = 10
IMAGES = 16
LOGIT_SPREAD = 1.0  # standard deviation over images and classes: neither all alike nor all certain


class Family(NamedTuple):
    """A family by its smallest member, and the grey levels that it was made for: (level − mean) / std.

    ``open_size``: the member is built without an image size, as it comes by default.
    """

    member: str
    mean: float = 127.5
    std: float = 127.5
    open_size: bool = False


AS_THEY_ARE = (0.0, 1.0)  # these rescale grey levels by themselves
FAMILIES = {
    "xception": Family("Xception"),
    "vgg": Family("VGG16"),
    "resnet": Family("ResNet50"),
    "resnet_v2": Family("ResNet50V2"),
    "inception": Family("InceptionV3"),
    "inception_resnet": Family("InceptionResNetV2"),
    "mobilenet": Family("MobileNet"),
    "mobilenet_v2": Family("MobileNetV2"),
    "mobilenet_v3": Family("MobileNetV3Small", *AS_THEY_ARE, open_size=True),
    "densenet": Family("DenseNet121"),
    "nasnet": Family("NASNetMobile"),
    "efficientnet": Family("EfficientNetB0", *AS_THEY_ARE),
    "efficientnet_v2": Family("EfficientNetV2B0", *AS_THEY_ARE),
    "convnext": Family("ConvNeXtTiny", *AS_THEY_ARE),
}


def save_member(family: str, image_size: int, path: Path) -> None:
    """Build the smallest member of a family, give it realistic weights, and save it as a ``.keras`` file.

    Args:
        family: a key of ``FAMILIES``.
        image_size: height and width of its images, in pixels.
        path: the file to write.
    """
    from edgevid_convert.engine import keras

    row = FAMILIES[family]
    keras.utils.set_random_seed(0)
    shape = (None, None, 3) if row.open_size else (image_size, image_size, 3)
    model = getattr(keras.applications, row.member)(weights=None, classes=CLASSES, input_shape=shape)
    levels = np.stack(pictures(IMAGES, image_size))
    make_realistic(model, ((levels - row.mean) / row.std).astype(np.float32))
    model.save(path)


def pictures(count: int, image_size: int) -> list[npt.NDArray[np.uint8]]:
    """Return seeded pictures, uint8 (image_size, image_size, 3): coloured gradients in all directions, and noise."""
    generator = np.random.default_rng(1)
    across = np.linspace(-1, 1, image_size)
    made = []
    for _ in range(count):
        centre, right, down = generator.uniform(64, 192, 3), *generator.uniform(-80, 80, (2, 3))
        gradient = centre + across[None, :, None] * right + across[:, None, None] * down
        noise = generator.normal(0, generator.uniform(2, 40), gradient.shape)
        made.append(np.clip(gradient + noise, 0, 255).astype(np.uint8))
    return made


def make_realistic(model: Any, images: Any) -> None:
    """Give an untrained classifier weights like a trained one's, in place, so that a conversion's errors show.

    Untrained, biases and means are 0 and a residual branch's scale may be 1e-6: parts of the graph could be
    lost unseen. Here every bias and scale is random, batch normalization knows the statistics of ``images``, and the
    last layer tells the images apart.

    Args:
        model: a Keras classifier that ends in a softmax.
        images: float32 (images, height, width, channels), as the model takes them.
    """
    generator = np.random.default_rng(0)
    layers = [layer for layer in model._flatten_layers() if not getattr(layer, "layers", getattr(layer, "_layers", ()))]
    for layer in layers:
        for variable in layer.trainable_variables:
            if len(variable.shape) == 1:
                name = variable.name.rpartition("/")[2].partition(":")[0]  # of Keras 2 with its layer, and a number
                centre = 0.0 if name in ("bias", "beta") else 1.0
                variable.assign(generator.normal(centre, 0.1, variable.shape))
    normalizations = [layer for layer in layers if hasattr(layer, "moving_variance")]
    for layer in normalizations:
        layer.momentum = 0.0  # take the statistics of these images at once
    model(images, training=True)
    head = next(layer for layer in reversed(layers) if hasattr(layer, "kernel"))
    if not any("Normalization" in type(layer).__name__ for layer in layers):  # VGG: all images would look alike
        for layer in layers:
            if getattr(layer, "bias", None) is not None and layer is not head:
                _centre(model, layer, images)
    scores = np.log(np.asarray(model(images, training=False)) + 1e-30)
    scores -= scores.mean(axis=1, keepdims=True)  # the logits, but for a number that softmax does not see
    scale = LOGIT_SPREAD / scores.std(axis=0).mean()
    head.kernel.assign(head.kernel * scale)
    head.bias.assign((head.bias - scores.mean(axis=0)) * scale)


def _centre(model: Any, layer: Any, images: Any) -> None:
    """Have a layer answer with mean 0 and deviation 1 a channel, as batch normalization would, by its weights alone."""
    activation, layer.activation = layer.activation, None
    answers = np.asarray(type(model)(model.input, layer.output)(images))
    layer.activation = activation
    axes = tuple(range(answers.ndim - 1))
    mean, deviation = answers.mean(axis=axes), answers.std(axis=axes) + 1e-3
    layer.kernel.assign(layer.kernel / deviation)
    layer.bias.assign((layer.bias - mean) / deviation)

"""Normalizations by the names people know them by: what ``--preprocess`` takes, as colour order, mean and std."""

from __future__ import annotations

from dataclasses import dataclass

from edgevid.errors import UsageError
from edgevid.manifest import ColorOrder

__all__ = ["KERAS_FAMILIES", "NORMALIZATIONS", "Normalization", "chosen_normalization"]


@dataclass(frozen=True)
class Normalization:
    """Which numbers the model gets: input = (pixel − mean) / std, the channels in the order ``color``.

    ``mean`` and ``std`` are in grey levels of 0–255, one number or one a channel, in that order.
    """

    color: ColorOrder = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def identity(self) -> bool:
        """Whether the model gets grey levels as they are."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def in_order(self, color: ColorOrder) -> Normalization:
        """Return the same for channels in another order: each colour keeps its own mean and std."""
        return self if color == self.color else Normalization(color, self.mean[::-1], self.std[::-1])


PLAIN = {
    "none": Normalization(),
    "0-1": Normalization(std=(255.0,)),
    "-1-1": Normalization(mean=(127.5,), std=(127.5,)),
    "tf": Normalization(mean=(127.5,), std=(127.5,)),
    # ImageNet's mean and standard deviation, of pixels of 0–1: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225.
    "torch": Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    "caffe": Normalization("bgr", mean=(103.939, 116.779, 123.68)),
}
# What keras.applications.<family>.preprocess_input does; "none" where the models of a family rescale by themselves.
KERAS_FAMILIES = {
    "convnext": "none",
    "densenet": "torch",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "none",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet50": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}
NORMALIZATIONS = PLAIN | {f"keras:{family}": PLAIN[plain] for family, plain in KERAS_FAMILIES.items()}


def chosen_normalization(
    name: str | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, color: ColorOrder | None
) -> Normalization:
    """Return the normalization that the options ``--preprocess``, ``--mean``, ``--std`` and ``--color`` ask for.

    Raises:
        UsageError: the name is unknown, or both a name and numbers are given.
    """
    if name is None:
        return Normalization(color or "rgb", mean or (0.0,), std or (1.0,))
    if name not in NORMALIZATIONS:
        raise UsageError(f"--preprocess {name!r}: expected one of {', '.join(NORMALIZATIONS)}")
    if mean is not None or std is not None:
        numbers = "--mean" if mean is not None else "--std"
        raise UsageError(f"--preprocess {name} and {numbers} both say how pixels become numbers: give one of them")
    named = NORMALIZATIONS[name]
    return named.in_order(color or named.color)

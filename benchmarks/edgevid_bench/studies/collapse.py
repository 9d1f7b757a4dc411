"""Trains a classifier that plain int8 quantization breaks: real frames, a common mistake, and no weight touched after.

``keras.applications`` builds the scaling of pixels into MobileNetV3 and EfficientNet. Who puts a Rescaling(1/255)
before it as well, as many a tutorial does, scales twice, and the image becomes a faint pattern: for MobileNetV3 numbers
from −1 to −0.992.
Training hides it, since batch normalization restores the scale, and float answers as well as ever. Eight bits do not:
they span all of −1 to 0, so that the image falls on three levels of 256; and the zeros that pad it are so far from −1
that the first convolution's output reaches −7.6 at the border, where the image itself stays within ±0.3.
Float keeps Keras' answers; plain int8 keeps from 43 to 62 % of them, in both formats, with seeds 0 to 2. With the
first 18 of 220 ONNX operators in float, seed 0 keeps all again. EfficientNet-B0 is the counter-example: its scaling
has no −1 in it, and the same mistake costs it next to nothing.
Run it, with the clips of the [sample] extra installed (minutes):

    python -m edgevid_bench.studies.collapse --output FOLDER [--model mobilenet_v3_small|efficientnet_b0] [--seed 0]
    cd FOLDER
    edgevid convert model.keras --labels labels.txt --calib sample:bikes sample:bigbuckbunny sample:carphone

The classes are moments of the clips, each about a second long: which one does a frame belong to?
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgevid.manifest import InputSpec, Preprocessing, Tensor
from edgevid.preprocess import Preprocessor
from edgevid.sources import open_source

SIZE = 64
# Where the shots of each sample clip begin, and the last one ends, in frames.
SHOTS = {"bikes": (0, 30, 76, 137, 187, 242), "bigbuckbunny": (0, 132), "carphone": (0, 120)}
MOMENT_FRAMES = 30
EDGE_FRAMES = 2  # left out at both ends of a moment: they could as well be its neighbour's
HELD_OUT_EVERY = 5
BATCH = 32
LEARNING_RATE = 0.002
BATCH_NORM_MOMENTUM = 0.9  # Keras' 0.99 and 0.999 are for hundreds of thousands of steps; here are hundreds


class Architecture(NamedTuple):
    """A builder in ``keras.applications``, and how long its training takes."""

    builder: str
    epochs: int


ARCHITECTURES = {
    "mobilenet_v3_small": Architecture("MobileNetV3Small", 60),
    "efficientnet_b0": Architecture("EfficientNetB0", 30),
}


class Moments(NamedTuple):
    """Frames and the moments they belong to."""

    images: npt.NDArray[np.float32]  # (frames, SIZE, SIZE, 3), RGB, 0–1
    classes: npt.NDArray[np.int64]  # (frames,)
    held_out: npt.NDArray[np.bool_]  # (frames,)
    labels: tuple[str, ...]


def load_moments() -> Moments:
    """Return the moments of the three sample clips.

    Raises:
        MissingExtraError: the [sample] extra is not installed.
    """
    grey_levels = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    tensor = Tensor(shape=(1, SIZE, SIZE, 3), dtype="float32")
    preprocessor = Preprocessor(InputSpec(height=SIZE, width=SIZE, channels=3, color="rgb"), grey_levels, tensor)
    images, classes, held_out = [], [], []
    labels: list[str] = []
    for clip, cuts in SHOTS.items():
        with open_source(f"sample:{clip}") as source:
            pixels = [preprocessor.pixels(frame.picture) for frame in source]
        for moment in _split(cuts):
            for index in moment[EDGE_FRAMES:-EDGE_FRAMES]:
                images.append(pixels[index])
                classes.append(len(labels))
                held_out.append(index % HELD_OUT_EVERY == 0)
            labels.append(f"{clip} {moment[0]}–{moment[-1]}")
    scaled = np.stack(images).astype(np.float32) / np.float32(255)
    return Moments(scaled, np.array(classes), np.array(held_out), tuple(labels))


def build(name: str, classes: int) -> Any:
    """Return an untrained Keras model of one of :data:`ARCHITECTURES`, its own scaling of pixels included."""
    from edgevid_convert.engine import keras

    builder = getattr(keras.applications, ARCHITECTURES[name].builder)
    model = builder(input_shape=(SIZE, SIZE, 3), weights=None, classes=classes)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def train(model: Any, moments: Moments, epochs: int, seed: int) -> float:
    """Train ``model`` in place, and return its accuracy on the held-out frames."""
    from edgevid_convert.engine import keras

    layers = keras.layers
    augmented = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.RandomTranslation(0.03, 0.03, seed=seed),
            layers.RandomBrightness(0.1, value_range=(0, 1), seed=seed),
            layers.RandomContrast(0.1, value_range=(0, 1), seed=seed),
            model,
        ]
    )
    training = ~moments.held_out
    steps = -(-int(training.sum()) // BATCH) * epochs
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    # Without XLA, which compiles depthwise convolutions to slow code on a CPU.
    augmented.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    augmented.fit(moments.images[training], moments.classes[training], BATCH, epochs, verbose=0)
    answers = model.predict(moments.images[moments.held_out], verbose=0)
    return float((answers.argmax(axis=1) == moments.classes[moments.held_out]).mean())


def _split(cuts: Sequence[int]) -> list[list[int]]:
    """Return the frames of each moment: every shot in equal parts of about :data:`MOMENT_FRAMES`."""
    moments = []
    for start, end in pairwise(cuts):
        count = max(1, round((end - start) / MOMENT_FRAMES))
        moments += [part.tolist() for part in np.array_split(np.arange(start, end), count)]
    return moments


def main() -> None:
    """Train, save, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", choices=ARCHITECTURES, default="mobilenet_v3_small")
    parser.add_argument("--epochs", type=int, help="[default: what the model needs]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from edgevid_convert.engine import keras, tf  # seconds: TensorFlow comes with it

    keras.utils.set_random_seed(arguments.seed)
    tf.config.experimental.enable_op_determinism()
    moments = load_moments()
    model = build(arguments.model, len(moments.labels))
    epochs = arguments.epochs or ARCHITECTURES[arguments.model].epochs
    accuracy = train(model, moments, epochs, arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    pixels = keras.Input((SIZE, SIZE, 3))
    keras.Model(pixels, model(keras.layers.Rescaling(1 / 255)(pixels))).save(arguments.output / "model.keras")
    lines = "".join(f"{label}\n" for label in moments.labels)
    (arguments.output / "labels.txt").write_text(lines, encoding="utf-8")
    sys.stdout.write(
        f"{arguments.model}, seed {arguments.seed}, {epochs} epochs: {accuracy:.1%} of {moments.held_out.sum()} "
        f"held-out frames right, {len(moments.labels)} classes, {SIZE}×{SIZE}\n"
    )


if __name__ == "__main__":
    main()

"""Converts the smallest member of each family of Keras 2's applications, in each container, alone and nested.

    python -m edgevid_bench.studies.keras2_families [--families mobilenet,...] [--containers h5,keras,saved]
        [--image-size 96] [--output keras2_families.md]

Each is saved by ``tf_keras`` with weights that let errors show, converted in float32 by the package's front door, and
its variants are asked by their engines alone (see ``fuzz``), beside ``tf_keras`` on the same pictures. *nested* is the
base of transfer learning: the application without its top inside another model, under a new head.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgevid.errors import EdgevidError
from edgevid_bench.studies.families import CLASSES, FAMILIES, IMAGES, make_realistic, pictures
from edgevid_bench.studies.fuzz import compared, save_model
from edgevid_convert.converter import convert_model, kept_worker
from edgevid_convert.options import ConvertOptions

__all__ = ["build_member", "try_member"]

CONTAINERS = ("h5", "keras", "saved")
KINDS = ("alone", "nested")


def build_member(family: str, kind: str, image_size: int) -> Any:
    """Return the smallest member of a family of Keras 2, alone or under a new head."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    row = FAMILIES[family]
    application = getattr(tf_keras.applications, row.member)
    shape = (image_size, image_size, 3)
    levels = ((np.stack(pictures(IMAGES, image_size)) - row.mean) / row.std).astype(np.float32)
    if kind == "alone":
        model = application(weights=None, classes=CLASSES, input_shape=shape)
        make_realistic(model, levels)
        return model
    base = application(weights=None, include_top=False, input_shape=shape)
    pool, head = tf_keras.layers.GlobalAveragePooling2D(), tf_keras.layers.Dense(CLASSES, activation="softmax")
    make_realistic(tf_keras.Model(base.input, head(pool(base.output))), levels)
    image = tf_keras.Input(shape)
    return tf_keras.Model(image, head(tf_keras.layers.Dropout(0.2)(pool(base(image, training=False)))))


def try_member(family: str, kind: str, container: str, image_size: int) -> str:
    """Save, convert and compare one; return the verdict and the errors."""
    row = FAMILIES[family]
    model = build_member(family, kind, image_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = save_model("tf_keras", model, folder, container)
        options = ConvertOptions(
            model=path, output=folder / "m.edgevid", precisions=("fp32",), mean=(row.mean,), std=(row.std,)
        )
        try:
            bundle = convert_model(options)
        except EdgevidError as error:
            return f"failed: {str(error).replace(name, '')}"
        tensors = (np.stack(pictures(4, image_size)) - row.mean) / row.std
        verdict = compared(bundle, model, tensors.astype(np.float32), family)
        return f"{verdict.word}: {verdict.said}"


def main() -> None:
    """Convert, compare, print."""
    parser = argparse.ArgumentParser(
        prog="edgevid_bench.studies.keras2_families", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--families", default=",".join(FAMILIES), help="with commas between them")
    parser.add_argument("--containers", default=",".join(CONTAINERS), help="with commas between them")
    parser.add_argument("--image-size", type=int, default=96, metavar="N")
    parser.add_argument("--output", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    families, containers = arguments.families.split(","), arguments.containers.split(",")
    for name, known in [*((each, tuple(FAMILIES)) for each in families), *((each, CONTAINERS) for each in containers)]:
        if name not in known:
            parser.error(f"{name!r}: expected some of {', '.join(known)}")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    warnings.simplefilter("ignore")
    command = f"--families {arguments.families} --containers {arguments.containers} --image-size {arguments.image_size}"
    lines = [
        "# Families of keras.applications, as Keras 2 saves them",
        "",
        f"`python -m edgevid_bench.studies.keras2_families {command}`: the largest error of a probability, in fp32.",
        "",
        "| family | model | container | outcome |",
        "| --- | --- | --- | --- |",
    ]
    import tf_keras

    for family in families:
        with kept_worker():  # a fresh one each: TensorFlow keeps something of every model, and grows slow
            for kind in KINDS:
                for container in containers:
                    outcome = try_member(family, kind, container, arguments.image_size)
                    lines.append(f"| {FAMILIES[family].member} | {kind} | {container} | {outcome} |")
                    sys.stderr.write(lines[-1] + "\n")
                    if arguments.output:  # after each: the whole takes a while, and an interruption shall not cost it
                        arguments.output.write_text("\n".join([*lines, ""]))
        tf_keras.backend.clear_session()
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()

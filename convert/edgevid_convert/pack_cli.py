"""``edgevid pack``: a bundle of a model that is TFLite or ONNX already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from edgevid.cli.terminal import Terminal, common_options, completing_paths
from edgevid.errors import UsageError
from edgevid.manifest import Activation, Fit, Resize
from edgevid_convert.numbers import comma_numbers
from edgevid_convert.options import default_output
from edgevid_convert.pack import PackOptions, describe_choice, pack_model
from edgevid_convert.preprocessing import NORMALIZATIONS, PLAIN, chosen_normalization

__all__ = ["pack"]

EPILOG = """
\b
Examples:
  edgevid pack model.tflite --labels labels.txt --preprocess tf
  edgevid pack model.onnx --labels labels.txt --preprocess torch --fit crop -o plants.edgevid
\b
Nothing is compared with a trained model here, so nothing is known of its accuracy: for a Keras model use
edgevid convert. The numbers of --preprocess, or --mean and --std, must be those of its training.
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path), shell_complete=completing_paths())
@click.option("-o", "--output", metavar="NAME.edgevid", type=click.Path(path_type=Path), help="[default: MODEL's name]")
@click.option(
    "--labels",
    metavar="FILE|FOLDER",
    type=click.Path(path_type=Path),
    help="One a line in class order, numbered, JSON or CSV; or a folder: the names of its sub-folders.",
)
@click.option("--image-size", metavar="H,W", callback=comma_numbers, help="For a model that leaves its size open.")
@click.option(
    "--preprocess",
    metavar="NAME",
    type=click.Choice(list(NORMALIZATIONS)),
    help=f"The normalization of training: {', '.join(PLAIN)}, or keras:APPLICATION.",
)
@click.option("--mean", metavar="M|R,G,B", callback=comma_numbers, help="Subtracted from grey levels.  [default: 0]")
@click.option("--std", metavar="S|R,G,B", callback=comma_numbers, help="Then divided by this.  [default: 1]")
@click.option("--color", type=click.Choice(["rgb", "bgr"]), help="The order of channels.  [default: rgb]")
@click.option("--resize", type=click.Choice(get_args(Resize)), default="bilinear", show_default=True)
@click.option("--fit", type=click.Choice(get_args(Fit)), default="stretch", show_default=True)
@click.option(
    "--activation",
    type=click.Choice(get_args(Activation)),
    help="What its last layer makes of logits.  [default: told by its operators and its answers]",
)
@click.option("--window", type=int, default=64, show_default=True, help="The bundle's default rolling average.")
@click.option("--force", is_flag=True, help="Replace a bundle of that name.")
@common_options
@click.pass_obj
def pack(terminal: Terminal, /, **given: Any) -> None:
    """Make a bundle of a .tflite or .onnx classifier, as it is.

    The file says its size, type and classes; how pixels become its numbers, only you know.
    """
    image_size = given["image_size"]
    if image_size is not None and (len(image_size) != 2 or any(size < 1 or size % 1 for size in image_size)):
        raise UsageError("--image-size: expected height,width in pixels, such as 224,224")
    options = PackOptions(
        model=given["model"],
        output=given["output"] or default_output(given["model"]),
        labels=given["labels"],
        image_size=None if image_size is None else (int(image_size[0]), int(image_size[1])),
        normalization=chosen_normalization(given["preprocess"], given["mean"], given["std"], given["color"]),
        preprocess=given["preprocess"],
        resize=given["resize"],
        fit=given["fit"],
        activation=given["activation"],
        window=given["window"],
        force=given["force"],
    )
    bundle = pack_model(options)
    spec, answer = bundle.manifest.input, bundle.manifest.output
    kind = f"binary, one {answer.activation.removesuffix('s')}" if answer.binary else answer.activation
    terminal.result(
        f"{describe_choice(bundle)}",
        f"input {spec.height}×{spec.width}×{spec.channels} {spec.color}, {answer.classes} classes, {kind}",
        f"wrote {options.output}",
    )
    for remark in bundle.manifest.remarks:
        terminal.message(remark)

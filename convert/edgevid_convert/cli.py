"""``edgevid convert``: a trained Keras classifier into a bundle."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import click
from rich.table import Table

from edgevid.bundle import Bundle
from edgevid.cli.inspect import parity_caption, variant_table
from edgevid.cli.terminal import Terminal, common_options, completing, listed
from edgevid.errors import MissingExtraError, UsageError
from edgevid.manifest import Fit, Resize
from edgevid.quiet import captured
from edgevid_convert.options import FORMATS, PRECISIONS, ConvertOptions, default_output

__all__ = ["check_packages", "convert", "convert_quietly", "outcome", "quiet_unless_debug"]

EPILOG = f"""
\b
Examples:
  edgevid convert model.keras --labels labels.txt --calib clips/
  edgevid convert model.h5 --mean 127.5 --std 127.5 --calib day.mp4 night.mp4
  edgevid convert saved_model/ --image-size 224,224 --formats onnx --precision fp32
\b
Formats: {", ".join(FORMATS)}
Precisions: {", ".join(PRECISIONS)}
"""
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
WORTH_A_REMARK = 0.98
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Return numbers with commas between them."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f"{text!r}: expected a number, or numbers with commas between them", param=parameter)
    return numbers


class ConvertCommand(click.Command):
    """Takes several values after one ``--calib``, which click's options cannot."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--calib`` before each value that follows it; a Keras file among them is the model."""
        expanded: list[str] = []
        values_of_calib = 0  # how many have been seen, once --calib has
        after_calib = False
        for argument in args:
            if argument.startswith("-"):
                after_calib, values_of_calib = argument.partition("=")[0] == "--calib", int("=" in argument)
            elif after_calib and not argument.endswith(MODEL_SUFFIXES):
                if values_of_calib:
                    expanded.append("--calib")
                values_of_calib += 1
            expanded.append(argument)
        return super().parse_args(ctx, expanded)


@click.command(cls=ConvertCommand, epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="NAME.edgevid", type=click.Path(path_type=Path), help="[default: MODEL's name]")
@click.option("--labels", metavar="FILE", type=click.Path(path_type=Path), help="One label a line, in class order.")
@click.option(
    "--calib", metavar="VIDEO|FOLDER", multiple=True, help="Real frames for int8, and to judge by; repeatable."
)
@click.option(
    "--calib-frames",
    type=int,
    default=120,
    show_default=True,
    help="Calibrate on at most N frames, and judge by twice as many.",
)
@click.option(
    "--formats", metavar="LIST", shell_complete=completing(FORMATS), default=",".join(FORMATS), show_default=True
)
@click.option(
    "--precision",
    metavar="LIST",
    shell_complete=completing(PRECISIONS),
    default="",
    help="[default: all that are possible]",
)
@click.option("--image-size", metavar="H,W", callback=_numbers, help="For a model that leaves its input size open.")
@click.option(
    "--mean", metavar="M|R,G,B", callback=_numbers, default="0", help="Subtracted from grey levels 0–255.  [default: 0]"
)
@click.option("--std", metavar="S|R,G,B", callback=_numbers, default="1", help="Then divided by this.  [default: 1]")
@click.option("--resize", type=click.Choice(get_args(Resize)), default="bilinear", show_default=True)
@click.option("--fit", type=click.Choice(get_args(Fit)), default="stretch", show_default=True)
@click.option("--window", type=int, default=64, show_default=True, help="The bundle's default rolling average.")
@click.option("--force", is_flag=True, help="Replace a bundle of that name.")
@common_options
@click.pass_obj
def convert(
    terminal: Terminal,
    model: Path,
    output: Path | None,
    labels: Path | None,
    calib: tuple[str, ...],
    calib_frames: int,
    formats: str,
    precision: str,
    image_size: tuple[float, ...] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resize: Resize,
    fit: Fit,
    window: int,
    force: bool,
) -> None:
    """Convert a Keras classifier (.keras, .h5, SavedModel) to TFLite and ONNX, and prove each result against it.

    The result is one folder, the bundle, with everything a device needs.
    """
    options = ConvertOptions(
        model=model,
        output=output or default_output(model),
        labels=labels,
        calib=calib,
        calib_frames=calib_frames,
        formats=listed(formats),
        precisions=listed(precision),
        image_size=_size(image_size),
        mean=mean,
        std=std,
        resize=resize,
        fit=fit,
        window=window,
        force=force,
    )
    check_packages()
    bundle = convert_quietly(options, terminal)
    terminal.result(*outcome(bundle), f"wrote {bundle.path}")
    for line in _remarks(options, bundle):
        terminal.message(line)


def convert_quietly(options: ConvertOptions, terminal: Terminal) -> Bundle:
    """Run a conversion with a progress bar, and without what the converters print.

    Raises:
        ModelError, UsageError, SourceError, BundleError: see :func:`edgevid_convert.converter.convert_model`.
    """
    with terminal.progress() as progress, quiet_unless_debug(terminal), _own_temporary_folder():
        task = progress.add_task("loading TensorFlow", total=None)
        from edgevid_convert.converter import convert_model  # takes seconds: TensorFlow comes with it

        return convert_model(
            options,
            lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )


def check_packages() -> None:
    """Check that the [convert] extra is installed, importing nothing.

    Raises:
        MissingExtraError: a package of it is not.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError("edgevid convert", package, "convert")


@contextmanager
def quiet_unless_debug(terminal: Terminal) -> Iterator[None]:
    """Keep what TensorFlow and its converters print and warn of from the user, unless --debug asks for it."""
    if terminal.debug:
        yield
        return
    with captured(1, 2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Have every temporary file of this process in a folder that is removed: TensorFlow leaves some behind."""
    before, in_environment = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="edgevid-") as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            if in_environment is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = in_environment


def outcome(bundle: Bundle) -> list[str | Table]:
    """Return what a conversion made, for reading."""
    variants, calibration = bundle.manifest.variants, bundle.manifest.calibration
    lines: list[str | Table] = [variant_table(variants), parity_caption(variants)]
    if calibration:
        lines.append(
            f"calibrated on {calibration.frames} frames ({calibration.near_duplicates} near-duplicates dropped)"
        )
    return lines


def _remarks(options: ConvertOptions, bundle: Bundle) -> list[str]:
    """Return what the user should know or may have forgotten, a line each."""
    remarks = [f"{variant_id} was left out: {reason}" for variant_id, reason in bundle.manifest.left_out.items()]
    losing = [
        f"{variant.id} {variant.parity.smoothed_agreement:.1%}"
        for variant in bundle.manifest.variants
        if variant.parity and variant.parity.data == "held-out" and variant.parity.smoothed_agreement < WORTH_A_REMARK
    ]
    if losing:
        remarks.append(
            f"these keep less than {WORTH_A_REMARK:.0%} of Keras' smoothed labels: {', '.join(losing)}; "
            "more varied --calib may help, and run --variant takes another"
        )
    if not options.calib and not options.by_name:
        remarks.append(
            "int8 variants were left out, since they must be calibrated on real frames: add --calib VIDEO or FOLDER"
        )
    if same := len(bundle.labels) - len(set(bundle.labels)):
        remarks.append(f"{same} labels are there more than once: time and flips count their classes as one")
    if options.labels is None:
        remarks.append(f"labels are class 0 to class {len(bundle.labels) - 1}: give names with --labels FILE")
    if options.mean == (0.0,) and options.std == (1.0,):
        remarks.append(
            "the model gets grey levels 0–255 as they are: if it was trained on others, give --mean and --std"
        )
    elif max(options.std) < 1:
        remarks.append("--std looks meant for pixels of 0–1, and here they are 0–255: multiply --mean and --std by 255")
    return remarks


def _size(numbers: tuple[float, ...] | None) -> tuple[int, int] | None:
    if numbers is None:
        return None
    if len(numbers) != 2 or any(number < 1 or number != int(number) for number in numbers):
        shown = ",".join(f"{number:g}" for number in numbers)
        raise UsageError(f"--image-size {shown}: expected height,width in whole pixels, such as 224,224")
    return int(numbers[0]), int(numbers[1])

"""``edgevid convert``: a trained Keras classifier into a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import click

from edgevid.bundle import Bundle
from edgevid.cli.inspect import parity_caption, variant_table
from edgevid.cli.terminal import Terminal, common_options
from edgevid.errors import MissingExtraError, UsageError
from edgevid.manifest import Fit, Resize
from edgevid.quiet import captured
from edgevid_convert.options import FORMATS, PRECISIONS, ConvertOptions, default_output

__all__ = ["check_packages", "convert", "convert_quietly", "quiet_unless_debug"]

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
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers of ``value``."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: expected a number, or numbers with commas between them", param, ctx)


class ConvertCommand(click.Command):
    """Takes several values after one ``--calib``, which click's options cannot."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--calib`` before each value that follows it."""
        expanded: list[str] = []
        for index, argument in enumerate(args):
            in_list = "--calib" in args[:index] and not argument.startswith("-") and self._follows_calib(args, index)
            expanded += ["--calib", argument] if in_list else [argument]
        return super().parse_args(ctx, expanded)

    @staticmethod
    def _follows_calib(args: list[str], index: int) -> bool:
        options_before = [position for position in range(index) if args[position].startswith("-")]
        return bool(options_before) and args[options_before[-1]] == "--calib" and options_before[-1] < index - 1


@click.command(cls=ConvertCommand, epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="NAME.edgevid", type=click.Path(path_type=Path), help="[default: MODEL's name]")
@click.option("--labels", metavar="FILE", type=click.Path(path_type=Path), help="One label a line, in class order.")
@click.option(
    "--calib", metavar="VIDEO|FOLDER", multiple=True, help="Real frames for int8, and to judge by; repeatable."
)
@click.option("--calib-frames", type=int, default=120, show_default=True, help="Calibrate on at most N frames.")
@click.option("--formats", metavar="LIST", default=",".join(FORMATS), show_default=True)
@click.option("--precision", metavar="LIST", default="", help="[default: all that are possible]")
@click.option("--image-size", metavar="H,W", type=Numbers(), help="For a model that leaves its input size open.")
@click.option(
    "--mean", metavar="M", type=Numbers(), default="0", help="Subtracted from grey levels 0–255.  [default: 0]"
)
@click.option("--std", metavar="S", type=Numbers(), default="1", help="Then divided by this.  [default: 1]")
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
    check_packages()
    options = ConvertOptions(
        model=model,
        output=output or default_output(model),
        labels=labels,
        calib=calib,
        calib_frames=calib_frames,
        formats=_names(formats),
        precisions=_names(precision),
        image_size=_size(image_size),
        mean=mean,
        std=std,
        resize=resize,
        fit=fit,
        window=window,
        force=force,
    )
    bundle = convert_quietly(options, terminal)
    variants = bundle.manifest.variants
    terminal.result(variant_table(variants), parity_caption(variants), f"wrote {bundle.path}")
    for line in _remarks(options, bundle):
        terminal.message(line)


def convert_quietly(options: ConvertOptions, terminal: Terminal) -> Bundle:
    """Run a conversion with a progress bar, and without what the converters print.

    Raises:
        ModelError, UsageError, SourceError, BundleError: see :func:`edgevid_convert.converter.convert_model`.
    """
    with terminal.progress() as progress, quiet_unless_debug(terminal):
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


def _remarks(options: ConvertOptions, bundle: Bundle) -> list[str]:
    remarks = []
    if not options.calib:
        remarks.append(
            "int8 variants were left out, since they must be calibrated on real frames: add --calib VIDEO or FOLDER"
        )
    if options.labels is None:
        remarks.append(
            f"labels are class 0 to class {bundle.manifest.output.classes - 1}: give names with --labels FILE"
        )
    if options.mean == (0.0,) and options.std == (1.0,):
        remarks.append(
            "the model gets grey levels 0–255 as they are: if it was trained on others, give --mean and --std"
        )
    return remarks


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _size(numbers: tuple[float, ...] | None) -> tuple[int, int] | None:
    if numbers is None:
        return None
    if len(numbers) != 2 or any(number < 1 or number != int(number) for number in numbers):
        raise UsageError("--image-size: expected height,width in whole pixels, such as 224,224")
    return int(numbers[0]), int(numbers[1])

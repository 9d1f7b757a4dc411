"""``edgevid convert``: a trained Keras classifier into a bundle."""

from __future__ import annotations

import resource
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import click
from rich.table import Table

from edgevid.bundle import Bundle
from edgevid.cli.inspect import accuracy_caption, parity_caption, variant_table
from edgevid.cli.terminal import Terminal, common_options, completing, listed
from edgevid.errors import MissingExtraError, UsageError
from edgevid.manifest import Activation, ColorOrder, Fit, Resize
from edgevid.quiet import captured
from edgevid_convert.calib_sources import not_read
from edgevid_convert.gate import check_gate, choice
from edgevid_convert.loading.containers import is_model
from edgevid_convert.numbers import comma_numbers
from edgevid_convert.options import EDGE_TPU_VARIANT, FORMATS, PRECISIONS, TARGETS, ConvertOptions, default_output
from edgevid_convert.preprocessing import NORMALIZATIONS, PLAIN

__all__ = ["check_packages", "convert", "convert_quietly", "outcome", "quiet_unless_debug"]

EPILOG = f"""
\b
Examples:
  edgevid convert model.keras --labels labels.txt --calib clips/
  edgevid convert model.h5 --preprocess keras:mobilenet_v2 --calib day.mp4 night.mp4
  edgevid convert model.keras --mean 127.5 --std 127.5 --eval labelled/
  edgevid convert model.keras --calib 'pictures/**/*.png' clips/ --features
  edgevid convert model.h5 --check
  edgevid convert saved_model/ --image-size 224,224 --formats onnx --precision fp32
\b
Formats: {", ".join(FORMATS)}
Precisions: {", ".join(PRECISIONS)}
"""
LOW_ACCURACY = 0.5  # of a trained classifier on its own classes
PACKAGES = ("tensorflow", "keras", "tf_keras", "tf2onnx", "onnx", "onnxruntime", "litert_quantizer")


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
            elif after_calib and not is_model(Path(argument)):
                if values_of_calib:
                    expanded.append("--calib")
                values_of_calib += 1
            expanded.append(argument)
        return super().parse_args(ctx, expanded)


@click.command(cls=ConvertCommand, epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="NAME.edgevid", type=click.Path(path_type=Path), help="[default: MODEL's name]")
@click.option(
    "--labels",
    metavar="FILE|FOLDER",
    type=click.Path(path_type=Path),
    help="One a line in class order, numbered, JSON or CSV; or a folder: the names of its sub-folders.",
)
@click.option(
    "--calib",
    metavar="VIDEO|PICTURE|FOLDER|PATTERN",
    multiple=True,
    help="Real frames for int8, and to judge by: videos, pictures, folders of them; repeatable.",
)
@click.option(
    "--calib-frames",
    type=int,
    default=120,
    show_default=True,
    help="Calibrate on at most N frames, and judge by twice as many (8 or more, where there are).",
)
@click.option(
    "--formats",
    metavar="LIST",
    shell_complete=completing(FORMATS),
    help=f"Whatever each can express.  [default: {','.join(FORMATS)}]",
)
@click.option(
    "--precision",
    metavar="LIST",
    shell_complete=completing(PRECISIONS),
    default="",
    help="[default: all that are possible]",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Make the TFLite files suit: operators that tflite-runtime 2.14 loads, or compiled for an Edge TPU.",
)
@click.option(
    "--image-size", metavar="H,W", callback=comma_numbers, help="For a model that leaves its input size open."
)
@click.option(
    "--preprocess",
    metavar="NAME",
    type=click.Choice(list(NORMALIZATIONS)),
    help=f"The normalization of training: {', '.join(PLAIN)}, or keras:APPLICATION.",
)
@click.option(
    "--mean", metavar="M|R,G,B", callback=comma_numbers, help="Subtracted from grey levels 0–255.  [default: 0]"
)
@click.option("--std", metavar="S|R,G,B", callback=comma_numbers, help="Then divided by this.  [default: 1]")
@click.option(
    "--insist", is_flag=True, help="Normalize as --preprocess or --mean and --std say, though the model does it itself."
)
@click.option(
    "--activation",
    type=click.Choice(get_args(Activation)),
    help="What the last layer makes of its scores.  [default: told by its operators and its answers]",
)
@click.option("--signature", metavar="NAME", help="Of a SavedModel, the one that takes images.")
@click.option("--color", type=click.Choice(["rgb", "bgr"]), help="The order of channels.  [default: rgb]")
@click.option("--resize", type=click.Choice(get_args(Resize)), default="bilinear", show_default=True)
@click.option("--fit", type=click.Choice(get_args(Fit)), default="stretch", show_default=True)
@click.option(
    "--window",
    type=int,
    help="The bundle's default rolling average.  [default: 64; of a model of several frames at a time, so many]",
)
@click.option(
    "--hop",
    type=int,
    help="Of such a model, the bundle's default: a window every N frames.  [default: 1, of a 3-D CNN half a window]",
)
@click.option(
    "--features",
    is_flag=True,
    help="Cut before the last layer: variants answer with features, which can be pooled over a clip, and a small head "
    "makes classes of them.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="FOLDER|FILE.csv",
    type=click.Path(path_type=Path),
    help="Labelled clips and images to judge by: a sub-folder a class, or a CSV file with the columns clip,label.",
)
@click.option(
    "--eval-frames", "evaluation_frames", type=int, default=300, show_default=True, help="Judge by at most N of them."
)
@click.option(
    "--max-drop",
    type=float,
    default=0.02,
    show_default=True,
    help="Reject a variant that loses more of Keras' smoothed labels than this share (of its accuracy, with --eval).",
)
@click.option(
    "--search/--no-search",
    default=None,
    help="Look for the best int8: repaired weights, some operators in float.  [default: where int8 is rejected]",
)
@click.option("--search-minutes", type=float, default=5, show_default=True, help="Search no longer than this.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what the search chooses at random.")
@click.option("--force", is_flag=True, help="Replace a bundle of that name.")
@click.option(
    "--custom-objects",
    metavar="MODULE.py",
    type=click.Path(path_type=Path),
    help="Defines the model's own layers; it is run.",
)
@click.option("--check", is_flag=True, help="Say what the model is and what will be made of it; convert nothing.")
@click.option("--trust-model", is_flag=True, help="Load a model that may run code of its own.")
@common_options
@click.pass_obj
def convert(
    terminal: Terminal,
    model: Path,
    output: Path | None,
    labels: Path | None,
    calib: tuple[str, ...],
    calib_frames: int,
    formats: str | None,
    precision: str,
    target: str | None,
    image_size: tuple[float, ...] | None,
    preprocess: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    insist: bool,
    activation: Activation | None,
    signature: str | None,
    color: ColorOrder | None,
    resize: Resize,
    fit: Fit,
    window: int | None,
    hop: int | None,
    features: bool,
    evaluation: Path | None,
    evaluation_frames: int,
    max_drop: float,
    search: bool | None,
    search_minutes: float,
    seed: int,
    force: bool,
    custom_objects: Path | None,
    trust_model: bool,
    check: bool,
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
        formats=() if formats is None else listed(formats) or ("",),
        precisions=listed(precision),
        target=target,
        image_size=_size(image_size),
        preprocess=preprocess,
        mean=mean,
        std=std,
        insist=insist,
        activation=activation,
        signature=signature,
        color=color,
        resize=resize,
        fit=fit,
        window=window,
        hop=hop,
        features=features,
        force=force or check,  # nothing is written then
        custom_objects=custom_objects,
        trust_model=trust_model,
        evaluation=evaluation,
        evaluation_frames=evaluation_frames,
        max_drop=max_drop,
        search=search,
        search_minutes=search_minutes,
        seed=seed,
    )
    started = time.monotonic()
    check_packages()
    if check:
        with terminal.progress() as progress, quiet_unless_debug(terminal):
            progress.add_task("looking at the model", total=None)
            from edgevid_convert.check import check_model  # TensorFlow comes with it

            lines = check_model(options)
        terminal.result(*lines)
        return
    bundle = convert_quietly(options, terminal)
    terminal.result(*outcome(bundle), f"wrote {bundle.path}")
    for line in _remarks(options, bundle):
        terminal.message(line)
    terminal.message(_took(started))
    check_gate(bundle, options.precisions)


def _took(started: float) -> str:
    return f"took {time.monotonic() - started:.0f} s, peak memory {_peak_memory() / 1e9:.1f} GB"


def _peak_memory() -> int:
    """Return the most memory that this process or one of its children held at a time, in bytes."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1024 * max(own, children)


def convert_quietly(options: ConvertOptions, terminal: Terminal) -> Bundle:
    """Run a conversion with a progress bar, and without what the converters print.

    Raises:
        ModelError, UsageError, SourceError, BundleError: see :func:`edgevid_convert.converter.convert_model`.
    """
    from edgevid_convert.converter import convert_model

    with terminal.progress() as progress:
        task = progress.add_task("starting", total=None)

        def report(what: str, done: int, total: int | None) -> None:
            terminal.check_stopped()
            progress.update(task, description=what, completed=done, total=total)

        return convert_model(options, report, debug=terminal.debug)


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
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # what is half made complains here, not on the user's screen
            raise


def outcome(bundle: Bundle) -> list[str | Table]:
    """Return what a conversion made, for reading."""
    variants, calibration = bundle.manifest.variants, bundle.manifest.calibration
    lines: list[str | Table] = [
        variant_table(variants, bundle.manifest.keras_accuracy),
        parity_caption(bundle.manifest),
    ]
    lines += [*accuracy_caption(bundle.manifest.keras_accuracy), choice(bundle)]
    if calibration:
        what = "windows" if bundle.manifest.takes_windows else "frames"
        lines.append(
            f"calibrated on {calibration.frames} {what} ({calibration.near_duplicates} near-duplicates dropped)"
        )
    return lines


def _remarks(options: ConvertOptions, bundle: Bundle) -> list[str]:
    """Return what the user should know or may have forgotten, a line each."""
    remarks = [*bundle.manifest.remarks, *not_read(options.calib)]
    remarks += [f"{variant_id} was left out: {reason}" for variant_id, reason in bundle.manifest.left_out.items()]
    rejected = [f"{variant.id} {variant.rejected}" for variant in bundle.manifest.variants if variant.rejected]
    if rejected:
        remarks.append(
            f"rejected, so run never takes them unasked: {'; '.join(rejected)}. More varied --calib, a longer "
            "--search-minutes or a wider --max-drop may help"
        )
    of_keras = bundle.manifest.keras_accuracy
    if of_keras and of_keras.accuracy < LOW_ACCURACY:
        remarks.append(
            f"the Keras model itself is right on {of_keras.accuracy:.1%} of the labelled frames only: was it trained "
            "with this --preprocess and --color, and are --labels in the order of its classes?"
        )
    if not options.calib and not options.by_name:
        remarks.append(
            "int8 variants were left out, since they must be calibrated on real frames: add --calib VIDEO or FOLDER"
        )
    if options.target == "edgetpu" and bundle.variant(EDGE_TPU_VARIANT).edgetpu is None:
        file = bundle.path / bundle.variant(EDGE_TPU_VARIANT).file
        remarks.append(
            f"not compiled for the Edge TPU, since edgetpu_compiler is not installed here: run  edgetpu_compiler {file}"
        )
    if same := len(bundle.labels) - len(set(bundle.labels)):
        remarks.append(f"{same} labels are there more than once: time and flips count their classes as one")
    if options.labels is None:
        remarks.append(f"labels are class 0 to class {len(bundle.labels) - 1}: give names with --labels FILE")
    return remarks


def _size(numbers: tuple[float, ...] | None) -> tuple[int, int] | None:
    if numbers is None:
        return None
    if len(numbers) != 2 or any(number < 1 or number != int(number) for number in numbers):
        shown = ",".join(f"{number:g}" for number in numbers)
        raise UsageError(f"--image-size {shown}: expected height,width in whole pixels, such as 224,224")
    return int(numbers[0]), int(numbers[1])

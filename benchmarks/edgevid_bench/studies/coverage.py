"""Converts a member of every family of ``keras.applications`` to every variant, and tells what came of it.

    python -m edgevid_bench.studies.coverage [--families mobilenet,convnext] [--image-size 96] [--output coverage.md]

The members have random weights and see generated pictures, so the errors tell whether a conversion is right, and
nothing of how well int8 keeps a trained model's labels. Each family has a process of its own; where that crashes,
each variant has.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import msgspec

from edgevid.errors import EdgevidError
from edgevid.manifest import VARIANT_IDS
from edgevid_bench.studies.families import FAMILIES, pictures, save_member

__all__ = ["Outcome", "coverage_table", "try_family"]

DISTRIBUTIONS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
PICTURES = 24  # a third calibrates, the others judge
LARGEST_FLOAT_ERROR = 5e-4  # random weights are badly scaled, and magnify what rounding leaves
SMALLEST_IMAGE = 75  # that every family takes
HEAD = """# Which Keras classifiers convert

The smallest member of {families} families of `keras.applications`, {size}×{size} pixels, random weights, generated
pictures: {good} of {all} variants ok. Made by `python -m edgevid_bench.studies.coverage` on {machine}, with {versions}.

*ok*: converted, and in fp32 no class probability is off by more than {error:g}. *max abs error* and *top-1* are against
the Keras model, on pictures that did not calibrate. The weights are random, so the int8 figures say that a variant
runs, not how a trained model fares. *seconds* are those of the conversion; the first variant of a format makes what the
others start from.

| family | variant | outcome | max abs error | top-1 | transposes | seconds |
| --- | --- | --- | --- | --- | --- | --- |"""


class Outcome(msgspec.Struct):
    """What came of one variant of one family; ``cause`` is why there is none."""

    family: str
    variant: str
    cause: str | None = None
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    transposes: int | None = None
    seconds: float | None = None

    @property
    def verdict(self) -> str:
        """One word, or the cause."""
        if self.cause is not None:
            return self.cause
        in_float = self.variant.endswith("fp32")
        return "wrong" if in_float and (self.max_abs_error or 0) > LARGEST_FLOAT_ERROR else "ok"


def convert_family(family: str, image_size: int, variants: Sequence[str]) -> list[Outcome]:
    """Build a family's member, convert it through the library, and return what came of each variant."""
    from edgevid_convert.converter import convert_model
    from edgevid_convert.options import FORMATS, ConvertOptions

    began: dict[str, float] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        began.setdefault(what, time.perf_counter())

    with TemporaryDirectory() as name:
        folder = Path(name)
        model, calib = folder / "model.keras", folder / "pictures"
        save_member(family, image_size, model)
        calib.mkdir()
        for index, picture in enumerate(pictures(PICTURES, image_size)):
            cv2.imwrite(str(calib / f"{index}.png"), picture)
        format_, precision = variants[0].split("-", 1)
        all_of_them = len(variants) > 1
        bundle = convert_model(
            ConvertOptions(
                model=model,
                output=folder / "model.edgevid",
                calib=(str(calib),),
                image_size=(image_size, image_size),
                mean=(FAMILIES[family].mean,),
                std=(FAMILIES[family].std,),
                search=False,  # of random weights there is no best int8
                formats=FORMATS if all_of_them else (format_,),
                precisions=() if all_of_them else (precision,),  # named, it must be made
            ),
            progress,
        )
        steps = [*began.values(), time.perf_counter()]
        ends = dict(zip(began, steps[1:], strict=True))
        outcomes = [Outcome(family, variant, cause) for variant, cause in bundle.manifest.left_out.items()]
        for variant in bundle.manifest.variants:
            parity = variant.parity
            assert parity
            step = f"converting to {variant.id}"
            outcomes.append(
                Outcome(
                    family,
                    variant.id,
                    max_abs_error=parity.max_abs_error,
                    top1_agreement=parity.top1_agreement,
                    transposes=count_transposes(bundle.path / variant.file),
                    seconds=ends[step] - began[step],
                )
            )
    return sorted(outcomes, key=lambda outcome: VARIANT_IDS.index(outcome.variant))


def count_transposes(path: Path) -> int:
    """Return how many transposes a model file computes."""
    if path.suffix == ".onnx":
        import onnx

        return sum(node.op_type == "Transpose" for node in onnx.load(str(path)).graph.node)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    return sum(operator["op_name"] == "TRANSPOSE" for operator in interpreter._get_ops_details())


def try_family(family: str, image_size: int, variants: Sequence[str] = VARIANT_IDS) -> list[Outcome]:
    """Return what comes of a family in a process of its own, and of each variant alone where that fails."""
    if 1 < len(variants) < len(VARIANT_IDS):
        return [outcome for variant in variants for outcome in try_family(family, image_size, [variant])]
    with TemporaryDirectory() as folder:
        result = Path(folder) / "outcomes.json"
        command = [sys.executable, "-m", "edgevid_bench.studies.coverage", "--families", family]
        command += ["--image-size", str(image_size), "--variants", ",".join(variants), "--outcomes", str(result)]
        process = subprocess.run(  # noqa: S603 - our own
            command, capture_output=True, text=True, errors="replace", env={**os.environ, "TMPDIR": folder}
        )
        if result.exists():
            return msgspec.json.decode(result.read_bytes(), type=list[Outcome])
    if len(variants) > 1:  # which one was it?
        return [outcome for variant in variants for outcome in try_family(family, image_size, [variant])]
    said = [line for line in process.stderr.splitlines() if line.startswith("edgevid: ")]
    cause = said[-1].removeprefix("edgevid: ") if said else f"the process ended with status {process.returncode}"
    return [Outcome(family, variants[0], cause)]


def coverage_table(outcomes: Sequence[Outcome], image_size: int) -> str:
    """Return the outcomes as Markdown, with the machine and the versions that made them."""
    from edgevid_bench.machine import describe_machine

    machine = describe_machine()
    text = HEAD.format(
        families=len({outcome.family for outcome in outcomes}),
        good=sum(outcome.verdict == "ok" for outcome in outcomes),
        all=len(outcomes),
        size=image_size,
        error=LARGEST_FLOAT_ERROR,
        machine=f"{machine.cpu}, {machine.cores} cores, Python {machine.python}",
        versions=", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS),
    )
    return "\n".join([text, *map(_row, outcomes), ""])


def _row(outcome: Outcome) -> str:
    cells = (
        f"{FAMILIES[outcome.family].member}",
        outcome.variant,
        outcome.verdict.replace("|", "\\|"),
        _shown(outcome.max_abs_error, ".1e"),
        _shown(outcome.top1_agreement, ".2f"),
        _shown(outcome.transposes, "d"),
        _shown(outcome.seconds, ".1f"),
    )
    return f"| {' | '.join(cells)} |"


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def main() -> None:
    """Convert, compare, print."""
    parser = argparse.ArgumentParser(prog="edgevid_bench.studies.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES), help="with commas between them")
    parser.add_argument("--image-size", type=int, default=96, metavar="N")
    parser.add_argument("--variants", default=",".join(VARIANT_IDS), help="with commas between them; one, or all")
    parser.add_argument("--output", type=Path, metavar="FILE.md")
    parser.add_argument("--outcomes", type=Path, help=argparse.SUPPRESS)  # written by the process of one family
    arguments = parser.parse_args()
    families, variants = arguments.families.split(","), arguments.variants.split(",")
    for name, known in [*((family, FAMILIES) for family in families), *((each, VARIANT_IDS) for each in variants)]:
        if name not in known:
            parser.error(f"{name!r}: expected some of {', '.join(known)}")
    if arguments.image_size < SMALLEST_IMAGE:
        parser.error(f"--image-size {arguments.image_size}: expected {SMALLEST_IMAGE} or more")
    if arguments.outcomes:
        try:
            outcomes = convert_family(families[0], arguments.image_size, variants)
        except EdgevidError as error:
            sys.exit(f"edgevid: {error}")
        arguments.outcomes.write_bytes(msgspec.json.encode(outcomes))
        return
    outcomes = []
    for family in families:
        sys.stderr.write(f"{family}\n")
        outcomes += try_family(family, arguments.image_size, variants)
        table = coverage_table(outcomes, arguments.image_size)
        if arguments.output:  # after each family: the whole takes a while, and an interruption shall not cost it
            arguments.output.write_text(table, encoding="utf-8")
    sys.stdout.write(table)


if __name__ == "__main__":
    main()

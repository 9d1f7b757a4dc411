"""``edgevid inspect``: show what is in a bundle."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.table import Table

from edgevid.bundle import Bundle, find_bundle
from edgevid.cli.terminal import Terminal, common_options
from edgevid.manifest import Accuracy, Candidate, Manifest, OutputSpec, Parity, Search, SequenceSpec, Variant

EPILOG = """
\b
Examples:
  edgevid inspect model.edgevid
  edgevid inspect model.edgevid --layers
  edgevid inspect model.edgevid --json
"""
PARITY_COLUMNS = ("MB", "top-1", "confident", "smoothed", "max abs error", "KL")
SHOWN_LABELS = 3
ACCURACY_COLUMNS = ("accuracy", "smoothed accuracy", "worst class")


@click.command(epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write the manifest as JSON.")
@click.option("--layers", is_flag=True, help="Show how sensitive each layer is to int8, and what stays in float.")
@common_options
@click.pass_obj
def inspect(terminal: Terminal, bundle: Path | None, as_json: bool, layers: bool) -> None:
    """Show what is in a bundle, after checking every file's SHA-256."""
    opened = find_bundle(bundle)
    opened.verify()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(opened.manifest), indent=2).decode() + "\n")
        return
    terminal.result(*_facts(opened), variant_table(opened.manifest.variants, opened.manifest.keras_accuracy))
    if layers:
        terminal.result(*layers_of(opened.manifest.variants))
    terminal.result("every file has the SHA-256 of the manifest")


def variant_table(variants: tuple[Variant, ...], of_keras: Accuracy | None = None) -> Table:
    """Return the variants, how each compares with the Keras model and how often each is right, for reading.

    ``of_keras`` is the Keras model's own accuracy, and None where there were no labelled frames.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    judged = ACCURACY_COLUMNS if of_keras else ()
    for column in (*PARITY_COLUMNS, *judged, "gate"):
        table.add_column(column, justify="right")
    if of_keras:
        table.add_row("Keras", *[""] * len(PARITY_COLUMNS), *_accuracy_cells(of_keras), "")
    for variant in variants:
        cells = _accuracy_cells(variant.accuracy) if of_keras else ()
        size = f"{variant.bytes / 1e6:.2f}"
        table.add_row(variant.id, size, *_parity_cells(variant.parity), *cells, _gate_cell(variant))
    return table


def _gate_cell(variant: Variant) -> str:
    if variant.rejected:
        return "rejected"
    measured = variant.accuracy is not None or (variant.parity is not None and variant.parity.data == "held-out")
    return "passed" if measured else "–"


def layers_of(variants: tuple[Variant, ...]) -> list[str | Table]:
    """Return what the searches found: the layers of each int8 variant, and its fastest and closest candidates."""
    lines: list[str | Table] = []
    for variant in variants:
        if variant.search is not None:
            lines += _search_lines(variant.id, variant.search)
    return lines or ["no variant was searched for; convert --search does it, where plain int8 passes too"]


def _search_lines(variant_id: str, search: Search) -> list[str | Table]:
    layers = Table(box=None, pad_edge=False)
    layers.add_column(f"layer of {variant_id}")
    layers.add_column("loss saved in float", justify="right")
    layers.add_column("computes in")
    saved_by = {one.layer: f"{one.loss:.1e}" for one in search.sensitivity}
    for name in dict.fromkeys((*saved_by, *search.in_float)):
        layers.add_row(name, saved_by.get(name, "–"), "float" if name in search.in_float else "int8")
    front = Table(box=None, pad_edge=False)
    for column in ("operators in float", "× plain int8's latency", "top-1", "smoothed", "loss"):
        front.add_column(column, justify="right")
    for one in _pareto_front(search.candidates):
        shares = f"{one.top1_agreement:.3f}", f"{one.smoothed_agreement:.3f}"
        front.add_row(str(one.in_float), f"{one.latency_ratio:.2f}", *shares, f"{one.loss:.1e}")
    unfinished = "" if search.complete else ", when the time was up"
    speed = f"{search.latency_ratio:.2f}× plain int8's latency"
    found = f"ranges by {search.calibration}, found in {search.seconds:.0f} s{unfinished}"
    return [
        "",
        f"{variant_id}: {search.reason}; {speed}, {found}",
        "",
        layers,
        "",
        "of the candidates, on the frames that the search chose by, those that none beats in both speed and loss:",
        front,
        "",
    ]


def _pareto_front(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda candidate: (candidate.latency_ratio, candidate.loss)):
        if not front or one.loss < front[-1].loss:
            front.append(one)
    return front


def _parity_cells(parity: Parity | None) -> tuple[str, ...]:
    if parity is None:
        return ("",) * (len(PARITY_COLUMNS) - 1)
    return (
        f"{parity.top1_agreement:.3f}",
        "–" if parity.confident_agreement is None else f"{parity.confident_agreement:.3f}",
        f"{parity.smoothed_agreement:.3f}" if parity.data == "held-out" else "–",
        f"{parity.max_abs_error:.1e}",
        "–" if parity.kl_divergence is None else f"{parity.kl_divergence:.1e}",
    )


def _accuracy_cells(accuracy: Accuracy | None) -> tuple[str, ...]:
    if accuracy is None:
        return ("–",) * len(ACCURACY_COLUMNS)
    worst = f"{accuracy.worst_class} {accuracy.worst_class_accuracy:.3f}" if accuracy.worst_class else "–"
    return f"{accuracy.accuracy:.3f}", f"{accuracy.smoothed_accuracy:.3f}", worst


def accuracy_caption(of_keras: Accuracy | None) -> list[str]:
    """Return what the accuracies in :func:`variant_table` were measured on: a line, or none."""
    if of_keras is None:
        return []
    return [f"right on {of_keras.frames} labelled frames: of single frames, of smoothed labels, and in the worst class"]


def parity_caption(manifest: Manifest) -> str:
    """Return what the agreements in :func:`variant_table` were measured on."""
    parity, spec = manifest.variants[0].parity, manifest.sequence
    what = f"windows of {spec.frames} frames" if spec and spec.frames > 1 else "frames"
    if parity is None:
        return "agreement with the Keras model: not measured"
    if parity.data == "noise":
        return f"agreement with the Keras model on {parity.frames} {what} of noise, which say nothing of your video"
    distinct = manifest.calibration.distinct_held_out if manifest.calibration else None
    varied = "" if distinct is None else f" ({distinct} distinct)"
    return (
        f"agreement with the Keras model on {parity.frames} held-out {what}{varied} of the calibration sources; "
        f"smoothed as over {parity.window} frames of video, pictures one by one"
    )


def _facts(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    spec, steps = manifest.input, manifest.preprocessing
    calibration = manifest.calibration
    what = "windows" if manifest.takes_windows else "frames"
    calibrated = (
        f"{calibration.frames} {what} of {', '.join(calibration.sources)}" if calibration else "no (no --calib)"
    )
    some_labels = ", ".join(bundle.labels[:SHOWN_LABELS])
    return [
        f"bundle       {bundle.path}",
        f"model        {manifest.name}, from {manifest.source.file}",
        f"made with    {', '.join(f'{tool} {version}' for tool, version in manifest.made_with.items())}",
        f"input        {spec.height}×{spec.width}×{spec.channels} {spec.color}, {steps.resize}, {steps.fit}",
        f"normalized   (pixel − {_numbers(steps.mean)}) / {_numbers(steps.std)}",
        f"output       {_answer(manifest.output)}: {some_labels}{', …' if len(bundle.labels) > SHOWN_LABELS else ''}",
        f"smoothing    {manifest.smoothing}",
        f"calibrated   {calibrated}",
        *_sequence_lines(manifest.sequence),
        parity_caption(manifest),
        *accuracy_caption(manifest.keras_accuracy),
        *(f"remark       {remark}" for remark in manifest.remarks),
        "",
    ]


def _sequence_lines(sequence: SequenceSpec | None) -> list[str]:
    if sequence is None:
        return []
    heads = ", ".join(f"{head.file} {head.bytes / 1e6:.2f} MB" for head in sequence.heads)
    if sequence.frames == 1:
        return [f"features     {sequence.features} of each frame, of which a head makes classes ({heads})"]
    each = f"each answered with {sequence.features} features, of which a head makes classes ({heads})"
    return [
        f"windows      of {sequence.frames} frames, one every {sequence.hop}; "
        + (each if heads else "a variant takes all of them at once")
    ]


def _answer(output: OutputSpec) -> str:
    if output.binary:
        last = "sigmoid" if output.activation == "sigmoid" else "logit"
        return f"2 classes, binary: one {last}, of the second class"
    return f"{output.classes} classes, {output.activation}"


def _numbers(values: tuple[float, ...]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"

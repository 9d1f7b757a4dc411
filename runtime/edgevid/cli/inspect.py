"""``edgevid inspect``: show what is in a bundle."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.table import Table

from edgevid.bundle import Bundle, find_bundle
from edgevid.cli.terminal import Terminal, common_options
from edgevid.manifest import Variant

EPILOG = """
\b
Examples:
  edgevid inspect model.edgevid
  edgevid inspect model.edgevid --json
"""


@click.command(epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write the manifest as JSON.")
@common_options
@click.pass_obj
def inspect(terminal: Terminal, bundle: Path | None, as_json: bool) -> None:
    """Show what is in a bundle, after checking every file's SHA-256."""
    opened = find_bundle(bundle)
    opened.verify()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(opened.manifest), indent=2).decode() + "\n")
        return
    terminal.result(*_facts(opened), variant_table(opened.manifest.variants))
    terminal.result("every file has the SHA-256 of the manifest")


def variant_table(variants: tuple[Variant, ...]) -> Table:
    """Return the variants and how each compares with the Keras model, for reading."""
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for column in ("MB", "top-1", "confident", "smoothed", "max abs error", "KL"):
        table.add_column(column, justify="right")
    for variant in variants:
        parity = variant.parity
        if parity is None:
            table.add_row(variant.id, f"{variant.bytes / 1e6:.2f}")
            continue
        confident = parity.confident_agreement
        table.add_row(
            variant.id,
            f"{variant.bytes / 1e6:.2f}",
            f"{parity.top1_agreement:.3f}",
            "–" if confident is None else f"{confident:.3f}",
            f"{parity.smoothed_agreement:.3f}" if parity.data == "held-out" else "–",
            f"{parity.max_abs_error:.1e}",
            "–" if parity.kl_divergence is None else f"{parity.kl_divergence:.1e}",
        )
    return table


def parity_caption(variants: tuple[Variant, ...]) -> str:
    """Return what the agreements in :func:`variant_table` were measured on."""
    parity = variants[0].parity
    if parity is None:
        return "agreement with the Keras model: not measured"
    if parity.data == "noise":
        return f"agreement with the Keras model on {parity.frames} frames of noise, which say nothing of your video"
    return (
        f"agreement with the Keras model on {parity.frames} held-out frames of the calibration sources; "
        f"smoothed as over {parity.window} frames of video"
    )


def _facts(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    spec, steps = manifest.input, manifest.preprocessing
    calibration = manifest.calibration
    calibrated = (
        f"{calibration.frames} frames of {', '.join(calibration.sources)}" if calibration else "no (no --calib)"
    )
    some_labels = ", ".join(bundle.labels[:3])
    return [
        f"bundle       {bundle.path}",
        f"model        {manifest.name}, from {manifest.source.file}",
        f"made with    {', '.join(f'{tool} {version}' for tool, version in manifest.made_with.items())}",
        f"input        {spec.height}×{spec.width}×{spec.channels} {spec.color}, {steps.resize}, {steps.fit}",
        f"normalized   (pixel − {_numbers(steps.mean)}) / {_numbers(steps.std)}",
        f"output       {manifest.output.classes} classes, {manifest.output.activation}: {some_labels}, …",
        f"window       {manifest.smoothing.window} predictions",
        f"calibrated   {calibrated}",
        parity_caption(manifest.variants),
        "",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"

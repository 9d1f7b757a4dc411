"""``edgevid demo``: the whole product on a real model and a real clip."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import click

from edgevid._version import __version__
from edgevid.bundle import Bundle
from edgevid.classifier import VideoClassifier
from edgevid.cli.run_lines import summary_lines, what_runs
from edgevid.cli.terminal import Terminal, common_options
from edgevid.engine import share_cores
from edgevid.errors import BundleError, MissingExtraError
from edgevid.pipeline import run_pipeline
from edgevid.sample import sample_bundle_path, sample_clip
from edgevid.sinks import open_predictions, open_video
from edgevid.sources import open_source
from edgevid.sources.feed import Feed
from edgevid.summary import Summary

EPILOG = """
\b
Examples:
  edgevid demo
  edgevid demo --output here --rebuild
"""
CLIP = "bikes"
BENCH_BACKENDS = ("litert", "onnxruntime")
BENCH_VARIANTS = ("tflite-int8", "onnx-int8", "tflite-fp32", "onnx-fp32")


@click.command(epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    default="edgevid-demo",
    show_default=True,
    help="Where the video, the predictions and the report go; an earlier demo's are replaced.",
)
@click.option("--rebuild", is_flag=True, help="Convert the sample model again, even if it is in the cache.")
@common_options
@click.pass_obj
def demo(terminal: Terminal, output: Path, rebuild: bool) -> None:
    """Build a real Keras model (EfficientNet-Lite0), convert it, classify a real clip, and run a short bench.

    The converted model stays in the user's cache folder, where later runs and the other commands find it. Nothing is
    fetched from the network.
    """
    bench = import_module("edgevid_bench.cli")
    _check_packages()
    output.mkdir(parents=True, exist_ok=True)
    bundle = _cached_bundle(terminal, rebuild)
    video, predictions = output / f"{CLIP}.mp4", output / f"{CLIP}.jsonl"
    reports = [output / "report.html", output / "report.json"]
    summary = _classify(bundle, video, predictions, terminal)
    terminal.result(*summary_lines(f"sample:{CLIP}", summary), *_timeline(summary), "")
    options = import_module("edgevid_bench.options").BenchOptions(
        source=f"sample:{CLIP}",
        backends=BENCH_BACKENDS,
        variants=BENCH_VARIANTS,
        devices=("cpu",),
        min_rounds=2,
        max_rounds=2,
        min_secs=0.5,
        allow_disturbed=True,
    )
    measured = bench.measure_with_progress(bundle, options, terminal, "edgevid demo")
    for path in reports:
        bench.write_report(measured, path)
    if not measured.method.complete:
        raise KeyboardInterrupt
    terminal.result(
        *bench.report_lines(measured),
        "",
        f"annotated video     {video}",
        f"predictions         {predictions}",
        f"bench report        {reports[0]}, {reports[1].name}",
        f"Keras model         {bundle.path.with_suffix('.keras')}",
        f"converted bundle    {bundle.path}",
    )


def _check_packages() -> None:
    """Check that all of the three extras that the demo needs are there, and name the one that brings them all."""
    try:
        for command in ("edgevid_bench.cli", "edgevid_convert.cli"):
            import_module(command).check_packages()
        sample_clip(CLIP)
    except MissingExtraError as error:
        raise MissingExtraError("edgevid demo", error.package, "all") from error


def _cached_bundle(terminal: Terminal, rebuild: bool) -> Bundle:
    """Return the sample bundle that this version made, converting the model if there is none."""
    path = sample_bundle_path()
    if not rebuild:
        try:
            bundle = Bundle(path)
            bundle.verify()
            if bundle.manifest.made_with.get("edgevid") == __version__:
                terminal.message(f"using the sample bundle in {path}")
                return bundle
        except BundleError:  # none yet, or a damaged one
            pass
    terminal.message("building EfficientNet-Lite0 and converting it: some minutes, once")
    sample: Bundle = import_module("edgevid_convert.sample").convert_sample(path, terminal)
    terminal.result(*import_module("edgevid_convert.cli").outcome(sample), "")
    return sample


def _classify(bundle: Bundle, video: Path, predictions: Path, terminal: Terminal) -> Summary:
    threads, workers = share_cores(live=False)
    with ExitStack() as stack:
        source = open_source(f"sample:{CLIP}")
        feed = stack.enter_context(Feed(source))
        classifier = stack.enter_context(VideoClassifier(bundle, threads=threads, workers=workers))
        sinks = [
            stack.enter_context(open_predictions(str(predictions), force=True)),
            stack.enter_context(open_video(video, source, force=True)),
        ]
        terminal.message(what_runs(classifier))
        progress = stack.enter_context(terminal.progress("frames"))
        task = progress.add_task(CLIP, total=source.frame_count)
        return run_pipeline(
            feed,
            classifier,
            sinks,
            on_prediction=lambda prediction: progress.update(task, advance=1, description=prediction.label),
        )


def _timeline(summary: Summary) -> list[str]:
    return ["timeline:", *(f"  {span.start:5.2f}–{span.end:5.2f} s  {span.label}" for span in summary.timeline)]

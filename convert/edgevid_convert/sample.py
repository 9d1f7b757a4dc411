"""The sample bundle: EfficientNet-Lite0, built, saved as a real ``.keras`` file, and converted like any other."""

from __future__ import annotations

from pathlib import Path

from edgevid.bundle import Bundle
from edgevid.cli.terminal import Terminal
from edgevid.sample import SAMPLE_CLIPS, sample_clip
from edgevid.sources import SAMPLE_PREFIX
from edgevid_convert.cli import check_packages, convert_quietly, quiet_unless_debug
from edgevid_convert.options import ConvertOptions

__all__ = ["convert_sample"]

SEARCH_MINUTES = 1.5  # on two cores of a PC more time finds nothing else; on a board somebody waits


def convert_sample(output: Path, terminal: Terminal) -> Bundle:
    """Build the sample model beside ``output`` and convert it, calibrated on the three sample clips.

    Raises:
        MissingExtraError: the [convert] or the [sample] extra is not installed.
    """
    check_packages()
    for clip in SAMPLE_CLIPS:
        sample_clip(clip)
    output.parent.mkdir(parents=True, exist_ok=True)
    model, labels = output.with_suffix(".keras"), output.with_suffix(".txt")
    with terminal.progress() as progress, quiet_unless_debug(terminal):
        progress.add_task("building the Keras model", total=None)
        from edgevid_convert.lite0 import MEAN, STD, imagenet_labels, save_sample_model  # TensorFlow comes with it

        labels.write_text("".join(f"{label}\n" for label in imagenet_labels()), encoding="utf-8")
        partial = model.with_suffix(".partial.keras")
        save_sample_model(partial)
        partial.replace(model)
    options = ConvertOptions(
        model=model,
        output=output,
        labels=labels,
        calib=tuple(f"{SAMPLE_PREFIX}{clip}" for clip in SAMPLE_CLIPS),
        mean=(MEAN,),
        std=(STD,),
        search_minutes=SEARCH_MINUTES,
        force=True,
    )
    return convert_quietly(options, terminal)

"""How often the Keras model and its variants are right: accuracy on labelled clips and images."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevid.errors import ModelError, SourceError, UsageError
from edgevid.manifest import Accuracy, OutputSpec
from edgevid.preprocess import Preprocessor
from edgevid.sources.files import is_clip, is_image
from edgevid_convert.calib_sources import find_calib, is_still
from edgevid_convert.frames import Clip, read_still, sample_clip_frames
from edgevid_convert.parity import Scores, smoothed_labels

__all__ = ["LabelledClip", "measure_accuracy", "sample_labelled"]

CSV_COLUMNS = ("clip", "label")
ENOUGH_FRAMES = 5  # of a class, to call it the worst
MOST_NAMED = 5
EXPECTED = "a folder with a sub-folder for each class, or a CSV file with the columns clip,label"


@dataclass(frozen=True)
class LabelledClip:
    """Frames of one video, one folder of images or one image, and the label that is the truth of all of them."""

    label: str
    clip: Clip


def sample_labelled(
    path: Path,
    labels: Sequence[str],
    output: OutputSpec,
    preprocessor: Preprocessor,
    most: int,
    calib: Sequence[str] = (),
    on_frame: Callable[[str, int, int | None], None] = lambda name, index, total: None,
    length: int = 0,
) -> list[LabelledClip]:
    """Sample labelled clips evenly over their length, about ``most`` frames over all of them.

    Where there are more clips than that, they are taken evenly from the list, which is in the order of the classes.

    Args:
        path: a folder with a sub-folder for each class, or a CSV file with the columns ``clip,label``. Every image
            of a class is a clip of its own, and so is every video, and every folder in it.
        labels: the model's.
        output: of the model; one class must be the answer.
        preprocessor: the runtime's own.
        most: frames in all.
        calib: the calibration sources, which must not be among the clips.
        on_frame: called with the source's name, the frame's number and the number expected.
        length: how many frames the model takes at a time; 0 for single ones.

    Raises:
        ModelError: the model's classes do not exclude one another.
        UsageError: a label is not the model's, or a clip is a calibration source too.
        SourceError: there are no clips, or one cannot be read.
    """
    if output.multi_label:
        raise ModelError(
            f"--eval {path}: the model ends in sigmoids, of which several can be right at once, so that the accuracy "
            "of the best one says nothing; leave out --eval"
        )
    listed = list(_in_folders(path) if path.is_dir() else _in_csv(path))
    if not listed:
        raise SourceError(f"--eval {path}: no clips and no images in it; expected {EXPECTED}")
    listed = _each_once(path, listed)
    _check_labels(path, {label for _, label in listed}, labels)
    _check_apart(path, {file.resolve() for file, _ in listed}, calib)
    chosen = [listed[index] for index in np.linspace(0, len(listed) - 1, min(most, len(listed))).round().astype(int)]
    longer = [file for file, _ in chosen if not is_still(file)]
    per_clip = (most - (len(chosen) - len(longer))) // max(1, len(longer))  # an image has one frame, and no more
    if length:
        per_clip = max(1, per_clip // length)
    return [LabelledClip(label, _clip(file, preprocessor, per_clip, on_frame, length)) for file, label in chosen]


def measure_accuracy(
    answers: Sequence[Scores], clips: Sequence[LabelledClip], labels: Sequence[str], window: int
) -> Accuracy:
    """Return how often answers are right; classes that share a label count as one, as everywhere.

    Args:
        answers: class probabilities, float32 (frames, classes) a clip.
        clips: what was asked about, in the same order.
        labels: one a class.
        window: the rolling average's, in frames of video.
    """
    names = np.array(labels)
    truth = np.concatenate([np.repeat(each.label, len(rows)) for each, rows in zip(clips, answers, strict=True)])
    right = names[np.concatenate(answers).argmax(axis=1)] == truth
    smoothed = [smoothed_labels(rows, window, each.clip.spacing) for each, rows in zip(clips, answers, strict=True)]
    by_class = {str(label): right[truth == label] for label in np.unique(truth)}
    enough = {label: float(hits.mean()) for label, hits in by_class.items() if len(hits) >= ENOUGH_FRAMES}
    worst = min(enough, key=lambda label: enough[label], default=None)
    return Accuracy(
        frames=len(truth),
        accuracy=float(right.mean()),
        smoothed_accuracy=float((names[np.concatenate(smoothed)] == truth).mean()),
        worst_class=worst,
        worst_class_accuracy=None if worst is None else enough[worst],
    )


def _in_folders(path: Path) -> Iterator[tuple[Path, str]]:
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
            found = [entry for entry in entries if entry.is_dir() or is_clip(entry) or is_image(entry)]
            if not found:
                raise SourceError(f"--eval {folder}: no clips and no images in it; expected {EXPECTED}")
            yield from ((entry, folder.name) for entry in found)


def _in_csv(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--eval {path}: not a CSV file; expected {EXPECTED}") from error
    for number, row in enumerate(rows, start=2):
        clip, label = (row.get(column) for column in CSV_COLUMNS)
        if not clip or not label:
            raise UsageError(f"--eval {path}: line {number} has no clip or no label; expected the columns clip,label")
        file_named = path.parent / clip
        if not file_named.exists():
            raise SourceError(f"--eval {path}: line {number}: {file_named}: no such file or folder")
        yield file_named, label.strip()


def _each_once(path: Path, listed: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Return each clip once, whatever links lead to it; refuse one that is said to be two things."""
    first: dict[Path, tuple[Path, str]] = {}
    for file, label in listed:
        other, other_label = first.setdefault(file.resolve(), (file, label))
        if label != other_label:
            raise UsageError(
                f"--eval {path}: {file} is labelled {label!r}, and {other}, the same file, {other_label!r}; keep one"
            )
    return list(first.values())


def _check_labels(path: Path, given: set[str], labels: Sequence[str]) -> None:
    unknown = sorted(given.difference(labels))
    if not unknown:
        return
    named = []
    for label in unknown[:MOST_NAMED]:
        nearest = difflib.get_close_matches(label, labels, n=1, cutoff=0.5)
        named.append(f"{label!r}" + (f" (nearest: {nearest[0]!r})" if nearest else ""))
    more = f" and {len(unknown) - MOST_NAMED} others" if len(unknown) > MOST_NAMED else ""
    known = ", ".join(labels[:3])
    raise UsageError(
        f"--eval {path}: the model has no label {', '.join(named)}{more}; its labels are {known}, … : "
        "rename the folders or rows, or give --labels"
    )


def _check_apart(path: Path, files: set[Path], calib: Sequence[str]) -> None:
    """Refuse clips that calibrate too: who judges must not have seen them."""
    for name in calib:
        calibrating = {file.resolve() for source in find_calib([name]) for file in source.files}
        calibrating |= {folder for file in calibrating for folder in file.parents}
        if shared := sorted(files & calibrating):
            raise UsageError(f"--eval {path}: {shared[0]} is in --calib {name} too; judge by others")


def _clip(
    file: Path, preprocessor: Preprocessor, most: int, on_frame: Callable[[str, int, int | None], None], length: int
) -> Clip:
    if not is_still(file):
        clip = sample_clip_frames(str(file), preprocessor, most, on_frame, length)
        if not clip.frames:
            raise UsageError(f"--eval {file}: fewer frames than the {length} that the model takes at a time")
        return clip
    if length:
        raise UsageError(f"--eval {file}: one image, and the model takes {length} frames at a time; give videos")
    on_frame(str(file), 1, 1)
    return Clip([read_still(file, preprocessor, "--eval")])

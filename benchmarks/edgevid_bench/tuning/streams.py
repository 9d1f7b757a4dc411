"""What the model answers to the frames of clips, and what is the truth of them."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid.classifier import VideoClassifier
from edgevid.errors import BackendError, UsageError
from edgevid.sources import open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick

__all__ = ["UNKNOWN", "Span", "Stream", "Truth", "read_stream", "read_truth"]

COLUMNS = ("start", "end", "label")
UNKNOWN = -1  # of a frame that no span of the truth covers
Truth: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a clip, in seconds, and its true class."""

    start: float
    end: float
    label: int


@dataclass(frozen=True, eq=False)
class Stream:
    """One clip, frame by frame.

    Attributes:
        name: the clip's.
        times: seconds, float64 of shape (frames,).
        rows: class probabilities, float32 of shape (frames, classes).
        truth: the true class of each frame, UNKNOWN where none is given; None without labels.
    """

    name: str
    times: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float32]
    truth: Truth | None = None

    @property
    def seconds(self) -> float:
        """How long it is, the last frame counted as long as the others."""
        return float(self.times[-1] - self.times[0]) * len(self.times) / max(1, len(self.times) - 1)


def read_stream(
    classifier: VideoClassifier,
    clip: str,
    spans: Sequence[Span] | None,
    on_frame: Callable[[int, int | None], None] = lambda done, expected: None,
) -> Stream:
    """Classify every frame of a clip.

    Args:
        classifier: the model.
        clip: a file, or ``sample:NAME``.
        spans: the truth; None where there is none.
        on_frame: called with how many frames are done, and how many are expected.

    Raises:
        SourceError: it cannot be read.
        UsageError: it is live, or several clips at once, or shorter than two frames, or no frame of it is labelled.
        BackendError: the model answered something that is no number.
    """
    times: list[float] = []
    rows: list[npt.NDArray[np.float32]] = []
    classifier.reset()
    with Feed(open_source(clip), Pick()) as feed:
        if feed.source.live:
            raise UsageError(
                f"--clip {clip}: it is live, and has no end; record some minutes with 'edgevid run --save'"
            )
        for frame, row in classifier.rows(feed, read_ahead=True):
            if times and frame.gap_s:
                raise UsageError(f"--clip {clip}: these are several clips; give --clip for each")
            probabilities = classifier.of_row(frame, row)
            if not np.isfinite(probabilities).all():
                raise BackendError(
                    f"--clip {clip}, frame {frame.index}: the model answered something that is no probability; "
                    "try another variant (--variant), this one overflows"
                )
            times.append(frame.time)
            rows.append(probabilities.copy())
            on_frame(len(times), feed.frame_count)
    if len(times) < 2:
        raise UsageError(f"--clip {clip}: {len(times)} frame(s); expected a video")
    seconds = np.array(times)
    truth = None if spans is None else _truth(seconds, spans)
    if truth is not None and (truth == UNKNOWN).all():
        raise UsageError(
            f"--truth: none of its lines is about a frame of {clip}, which goes from {times[0]:g} to {times[-1]:g} s; "
            "expected start and end in seconds"
        )
    return Stream(clip, seconds, np.array(rows), truth)


def _truth(times: npt.NDArray[np.float64], spans: Sequence[Span]) -> Truth:
    truth = np.full(len(times), UNKNOWN, np.intp)
    for span in spans:
        truth[(times >= span.start) & (times < span.end)] = span.label
    return truth


def read_truth(path: Path, clips: Sequence[str], labels: Sequence[str]) -> dict[str, list[Span]]:
    """Return the true spans of each clip, from a CSV file with the columns ``start,end,label``, times in seconds.

    With more than one clip it has a column ``clip`` too, with its name as given or that of its file.

    Raises:
        UsageError: the file cannot be read, or a line of it cannot be meant.
    """
    names = {name: clip for clip in clips for name in (clip, Path(clip).name)}
    classes = {label: index for index, label in enumerate(labels)}
    spans: dict[str, list[Span]] = {clip: [] for clip in clips}
    for line, row in _rows(path, COLUMNS if len(clips) == 1 else ("clip", *COLUMNS)):
        where = f"--truth {path}, line {line}"
        name = row.get("clip") or (clips[0] if len(clips) == 1 else "")
        clip = names.get(name)
        if clip is None:
            raise UsageError(f"{where}: clip {name!r} is none of those given with --clip")
        span = _span(row, classes, where)
        if any(span.start < other.end and other.start < span.end for other in spans[clip]):
            raise UsageError(f"{where}: {span.start:g} to {span.end:g} s is labelled already; a frame has one label")
        spans[clip].append(span)
    for clip, given in spans.items():
        if not given:
            raise UsageError(f"--truth {path}: nothing about {clip}; expected a line for each of its labels")
    return spans


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--truth {path}: it cannot be read ({error}); expected a CSV file") from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"--truth {path}: no column {', '.join(missing)}; expected a first line {','.join(columns)}")
    for row in reader:
        if None in row:
            raise UsageError(
                f"--truth {path}, line {reader.line_num}: more cells than columns; put a label with a comma in quotes"
            )
        yield reader.line_num, {name: value or "" for name, value in row.items()}


def _span(row: Mapping[str, str], classes: Mapping[str, int], where: str) -> Span:
    try:
        start, end = float(row["start"]), float(row["end"])
    except ValueError:
        raise UsageError(f"{where}: start {row['start']!r}, end {row['end']!r}: expected seconds") from None
    if not 0 <= start < end:
        raise UsageError(f"{where}: from {start:g} to {end:g} s: expected an end after the start")
    label = row["label"].strip()
    if label not in classes:
        near = difflib.get_close_matches(label, classes, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "; 'edgevid inspect' shows the bundle's labels"
        raise UsageError(f"{where}: the model has no label {label!r}{hint}")
    return Span(start, end, classes[label])

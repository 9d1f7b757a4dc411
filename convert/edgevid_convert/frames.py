"""Real frames for calibration and for judging: sampled over the length of each source, and kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Image
from edgevid.errors import UsageError
from edgevid.preprocess import Preprocessor
from edgevid.sources import open_file
from edgevid.sources.archive import CLIP_SUFFIXES
from edgevid.sources.images import IMAGE_SUFFIXES

__all__ = ["Clip", "FrameSet", "noise_frames", "sample_clip_frames", "sample_frames", "sample_windows"]

THUMBNAIL = (32, 32)
NEAR_DUPLICATE_LEVELS = 2.0  # mean absolute difference of two thumbnails, in grey levels
CYCLE = 4  # of sampled frames: the first calibrates, the third is searched on, the second and the fourth judge
NOISE_FRAMES = 16


@dataclass(frozen=True)
class Clip:
    """Frames of one source, in order: uint8 (height, width, channels) in the model's colour order.

    Of a model of windows each is a window of consecutive frames, (frames, height, width, channels). ``spacing`` is how
    many frames of the source lie between two of them, on average.
    """

    frames: Sequence[Image]
    spacing: float = 1.0

    def thinned(self, step: int) -> Clip:
        """Return the clip with every ``step``-th frame only."""
        return Clip(self.frames[::step], self.spacing * step)


@dataclass
class FrameSet:
    """Frames in the model's size and colour order: some calibrate, some choose between candidates, some judge."""

    calibration: list[Image] = field(default_factory=list)
    search: list[Clip] = field(default_factory=list)
    held_out: list[Clip] = field(default_factory=list)
    near_duplicates: int = 0
    _thumbnails: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def calibrate_on(self, image: Image) -> None:
        """Take an image to calibrate on, unless it hardly differs from one taken already: that would weigh double."""
        thumbnail = cv2.resize(image.astype(np.float32), THUMBNAIL, interpolation=cv2.INTER_AREA)
        if any(np.abs(thumbnail - other).mean() < NEAR_DUPLICATE_LEVELS for other in self._thumbnails):
            self.near_duplicates += 1
        else:
            self._thumbnails.append(thumbnail.astype(np.float32, copy=False))
            self.calibration.append(image)

    @property
    def held_out_count(self) -> int:
        """How many frames judge."""
        return sum(len(clip.frames) for clip in self.held_out)


def sample_frames(
    sources: Sequence[str],
    preprocessor: Preprocessor,
    calibration_frames: int,
    on_frame: Callable[[str, int, int | None], None] = lambda name, index, total: None,
) -> FrameSet:
    """Sample each source evenly over its length; of four frames one calibrates, one is searched on, two are held out.

    Calibration frames that hardly differ from one already taken are dropped.
    Held-out frames are all kept, since a user sees them all.

    Args:
        sources: video files, folders of images, and folders of videos.
        preprocessor: the runtime's own, so that the model is calibrated on what it will see.
        calibration_frames: how many frames to calibrate on, at most, over all sources.
        on_frame: called with the source's name, the frame's number and the number expected.

    Raises:
        SourceError: a source cannot be opened or has no frames.
        UsageError: a source has too few frames to judge by.
    """
    chosen = FrameSet()
    expanded = [clip for name in sources for clip in _clips_in(name)]
    per_source = max(1, calibration_frames // len(expanded)) * CYCLE
    for name in expanded:
        pixels, stride = _sampled(name, preprocessor, per_source, on_frame)
        if len(pixels) < 2:
            raise UsageError(f"--calib {name}: only {len(pixels)} frame; expected 2 or more, to calibrate and to judge")
        for image in pixels[::CYCLE]:
            chosen.calibrate_on(image)
        chosen.held_out.append(Clip(pixels[1::2], stride * len(pixels) / len(pixels[1::2])))
        if searched := pixels[2::CYCLE]:
            chosen.search.append(Clip(searched, stride * CYCLE))
    return chosen


def sample_windows(
    sources: Sequence[str],
    preprocessor: Preprocessor,
    length: int,
    split: bool,
    calibration_frames: int,
    on_frame: Callable[[str, int, int | None], None] = lambda name, index, total: None,
) -> FrameSet:
    """Sample windows of consecutive frames from each source; as :func:`sample_frames`, in whose place it is.

    Windows do not overlap. Of four, counted over all sources, one calibrates, one is searched on, two are held out.

    Args:
        sources: video files, folders of images, and folders of videos.
        preprocessor: the runtime's own.
        length: how many frames make a window.
        split: whether each frame is calibrated on alone, less near-duplicates, and not the window.
        calibration_frames: how many frames to calibrate on, at most, or those of two windows a source.
        on_frame: see :func:`sample_frames`.

    Raises:
        SourceError: a source cannot be opened or has no frames.
        UsageError: a source has too few frames for a window, or all have too few to judge by.
    """
    chosen, count = FrameSet(), 0
    expanded = [clip for name in sources for clip in _clips_in(name)]
    per_source = max(2, calibration_frames // length // len(expanded)) * CYCLE
    for name in expanded:
        windows, stride = _sampled(name, preprocessor, per_source, on_frame, length)
        if not windows:
            raise UsageError(f"--calib {name}: fewer frames than the {length} that the model takes at a time")
        turns = [(index % CYCLE, window) for index, window in enumerate(windows, count)]
        count += len(windows)
        for window in (window for turn, window in turns if turn == 0):
            if split:
                for image in window:
                    chosen.calibrate_on(image)
            else:
                chosen.calibration.append(window)
        for clips, wanted in ((chosen.search, (2,)), (chosen.held_out, (1, 3))):
            if kept := [window for turn, window in turns if turn in wanted]:
                clips.append(Clip(kept, stride * length * len(windows) / len(kept)))
    if count < 2:
        raise UsageError(f"--calib {' '.join(sources)}: only one window of {length} frames; expected 2 or more")
    return chosen


def sample_clip_frames(
    name: str,
    preprocessor: Preprocessor,
    most: int,
    on_frame: Callable[[str, int, int | None], None],
    length: int = 0,
) -> Clip:
    """Return about ``most`` frames of one source, evenly over its length; with ``length``, windows of so many.

    Raises:
        SourceError: it cannot be opened or has no frames.
    """
    pixels, stride = _sampled(name, preprocessor, most, on_frame, length)
    return Clip(pixels, stride * max(1, length))


def noise_frames(*shape: int) -> list[Clip]:
    """Return seeded noise of a model's shape, for judging where no real frames were given."""
    generator = np.random.default_rng(0)
    return [Clip([generator.integers(0, 256, shape, np.uint8) for _ in range(NOISE_FRAMES)])]


def _clips_in(name: str) -> list[str]:
    """Return the videos of a folder that holds videos and no images; else ``name`` itself."""
    folder = Path(name)
    if not folder.is_dir() or any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
        return [name]
    return sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in CLIP_SUFFIXES) or [name]


def _sampled(
    name: str,
    preprocessor: Preprocessor,
    most: int,
    on_frame: Callable[[str, int, int | None], None],
    length: int = 0,
) -> tuple[list[Image], int]:
    """Return about ``most`` frames, or windows of ``length``, spread over the source, and the stride between them."""
    pixels: list[Image] = []
    window: list[Image] = []
    of_one = max(1, length)
    with open_file(name) as source:
        stride = max(1, -(-(source.frame_count or most * of_one) // (most * of_one)))
        for place, frame in enumerate(source):
            if place // of_one % stride == 0:
                window.append(preprocessor.pixels(frame.picture))
            if len(window) == of_one:
                pixels.append(np.stack(window) if length else window[0])
                window = []
            if len(pixels) >= 2 * most:  # longer than it said: thinned out, so that memory stays bounded
                pixels, stride = pixels[::2], 2 * stride
            on_frame(name, frame.index + 1, source.frame_count)
    return pixels, stride

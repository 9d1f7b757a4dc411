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

__all__ = ["Clip", "FrameSet", "noise_frames", "sample_clip_frames", "sample_frames"]

THUMBNAIL = (32, 32)
NEAR_DUPLICATE_LEVELS = 2.0  # mean absolute difference of two thumbnails, in grey levels
CYCLE = 4  # of sampled frames: the first calibrates, the third is searched on, the second and the fourth judge
NOISE_FRAMES = 16


@dataclass(frozen=True)
class Clip:
    """Frames of one source, in order: uint8 (height, width, channels) in the model's colour order.

    ``spacing`` is how many frames of the source lie between two of them, on average.
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

    Calibration frames that hardly differ from one already taken are dropped: they would only weigh it double.
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
    thumbnails: list[npt.NDArray[np.float32]] = []
    expanded = [clip for name in sources for clip in _clips_in(name)]
    per_source = max(1, calibration_frames // len(expanded)) * CYCLE
    for name in expanded:
        pixels, stride = _sampled(name, preprocessor, per_source, on_frame)
        if len(pixels) < 2:
            raise UsageError(f"--calib {name}: only {len(pixels)} frame; expected 2 or more, to calibrate and to judge")
        for image in pixels[::CYCLE]:
            thumbnail = cv2.resize(image.astype(np.float32), THUMBNAIL, interpolation=cv2.INTER_AREA)
            if any(np.abs(thumbnail - other).mean() < NEAR_DUPLICATE_LEVELS for other in thumbnails):
                chosen.near_duplicates += 1
            else:
                thumbnails.append(thumbnail.astype(np.float32, copy=False))
                chosen.calibration.append(image)
        chosen.held_out.append(Clip(pixels[1::2], stride * len(pixels) / len(pixels[1::2])))
        if searched := pixels[2::CYCLE]:
            chosen.search.append(Clip(searched, stride * CYCLE))
    return chosen


def sample_clip_frames(
    name: str, preprocessor: Preprocessor, most: int, on_frame: Callable[[str, int, int | None], None]
) -> Clip:
    """Return about ``most`` frames of one source, evenly over its length.

    Raises:
        SourceError: it cannot be opened or has no frames.
    """
    pixels, stride = _sampled(name, preprocessor, most, on_frame)
    return Clip(pixels, stride)


def noise_frames(height: int, width: int, channels: int) -> list[Clip]:
    """Return seeded noise, for judging where no real frames were given."""
    generator = np.random.default_rng(0)
    return [Clip([generator.integers(0, 256, (height, width, channels), np.uint8) for _ in range(NOISE_FRAMES)])]


def _clips_in(name: str) -> list[str]:
    """Return the videos of a folder that holds videos and no images; else ``name`` itself."""
    folder = Path(name)
    if not folder.is_dir() or any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
        return [name]
    return sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in CLIP_SUFFIXES) or [name]


def _sampled(
    name: str, preprocessor: Preprocessor, most: int, on_frame: Callable[[str, int, int | None], None]
) -> tuple[list[Image], int]:
    """Return about ``most`` frames spread over the source, and the stride between them."""
    pixels: list[Image] = []
    with open_file(name) as source:
        stride = max(1, -(-(source.frame_count or most) // most))
        for frame in source:
            if frame.index % stride == 0:
                pixels.append(preprocessor.pixels(frame.picture))
            if len(pixels) >= 2 * most:  # longer than it said: thinned out, so that memory stays bounded
                pixels, stride = pixels[::2], 2 * stride
            on_frame(name, frame.index + 1, source.frame_count)
    return pixels, stride

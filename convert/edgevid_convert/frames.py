"""Real frames for calibration and for judging: sampled over the length of each source, and kept apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Image
from edgevid.errors import SourceError, UsageError
from edgevid.preprocess import Preprocessor
from edgevid.sources import open_file
from edgevid.sources.images import read_image
from edgevid_convert.calib_sources import CalibSource, find_calib
from edgevid_convert.gate import ENOUGH_FRAMES

__all__ = ["Clip", "FrameSet", "noise_frames", "read_still", "sample_clip_frames", "sample_frames", "sample_windows"]

IMAGE_RANK = 3  # height, width, channels
THUMBNAIL, BLOCKS = 32, 4  # pixels a side, and blocks of them
NEAR_DUPLICATE_LEVELS = 2.0  # mean absolute difference of two thumbnails, in grey levels
# At one place of two thumbnails: a bird on a lawn hardly shows in the mean, and may be all that is judged.
OTHER_LEVELS = 16.0
ONE_COLOR_LEVELS = 2.0  # standard deviation within a thumbnail
BLACK_LEVELS = 24.0
FEW_SHARE = 0.1  # of frames that differ from one another
CYCLE = 4  # of sampled frames: the first calibrates, the third is searched on, the second and the fourth judge
NOISE_FRAMES = 16
OnFrame = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Clip:
    """Frames of one source: uint8 (height, width, channels) in the model's colour order.

    Of a model of windows each is a window of consecutive frames, (frames, height, width, channels). ``spacing`` is how
    many frames of the source lie between two of them, on average; pictures without an order are infinitely far apart,
    so that no rolling average spans two of them.
    """

    frames: Sequence[Image]
    spacing: float = 1.0


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
        return len(self._judging)

    @cached_property
    def distinct_held_out(self) -> int:
        """How many of them differ from one another."""
        return len(_distinct(self._judging, OTHER_LEVELS))

    def remarks(self) -> tuple[str, ...]:
        """Return what there is to say where the frames that judge are hardly varied, a line each."""
        frames, distinct = self._judging, self.distinct_held_out
        if not frames:
            return ()
        what = "window" if frames[0].ndim > IMAGE_RANK else "frame"
        remarks = []
        if color := _one_color(frames):
            remarks.append(f"--calib: every {what} is {color} all over; give some that look like what the camera sees")
        if distinct < ENOUGH_FRAMES or distinct < FEW_SHARE * len(frames):
            few = f"of {len(frames)} {what}s to judge by only {distinct} differ from one another"
            if distinct == len(frames):
                few = f"only {distinct} {what}{'s' * (distinct > 1)} to judge by"
            elif distinct == 1:
                few = f"all {len(frames)} {what}s to judge by are alike"
            need = f", and int8 is proven by {ENOUGH_FRAMES} or more" if distinct < ENOUGH_FRAMES else ""
            remarks.append(f"--calib: {few}{need}; add videos or pictures that differ")
        return tuple(remarks)

    @property
    def _judging(self) -> list[Image]:
        return [image for clip in self.held_out for image in clip.frames]


def sample_frames(
    sources: Sequence[str],
    preprocessor: Preprocessor,
    calibration_frames: int,
    on_frame: OnFrame = lambda name, index, total: None,
) -> FrameSet:
    """Sample each source evenly over its length; of four frames one calibrates, one is searched on, two are held out.

    Calibration frames that hardly differ from one already taken are dropped.
    Held-out frames are all kept, since a user sees them all.

    Args:
        sources: what :func:`edgevid_convert.calib_sources.find_calib` takes.
        preprocessor: the runtime's own, so that the model is calibrated on what it will see.
        calibration_frames: how many frames to calibrate on, at most, over all sources.
        on_frame: called with the source's name, the frame's number and the number expected.

    Raises:
        SourceError: a source cannot be opened or has no frames.
        UsageError: there are too few frames to judge by.
    """
    return _shared_out(sources, preprocessor, 0, True, calibration_frames, on_frame)


def sample_windows(
    sources: Sequence[str],
    preprocessor: Preprocessor,
    length: int,
    split: bool,
    calibration_frames: int,
    on_frame: OnFrame = lambda name, index, total: None,
) -> FrameSet:
    """Sample windows of consecutive frames from each source; as :func:`sample_frames`, in whose place it is.

    Windows do not overlap.

    Args:
        sources: see :func:`sample_frames`; videos only.
        preprocessor: the runtime's own.
        length: how many frames make a window.
        split: whether each frame is calibrated on alone, and not the window.
        calibration_frames: how many frames to calibrate on, at most, or those of two windows.
        on_frame: see :func:`sample_frames`.

    Raises:
        SourceError: a source cannot be opened or has no frames.
        UsageError: a source is pictures or has too few frames for a window, or all have too few to judge by.
    """
    return _shared_out(sources, preprocessor, length, split, calibration_frames, on_frame)


def sample_clip_frames(
    name: str,
    preprocessor: Preprocessor,
    most: int,
    on_frame: OnFrame,
    length: int = 0,
) -> Clip:
    """Return about ``most`` frames of one source, evenly over its length; with ``length``, windows of so many.

    Raises:
        SourceError: it cannot be opened or has no frames.
    """
    pixels, stride = _sampled(name, preprocessor, most, on_frame, length)
    return Clip(pixels, stride * max(1, length))


def read_still(file: Path, preprocessor: Preprocessor, option: str) -> Image:
    """Return a picture in the model's size and colour order, uint8 (height, width, channels).

    Raises:
        SourceError: it cannot be decoded; the message begins with ``option``.
    """
    image = read_image(file)
    if image is None:
        raise SourceError(f"{option} {file}: it cannot be decoded as an image; is the file complete?")
    return preprocessor.pixels(image)


def noise_frames(*shape: int) -> list[Clip]:
    """Return seeded noise of a model's shape, for judging where no real frames were given."""
    generator = np.random.default_rng(0)
    return [Clip([generator.integers(0, 256, shape, np.uint8) for _ in range(NOISE_FRAMES)])]


def _shared_out(
    sources: Sequence[str],
    preprocessor: Preprocessor,
    length: int,
    split: bool,
    calibration_frames: int,
    on_frame: OnFrame,
) -> FrameSet:
    """Return frames or, with ``length``, windows of each source, those that calibrate, search and judge apart."""
    chosen, count = FrameSet(), 0
    calibrating: list[Image] = []
    for pixels, spacing in _read(sources, preprocessor, length, calibration_frames, on_frame):
        # What is short goes on in the cycle where the source before it stopped, as windows do, which are few.
        start = count if length or len(pixels) < CYCLE else 0
        turns = [(index % CYCLE, each) for index, each in enumerate(pixels, start)]
        count += len(pixels)
        calibrating += [each for turn, each in turns if turn == 0]
        for clips, wanted in ((chosen.search, (2,)), (chosen.held_out, (1, 3))):
            if kept := [each for turn, each in turns if turn in wanted]:
                clips.append(Clip(kept, spacing * len(pixels) / len(kept)))
    if count < 2:
        what = f"window of {length} frames" if length else "frame"
        raise UsageError(
            f"--calib {' '.join(sources)}: only {count} {what}; expected 2 or more, to calibrate and to judge"
        )
    if length and split:
        calibrating = [frame for window in calibrating for frame in window]
    most = calibration_frames if split else max(2, calibration_frames // length)
    distinct = _distinct(calibrating)
    chosen.near_duplicates = len(calibrating) - len(distinct)
    chosen.calibration = _evenly(distinct, most)
    return chosen


def _read(
    sources: Sequence[str], preprocessor: Preprocessor, length: int, calibration_frames: int, on_frame: OnFrame
) -> Iterator[tuple[list[Image], float]]:
    """Yield the frames or windows of each source, and their spacing; what is left over goes to the most pictures."""
    found = sorted(find_calib(sources), key=lambda source: len(source.files) if source.stills else 0)
    if length and found[-1].stills:
        raise UsageError(
            f"--calib {found[-1].files[0]}: a picture, and the model takes {length} frames at a time; give videos only"
        )
    enough = -(-ENOUGH_FRAMES // len(found))  # cycles, so that half of half as many still proves something
    each = max(2 if length else 1, calibration_frames // max(1, length) // len(found), enough) * CYCLE
    left = each * len(found)
    for index, source in enumerate(found):
        spacing = math.inf
        if source.stills:
            pixels = _stills(source, preprocessor, max(each, left // (len(found) - index)), on_frame)
        else:
            pixels, stride = _sampled(source.name, preprocessor, each, on_frame, length)
            spacing = stride * max(1, length)
            if not pixels:
                raise UsageError(
                    f"--calib {source.name}: fewer frames than the {max(1, length)} that the model takes at a time"
                )
        left -= len(pixels)
        yield pixels, spacing


def _stills(source: CalibSource, preprocessor: Preprocessor, most: int, on_frame: OnFrame) -> list[Image]:
    """Return at most so many pictures of a set, from everywhere in it, in an order that mixes what they show.

    In a set the classes follow each other or take turns, and no cycle may hit on one of them. So one picture is drawn
    from each stretch, and their order is that of their hashes, which does not depend on names either.
    """
    ends = np.linspace(0, len(source.files), min(most, len(source.files)) + 1).astype(int)
    drawn = [source.files[index] for index in np.random.default_rng(0).integers(ends[:-1], ends[1:])]
    pixels = []
    for number, file in enumerate(drawn, start=1):
        pixels.append(read_still(file, preprocessor, "--calib"))
        on_frame(source.name, number, len(drawn))
    return sorted(pixels, key=lambda image: sha256(image.tobytes()).digest())


def _sampled(
    name: str,
    preprocessor: Preprocessor,
    most: int,
    on_frame: OnFrame,
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


def _evenly(images: Sequence[Image], most: int) -> list[Image]:
    """Return at most so many of these, from everywhere among them."""
    return [images[index] for index in np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int)]


def _distinct(images: Sequence[Image], other_levels: float = math.inf) -> list[Image]:
    """Return the images, or windows, less those that hardly differ from one before them.

    Two differ where their thumbnails do on average or, somewhere, by ``other_levels``.
    """
    if not images:
        return []
    thumbnails = _thumbnails(images)
    side = THUMBNAIL // BLOCKS
    blocks = thumbnails.reshape(len(images), -1, BLOCKS, side, BLOCKS, side, thumbnails.shape[-1]).mean(axis=(3, 5))
    # A block's mean differs by no more than its pixels do: where those of two images differ enough, so do the images.
    blocks, pixels = blocks.reshape(len(images), -1), thumbnails.reshape(len(images), -1)
    kept = np.empty(0, int)
    for index in range(len(images)):
        near = kept[np.abs(blocks[kept] - blocks[index]).mean(axis=1) < NEAR_DUPLICATE_LEVELS]
        differences = np.abs(pixels[near] - pixels[index])
        alike = (differences.mean(axis=1) < NEAR_DUPLICATE_LEVELS) & (differences.max(axis=1) < other_levels)
        if not alike.any():
            kept = np.append(kept, index)
    return [images[index] for index in kept]


def _one_color(images: Sequence[Image]) -> str | None:
    """Return of which colour every image is all over, as far as that has a name; None where one is not."""
    thumbnails = _thumbnails(images)
    if thumbnails.std(axis=(2, 3)).max() > ONE_COLOR_LEVELS:
        return None
    return "black" if thumbnails.max() < BLACK_LEVELS else "of one colour"


def _thumbnails(images: Sequence[Image]) -> npt.NDArray[np.float32]:
    """Return small images, float32 (images, frames, side, side, channels), of one frame each but for windows."""
    size = (THUMBNAIL, THUMBNAIL)
    frames = [image if image.ndim > IMAGE_RANK else image[None] for image in images]
    small = [
        [cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA) for frame in each] for each in frames
    ]
    return np.array(small, np.float32).reshape(len(images), -1, *size[::-1], images[0].shape[-1])

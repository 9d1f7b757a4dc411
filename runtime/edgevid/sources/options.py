"""What can be asked of a source beside its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgevid.errors import UsageError

__all__ = ["DEFAULTS", "SourceOptions"]

LARGEST_SIDE = 16_384


@dataclass(frozen=True)
class SourceOptions:
    """How a source is opened, and what happens when it fails.

    Attributes:
        size: width and height, of a camera or of raw frames; None for what the camera has set.
        fps: frames per second, likewise; 0 for what the camera has set.
        format: of a camera the pixel format as a FourCC such as ``MJPG``; of standard input a pixel format as FFmpeg
            calls it, such as ``bgr24``.
        wait: wait for a live source that is not there yet, instead of failing.
        stall_after: seconds without a frame after which a live source is lost.
        idle: called about ten times a second while a source is waited for that is not live, or at the start.
        reconnect_for: give a live source up that was away for so many seconds; infinity for never.
        frozen_after: report a live picture that is the same for so many seconds; infinity for never.
        allow_protocols: what FFmpeg may open beside the source's own protocol, ``file`` say.
        allow_hosts: other hosts from which a playlist may fetch.
        engine_options: passed to FFmpeg as they are.

    Raises:
        UsageError: one is out of range.
    """

    size: tuple[int, int] | None = None
    fps: float = 0.0
    format: str | None = None
    wait: bool = False
    stall_after: float = 4.0
    idle: Callable[[], None] = lambda: None
    reconnect_for: float = math.inf
    frozen_after: float = 10.0
    allow_protocols: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    engine_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size and not all(0 < side <= LARGEST_SIDE for side in self.size):
            raise UsageError(f"size {self.size}: expected width and height in pixels, up to {LARGEST_SIDE}")
        if not 0 <= self.fps <= 1000:
            raise UsageError(f"fps {self.fps:g}: expected frames per second, up to 1000")
        if not 0 < self.stall_after < math.inf:
            raise UsageError(f"stall-after {self.stall_after:g}: expected seconds, more than 0")
        if not (self.reconnect_for > 0 and self.frozen_after > 0):
            raise UsageError("reconnect-for, frozen-after: expected seconds, more than 0; infinity for never")
        guarded = {"protocol_whitelist", "format_whitelist"} & set(self.engine_options)
        if guarded:
            raise UsageError(
                f"source option {guarded.pop()!r}: what may be opened is widened with --allow-protocol only"
            )


DEFAULTS = SourceOptions()

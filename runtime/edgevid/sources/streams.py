"""Which of the video streams in a container is the video."""

from __future__ import annotations

from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

__all__ = ["best_video_stream", "passed_over", "without_video"]

BANDWIDTH = "variant_bitrate"  # FFmpeg's word for what an HLS playlist states of each variant


def best_video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream to be read: no cover and no tile of a picture; None if there is no other.

    It is the one that FFmpeg takes for the best, by its default flag, how much is in it and its bit rate; of others of
    that kind the largest, and of the variants of a playlist the one of the most bits; the others are fetched no more.
    """
    videos = _videos(container)
    if not videos:
        return None
    best = container.streams.best("video")
    kind = _kind(best if isinstance(best, VideoStream) and best in videos else videos[0])
    chosen = max((stream for stream in videos if _kind(stream) == kind), key=_quality)
    if kind == BANDWIDTH and len(videos) > 1:
        for stream in container.streams:
            stream.discard = Discard.default if stream is chosen else Discard.all
    return chosen


def passed_over(container: InputContainer, chosen: VideoStream) -> str:
    """Return which stream was chosen of several, for people; empty where there was no choice."""
    videos = _videos(container)
    if len(videos) < 2:
        return ""
    return f"it has {len(videos)} video streams; number {videos.index(chosen) + 1} is read, {_size(chosen)}, not " + (
        ", ".join(_size(stream) for stream in videos if stream is not chosen)
    )


def without_video(container: InputContainer) -> str:
    """Return what a container has that :func:`best_video_stream` finds no video in."""
    videos = container.streams.video
    if tiles := sum(bool(stream.disposition & Disposition.dependent) for stream in videos):
        return f"its picture is in {tiles} tiles, which FFmpeg does not join; convert it to a JPEG or PNG"
    return "it has no video but a cover picture" if videos else "it has no video stream"


def _videos(container: InputContainer) -> list[VideoStream]:
    """Return the streams that are videos of their own, if any those that can be decoded.

    A cover belongs to a file, and a tile to a picture; beside tiles, or frames, what has one frame is a preview.
    """
    streams = container.streams.video
    previews = any(stream.disposition & Disposition.dependent or stream.frames > 1 for stream in streams)
    parts = Disposition.attached_pic | Disposition.dependent
    videos = [stream for stream in streams if not (stream.disposition & parts or (previews and stream.frames == 1))]
    return [stream for stream in videos if _codec(stream)] or videos


def _kind(stream: VideoStream) -> object:
    """Return what those have in common that only differ in quality; a picture is of another codec than a video."""
    codec = _codec(stream)
    flagged = stream.disposition & Disposition.default
    return BANDWIDTH if BANDWIDTH in stream.metadata else (flagged, codec and codec.name)


def _quality(stream: VideoStream) -> tuple[int, int]:
    codec = _codec(stream)
    return int(stream.metadata.get(BANDWIDTH, 0)), codec.width * codec.height if codec else 0


def _size(stream: VideoStream) -> str:
    codec = _codec(stream)
    return f"{codec.width}x{codec.height}" if codec else "of an unknown codec"


def _codec(stream: VideoStream) -> VideoCodecContext | None:
    return getattr(stream, "codec_context", None)  # None without a decoder, whatever its type says

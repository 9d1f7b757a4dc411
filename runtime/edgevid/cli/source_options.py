"""The options of ``run`` that say where frames come from, and how long they are waited for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import click

from edgevid.cli.engine_options import key_values
from edgevid.cli.terminal import adding, completing_paths
from edgevid.errors import UsageError
from edgevid.sources import SAMPLE_NAMES, SourceOptions
from edgevid.units import time_seconds

__all__ = ["source_options", "take_wishes"]

NEVER = ("0", "never")


def _size(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text)
    if match is None:
        raise UsageError(f"--size {text!r}: expected WIDTHxHEIGHT, such as 1280x720")
    return int(match[1]), int(match[2])


def _time(ctx: click.Context, parameter: click.Parameter, text: str) -> float:
    seconds = time_seconds(text)
    if seconds is None:
        raise UsageError(f"{parameter.opts[0]} {text!r}: expected a time such as 4s or 10m")
    return seconds


def _time_or_never(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float:
    return math.inf if text is None or text in NEVER else _time(ctx, parameter, text)


def _pairs(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    if not all(re.match("[^=]+=", text) for text in texts):  # the value may be a secret, and is not shown
        raise UsageError(f"{parameter.opts[0]}: expected KEY=VALUE, such as rtsp_transport=udp")
    return key_values(texts)


source_options = adding(
    click.option(
        "--source",
        metavar="FILE|FOLDER|URL",
        shell_complete=completing_paths((*SAMPLE_NAMES, "rtsp://", "http://")),
        help="A video file, a folder of images, a pattern such as 'clips/*.mp4', a URL (RTSP, HTTP, MJPEG, HLS), "
        "sample:bikes, - for stdin, or gst: and a GStreamer pipeline.",
    ),
    click.option("--camera", metavar="N", help="The number of a camera, or its path: the newest frame is classified."),
    click.option(
        "--size", metavar="WIDTHxHEIGHT", callback=_size, help="Of the camera's pictures, or of raw frames on stdin."
    ),
    click.option("--fps", type=float, default=0.0, help="Frames a second of the camera, or of raw frames on stdin."),
    click.option("--format", metavar="NAME", help="Pixel format: MJPG or YUYV of a camera, bgr24 or yuv420p on stdin."),
    click.option("--wait", is_flag=True, help="Wait for a camera or stream that is not there yet."),
    click.option(
        "--stall-after",
        metavar="TIME",
        callback=_time,
        default="4s",
        show_default=True,
        help="A camera or stream without a frame for so long is lost, and opened again.",
    ),
    click.option(
        "--reconnect-for",
        metavar="TIME",
        callback=_time_or_never,
        help="Give up one that is away for so long, or never.  [default: never]",
    ),
    click.option(
        "--frozen-after",
        metavar="TIME",
        callback=_time_or_never,
        default="10s",
        show_default=True,
        help="Report a live picture that does not change for so long; 0 for never.",
    ),
    click.option(
        "--allow-protocol",
        metavar="NAME",
        multiple=True,
        help="What a stream or playlist may open beside its own protocol, such as file; may be repeated.",
    ),
    click.option(
        "--allow-host",
        metavar="HOST",
        multiple=True,
        help="Another host that a playlist may lead to; may be repeated.",
    ),
    click.option(
        "--source-option",
        metavar="KEY=VALUE",
        callback=_pairs,
        multiple=True,
        help="Passed to FFmpeg, such as rtsp_transport=udp; may be repeated.",
    ),
)


def take_wishes(options: dict[str, Any]) -> SourceOptions:
    """Take the values of the options, but for --source and --camera, out of all that a command was given.

    Raises:
        UsageError: one of them is out of range.
    """
    return SourceOptions(
        size=options.pop("size"),
        fps=options.pop("fps"),
        format=options.pop("format"),
        wait=options.pop("wait"),
        stall_after=options.pop("stall_after"),
        reconnect_for=options.pop("reconnect_for"),
        frozen_after=options.pop("frozen_after"),
        allow_protocols=tuple(options.pop("allow_protocol")),
        allow_hosts=tuple(options.pop("allow_host")),
        engine_options=options.pop("source_option"),
    )

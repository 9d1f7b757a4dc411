"""Which video stream of a container is read: neither a cover, nor a thumbnail, nor a tile; of several, the best."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import SourceError, open_source
from edgevid.sources.streams import best_video_stream, without_video
from tests.conftest import COLORS, Outcome, picture, read_jsonl
from tests.servers import files_of, http_server

Cli = Callable[..., Outcome]
COVER = ("blue", 1, "mjpeg", Disposition.attached_pic, 400)
VIDEO = ("green", 20, "libx264", Disposition.default, 96)
NONE = Disposition(0)
Track = tuple[str, int, str, Disposition, int]


def write_tracks(path: Path, *tracks: Track, sound: bool = False) -> Path:
    """Write a container of these video streams, in this order: colour, frames, codec, disposition and width."""
    with av.open(str(path), "w", format="mp4" if path.suffix == ".m4a" else None) as container:
        if sound:
            voice = container.add_stream("aac" if path.suffix == ".m4a" else "flac", rate=48000)
            assert isinstance(voice, AudioStream)
            samples = av.AudioFrame(format=voice.format.name, layout="stereo", samples=1024)
            for plane in samples.planes:
                plane.update(bytes(plane.buffer_size))
            samples.sample_rate, samples.pts = 48000, 0
        packets = []
        for color, count, codec, disposition, width in tracks:
            stream = container.add_stream(codec, rate=25)
            assert isinstance(stream, VideoStream)
            stream.disposition = disposition
            stream.width, stream.height = width, width * 3 // 4
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            shown = [
                VideoFrame.from_ndarray(picture(color, stream.height, width, n), format="bgr24") for n in range(count)
            ]
            packets.append([packet for frame in [*shown, None] for packet in stream.encode(frame)])
        for turn in zip_longest(*packets):
            container.mux([packet for packet in turn if packet])
        if sound:
            container.mux(voice.encode(samples) + voice.encode(None))
    return path


def tags_first(path: Path) -> Path:
    """Move the tags of an MP4, and the cover in them, before its tracks, as Apple's tools write it."""
    data = path.read_bytes()
    begin = data.index(b"moov") - 4
    end = begin + int.from_bytes(data[begin : begin + 4], "big")
    boxes, at = [], begin + 8
    while at < end:
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append(data[at : at + size])
        at += size
    boxes.sort(key=lambda box: {b"mvhd": 0, b"udta": 1}.get(box[4:8], 2))
    path.write_bytes(data[: begin + 8] + b"".join(boxes) + data[end:])
    return path


def colors_of(path: Path | str) -> list[str]:
    """The colours of the frames of a source."""
    with open_source(path) as source:
        means = [frame.image.reshape(-1, 3).mean(axis=0) for frame in source]
    return [min(COLORS, key=lambda color: float(np.abs(mean - COLORS[color]).sum())) for mean in means]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_cover_is_not_the_video(tmp_path: Path, suffix: str, order: str) -> None:
    tracks = (COVER, VIDEO) if order == "before" else (VIDEO, COVER)
    path = write_tracks(tmp_path / f"clip{suffix}", *tracks)
    if order == "before" and suffix == ".mp4":
        path = tags_first(path)
        with av.open(str(path)) as container:
            assert container.streams.video[0].disposition & Disposition.attached_pic, "the file is what was meant"
    assert colors_of(path) == ["green"] * 20


def test_a_cover_is_not_labelled(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    path = tags_first(write_tracks(tmp_path / "clip.mp4", COVER, VIDEO))
    outcome = cli("run", bundle_path, "--source", path, "--predictions", "-")
    assert [record["label"] for record in read_jsonl(outcome.out)] == ["green"] * 20
    assert "video streams" not in outcome.err, "there was nothing to choose"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".nut"])
def test_a_picture_that_nothing_marks_is_not_the_video(tmp_path: Path, suffix: str) -> None:
    path = write_tracks(tmp_path / f"clip{suffix}", ("blue", 1, "mjpeg", NONE, 400), VIDEO)
    assert colors_of(path) == ["green"] * 20


@pytest.mark.parametrize("suffix", [".m4a", ".flac"])
def test_sound_with_a_cover_is_no_video(bundle_path: Path, cli: Cli, tmp_path: Path, suffix: str) -> None:
    path = write_tracks(tmp_path / f"song{suffix}", COVER, sound=True)
    outcome = cli("run", bundle_path, "--source", path)
    assert outcome.status == 1
    assert f"song{suffix}: it has no video but a cover picture; expected a video file" in outcome.error


@pytest.mark.parametrize(
    ("suffix", "flags", "expected"),
    [
        (".mkv", (Disposition.default, NONE), "red"),
        (".mkv", (NONE, Disposition.default), "green"),
        (".mkv", (Disposition.default, Disposition.default), "green"),  # the larger
        (".mp4", (NONE, Disposition.default), "green"),
        (".ts", (NONE, NONE), "green"),
    ],
)
def test_of_several_videos_the_default_one_is_read_and_else_the_largest(
    bundle_path: Path, cli: Cli, tmp_path: Path, suffix: str, flags: tuple[Disposition, Disposition], expected: str
) -> None:
    tracks = [("red", 20, "libx264", flags[0], 96), ("green", 20, "libx264", flags[1], 192)]
    outcome = cli(
        "run", bundle_path, "--source", write_tracks(tmp_path / f"clip{suffix}", *tracks), "--predictions", "-"
    )
    assert {record["label"] for record in read_jsonl(outcome.out)} == {expected}
    taken, other = ("96x72", "192x144") if expected == "red" else ("192x144", "96x72")
    number = 1 if expected == "red" else 2
    assert f"it has 2 video streams; number {number} is read, {taken}, not {other}" in outcome.err


def box(kind: bytes, *parts: bytes) -> bytes:
    """One box of ISO BMFF."""
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """One box with a version."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def av1_picture(color: str, side: int = 64) -> tuple[bytes, bytes]:
    """A picture in AV1: its configuration box, and its data."""
    file = io.BytesIO()
    with av.open(file, "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1, options={"preset": "12", "svtav1-params": "lp=1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        shown = VideoFrame.from_ndarray(picture(color, side, side), format="bgr24")
        container.mux(stream.encode(shown) + stream.encode(None))
    data = file.getvalue()
    found = []
    for kind in (b"av1C", b"mdat"):
        at = data.index(kind) - 4
        found.append(data[at : at + int.from_bytes(data[at : at + 4], "big")])
    return found[0], found[1][8:]


def tiled_picture(tiles: int, preview: bool) -> bytes:
    """An AVIF whose picture is a row of tiles, as phones write it; with a small preview of it beside them."""
    configuration, data = av1_picture("red")
    items = range(1, tiles + 1 + preview)
    grid, side = items[-1] + 1, 64
    kinds = [*((item, b"av01") for item in items), (grid, b"grid")]
    names = [full_box(b"infe", 2, 0, struct.pack(">HH4s", item, 0, kind), b"\0") for item, kind in kinds]
    leads = [box(b"dimg", struct.pack(f">HH{tiles}H", grid, tiles, *range(1, tiles + 1)))]
    if preview:
        leads.append(box(b"thmb", struct.pack(">HHH", items[-1], 1, grid)))
    sizes = [full_box(b"ispe", 0, 0, struct.pack(">II", width, side)) for width in (side, side * tiles)]
    owned = [struct.pack(">HBBB", item, 2, 0x81, 2) for item in items] + [struct.pack(">HBB", grid, 1, 3)]
    layout = struct.pack(">BBBBHH", 0, 0, 0, tiles - 1, side * tiles, side)

    def meta(begin: int) -> bytes:
        places = [struct.pack(">HHHHII", item, 0, 0, 1, begin + (item - 1) * len(data), len(data)) for item in items]
        places.append(struct.pack(">HHHHII", grid, 1, 0, 1, 0, len(layout)))
        return full_box(
            *(b"meta", 0, 0, full_box(b"hdlr", 0, 0, b"\0\0\0\0pict", bytes(13))),
            full_box(b"pitm", 0, 0, struct.pack(">H", grid)),
            full_box(b"iloc", 1, 0, b"\x44\0", struct.pack(">H", len(kinds)), *places),
            full_box(b"iinf", 0, 0, struct.pack(">H", len(kinds)), *names),
            full_box(b"iref", 0, 0, *leads),
            box(b"iprp", box(b"ipco", configuration, *sizes), full_box(b"ipma", 0, 0, struct.pack(">I", grid), *owned)),
            box(b"idat", layout),
        )

    head = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", data * len(items))


@pytest.mark.parametrize("preview", [False, True])
def test_a_tile_of_a_picture_is_not_the_picture(tmp_path: Path, preview: bool) -> None:
    path = tmp_path / "grid.avif"
    path.write_bytes(tiled_picture(2, preview))
    with open_source(path) as source:
        assert [frame.image.shape for frame in source] == [(64, 128, 3)]
    with av.open(str(path)) as container:  # FFmpeg has its tiles, and does not join them
        assert best_video_stream(container) is None
        assert without_video(container).startswith("its picture is in 2 tiles, which FFmpeg does not join; convert")


def animated_webp(frames: int) -> bytes:
    """An animated WebP of one picture, again and again."""
    import cv2

    still = cv2.imencode(".webp", picture("red", 32, 32))[1].tobytes()[12:]
    chunk = bytes(6) + (31).to_bytes(3, "little") * 2 + (200).to_bytes(3, "little") + b"\0" + still
    riff = b"WEBPVP8X" + struct.pack("<IB3x", 10, 2) + (31).to_bytes(3, "little") * 2
    riff += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    riff += (b"ANMF" + struct.pack("<I", len(chunk)) + chunk + bytes(len(chunk) % 2)) * frames
    return b"RIFF" + struct.pack("<I", len(riff)) + riff


def test_an_animated_webp_is_a_video_and_behind_a_url_named(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(animated_webp(3))
    with open_source(path) as source:
        assert [frame.time for frame in source] == [0.0, 0.2, 0.4]
    with (
        http_server(files_of(tmp_path)) as url,
        pytest.raises(SourceError, match=r"a\.webp: it is an animated WebP, which FFmpeg cannot decode; convert it to"),
    ):
        open_source(f"{url}/a.webp")


def test_the_video_of_an_animated_gif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=5)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "rgb8"
        for color in ("red", "green", "blue"):
            shown = VideoFrame.from_ndarray(picture(color), format="bgr24").reformat(format="rgb8")
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    assert colors_of(path) == ["red", "green", "blue"]

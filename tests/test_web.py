"""Files and cameras behind HTTP servers of every kind: no frame is lost in silence, and what fails says why."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import Event, SourceError, SourceOptions, open_source
from edgevid.sources.feed import Feed
from tests.conftest import Outcome, picture, read_jsonl
from tests.servers import http_server, web
from tests.test_streams import write_tracks

Cli = Callable[..., Outcome]
COUNT = 60
CUT_OFF = {"sends_parts": False, "whole": 0.5}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of five groups of pictures in several containers; the MP4 has its index at the end, unless it is fast."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("clip.mp4", "fast.mp4", "clip.ts", "clip.avi", "clip.mkv"):
        options = {"movflags": "faststart"} if name.startswith("fast") else {}
        with av.open(str(folder / name), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2", "crf": "10"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
            for number in range(COUNT):
                shown = VideoFrame.from_ndarray(picture("red", seed=number), format="bgr24")
                container.mux(stream.encode(shown))
            container.mux(stream.encode(None))
    return folder


def count_of(url: str) -> int:
    """How many frames a source yields that is no live one."""
    with open_source(url) as source:
        assert not source.live
        frames = list(source)
        assert source.broken == 0
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return len(frames)


@pytest.mark.parametrize(
    ("version", "hangs_up"), [("HTTP/1.1", "asked"), ("HTTP/1.1", "always"), ("HTTP/1.0", "asked")]
)
@pytest.mark.parametrize("name", ["clip.mp4", "fast.mp4", "clip.ts", "clip.avi", "clip.mkv"])
def test_a_server_may_hang_up_without_a_word(clips: Path, name: str, version: str, hangs_up: str) -> None:
    with http_server(web(clips, protocol_version=version, hangs_up=hangs_up)) as url:
        assert count_of(f"{url}/{name}") == COUNT


def test_frames_that_do_not_come_are_an_error(bundle_path: Path, cli: Cli, clips: Path, tmp_path: Path) -> None:
    """FFmpeg goes on without the first frames where it fails to fetch them, though it has asked twice."""
    with http_server(web(clips, mute=(3, 4))) as url:
        outcome = cli("run", bundle_path, "--source", f"{url}/clip.mp4", "--predictions", tmp_path / "out.jsonl")
    assert outcome.status == 1
    assert f"of its {COUNT} frames did not come; is the connection good? Run it again" in outcome.error


@pytest.mark.parametrize("length", ["chunked", "untold"])
@pytest.mark.parametrize("name", ["fast.mp4", "clip.mkv", "clip.avi"])
def test_a_file_whose_length_is_not_stated(clips: Path, name: str, length: str) -> None:
    with http_server(web(clips, length=length, sends_parts=False)) as url:
        assert count_of(f"{url}/{name}") == COUNT


@pytest.mark.parametrize(
    ("name", "ways", "message"),
    [
        ("fast.mp4", {"length": "chunked"}, rf"of its {COUNT} frames did not come; is the connection good\?"),
        ("fast.mp4", {"length": "untold"}, rf"of its {COUNT} frames did not come; is the connection good\?"),
        ("fast.mp4", {}, r"it failed \(the connection broke off, or what is there is no video\)$"),
        ("clip.mkv", {"length": "chunked"}, r"its last 1\.. s of 2\.4 s did not come"),
        ("clip.mkv", {"length": "untold"}, r"its last 1\.. s of 2\.4 s did not come"),
        ("clip.mkv", {}, r"it failed \(the connection broke off"),
        ("clip.mp4", {}, r"it cannot be opened \(what is there is no video, or damaged\)"),
    ],
)
def test_a_file_that_is_cut_off(clips: Path, name: str, ways: dict[str, Any], message: str) -> None:
    with http_server(web(clips, **CUT_OFF, **ways)) as url, pytest.raises(SourceError, match=message):
        count_of(f"{url}/{name}")


@pytest.mark.parametrize("length", ["stated", "chunked", "untold"])
def test_an_index_at_the_end_needs_a_server_that_sends_parts(clips: Path, length: str) -> None:
    remedy = r"An MP4 with its index at the end needs a server that sends parts of it \(Range\)"
    handler = web(clips, length=length, sends_parts=False)
    with http_server(handler) as url, pytest.raises(SourceError, match=remedy):
        count_of(f"{url}/clip.mp4")


def jpeg(color: str = "green", seed: int = 0) -> bytes:
    """A picture as FFmpeg writes it, which it takes for one of a series by its name."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt, codec.framerate = 96, 72, "yuvj420p", Fraction(25)
    return bytes(codec.encode(VideoFrame.from_ndarray(picture(color, seed=seed), format="bgr24"))[0])


@pytest.mark.parametrize("name", ["snapshot.jpg", "SNAPSHOT.JPEG", "snapshot"])
@pytest.mark.parametrize("length", ["stated", "chunked", "untold"])
def test_a_snapshot_is_one_frame(bundle_path: Path, cli: Cli, tmp_path: Path, name: str, length: str) -> None:
    (tmp_path / name).write_bytes(jpeg())
    with http_server(web(tmp_path, length=length, sends_parts=False)) as url:
        outcome = cli("run", bundle_path, "--source", f"{url}/{name}", "--predictions", "-")
    assert outcome.status == 0
    assert [record["label"] for record in read_jsonl(outcome.out)] == ["green"]


def test_a_series_of_snapshots_is_not_fetched(tmp_path: Path) -> None:
    """What FFmpeg takes for a pattern is the name of one file here."""
    for number in range(3):
        (tmp_path / f"image{number}.jpg").write_bytes(jpeg())
    handler = web(tmp_path)
    with http_server(handler) as url, pytest.raises(SourceError, match="it cannot be opened"):
        open_source(f"{url}/image%d.jpg")
    assert set(handler.func.asked) <= {"/image%d.jpg", "/image%25d.jpg"}


def part(body: bytes, kind: str = "image/jpeg", length: bool = True, boundary: str = "--f", end: str = "\r\n") -> bytes:
    """A part of a message."""
    head = [boundary, f"Content-Type: {kind}" if kind else "", f"Content-Length: {len(body)}" if length else ""]
    return "".join(line + end for line in head if line).encode() + end.encode() + body + end.encode()


HEADER = "Content-Type: multipart/x-mixed-replace; boundary={}"
TEXT = part(b"12 fps", "text/plain")
# name: the header that says what it is, and the bytes of the picture of that number
CAMERAS: dict[str, tuple[str, Callable[[bytes, int], bytes]]] = {
    "plain": (HEADER.format("f"), lambda body, number: part(body)),
    "boundary-with-dashes": (HEADER.format("--f"), lambda body, number: part(body)),
    "boundary-quoted": (HEADER.format('"f"'), lambda body, number: part(body)),
    "boundary-of-another-name": (HEADER.format("frame"), lambda body, number: part(body)),
    "boundary-untold": (HEADER.split(";")[0], lambda body, number: part(body)),
    "no-length": (HEADER.format("f"), lambda body, number: part(body, length=False)),
    "lines-without-return": (HEADER.format("f"), lambda body, number: part(body, end="\n")),
    "empty-line-first": (HEADER.format("f"), lambda body, number: b"\r\n" + part(body)[:-2]),
    "more-headers": (HEADER.format("f"), lambda body, number: part(body, boundary="--f\r\nX-Timestamp: 1.5")),
    "no-type-of-the-whole": ("Content-Type: application/octet-stream", lambda body, number: part(body)),
    "boundary-behind-the-parts": (HEADER.format("f"), lambda body, number: part(body)[5:] + b"--f\r\n"),
    "boundary-without-dashes": (HEADER.format("f"), lambda body, number: part(body, boundary="f")),
    "something-before-the-parts": (HEADER.format("f"), lambda body, number: b"hi\r\n" * (not number) + part(body)),
    "image/jpg": (HEADER.format("f"), lambda body, number: part(body, "image/jpg")),
    "type-with-more": (HEADER.format("f"), lambda body, number: part(body, "image/jpeg; q=80")),
    "no-type": (HEADER.format("f"), lambda body, number: part(body, "")),
    "text-first": (HEADER.format("f"), lambda body, number: TEXT * (number % 5 == 0) + part(body)),
    "text-later": (HEADER.format("f"), lambda body, number: TEXT * (number % 5 == 4) + part(body)),
}


@contextmanager
def camera(kind: str, path: str = "/video", count: int = 900) -> Iterator[str]:
    """Serve green pictures, fifty a second, as that camera does; yields its URL."""
    header, shown = CAMERAS[kind]
    pictures = [jpeg(seed=seed) for seed in range(5)]
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
            for number in range(count):
                connection.sendall(shown(pictures[number % 5], number))
                if over.wait(0.02):
                    return

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
        over.set()


@pytest.mark.parametrize("kind", CAMERAS)
def test_cameras_that_send_jpegs(kind: str) -> None:
    events: list[Event] = []
    with camera(kind) as url, Feed(open_source(url, SourceOptions(reconnect_for=1)), tell=events.append) as feed:
        assert feed.source.live
        for number, frame in enumerate(feed):
            assert frame.image.shape == (72, 96, 3)
            assert abs(frame.image[..., 1].mean() - 200) < 20
            if number == 15:
                break
    assert events == []
    assert feed.source.broken == 0


def test_a_camera_may_call_its_stream_a_picture() -> None:
    with camera("plain", "/live.jpg") as url, open_source(url) as source:
        assert source.live
        assert [frame.index for frame in islice(source, 3)] == [0, 1, 2]


def test_parts_without_pictures_are_no_video() -> None:
    CAMERAS["none"] = (HEADER.format("f"), lambda body, number: b"<html>sorry</html>\r\n" * 20)
    with camera("none", count=10) as url, pytest.raises(SourceError, match="what is there is no video, or damaged"):
        open_source(url)


def test_pictures_in_a_file_that_is_cut_off_are_no_stream(tmp_path: Path) -> None:
    """Pictures are looked for in what the server calls that only."""
    path = write_tracks(tmp_path / "cut.mov", ("green", 20, "mjpeg", Disposition.default, 96))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    message = r"cut\.mov: it cannot be opened \(what is there is no video, or damaged\)"
    with http_server(web(tmp_path)) as url, pytest.raises(SourceError, match=message):
        open_source(f"{url}/cut.mov")


@pytest.mark.parametrize("order", [("low", "high"), ("high", "low")])
def test_the_best_variant_of_a_playlist_is_read_and_it_alone(
    bundle_path: Path, cli: Cli, tmp_path: Path, order: tuple[str, ...]
) -> None:
    """Variants of six segments each, in the order in which the playlist has them."""
    lines = ["#EXTM3U"]
    for name in order:
        color, width, rate = {"low": ("red", 96, 100_000), "high": ("green", 192, 900_000)}[name]
        options = {"hls_time": "0.4", "hls_list_size": "0", "hls_segment_filename": str(tmp_path / f"{name}%d.ts")}
        with av.open(str(tmp_path / f"{name}.m3u8"), "w", format="hls", options=options) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "10"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, width * 3 // 4, "yuv420p"
            for number in range(COUNT):
                shown = VideoFrame.from_ndarray(picture(color, stream.height, width, number), format="bgr24")
                container.mux(stream.encode(shown))
            container.mux(stream.encode(None))
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={rate},RESOLUTION={width}x{width * 3 // 4}", f"{name}.m3u8"]
    (tmp_path / "master.m3u8").write_text("\n".join(lines) + "\n")
    handler = web(tmp_path)
    with http_server(handler) as url:
        outcome = cli("run", bundle_path, "--source", f"{url}/master.m3u8", "--predictions", "-")
    assert [record["label"] for record in read_jsonl(outcome.out)] == ["green"] * COUNT
    assert "it has 2 video streams" in outcome.err
    assert "/high5.ts" in handler.func.asked
    assert "/low5.ts" not in handler.func.asked

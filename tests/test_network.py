"""Video over HTTP: files, playlists, and what a playlist may not reach."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from edgevid import RefusedError, Source, SourceError, SourceOptions, open_source
from edgevid.sources.reach import GuardedFetching
from tests.conftest import Outcome, picture, read_jsonl, write_clip
from tests.servers import Halting, Locked, Quiet, files_of, http_server

Cli = Callable[..., Outcome]
HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="session")
def playlist(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as an HLS playlist of two segments."""
    path = tmp_path_factory.mktemp("hls") / "clip.m3u8"
    with av.open(str(clip)) as source:
        output = av.open(str(path), "w", format="hls", options={"hls_time": "0.5", "hls_list_size": "0"})
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
        output.close()
    return path


def sums(source: Source) -> list[int]:
    """What tells the frames of a source from others."""
    with source:
        return [int(frame.image.astype(np.int64).sum()) for frame in source]


@pytest.mark.parametrize("kind", ["file", "playlist"])
def test_a_file_behind_a_url_is_read_in_order(clip: Path, playlist: Path, tmp_path: Path, kind: str) -> None:
    clip = write_clip(tmp_path / "clip.mkv", ["red"] * 9 + ["blue"] * 9) if kind == "file" else clip
    path = clip if kind == "file" else playlist
    with http_server(files_of(path.parent)) as url:
        source = open_source(f"{url}/{path.name}")
        assert not source.live
        assert sums(source) == sums(open_source(clip))


def test_a_playlist_leads_nowhere_else(playlist: Path, tmp_path: Path) -> None:
    """Another host, and a file of this machine: each is named, and nothing of it is opened."""
    segment = playlist.parent / "clip0.ts"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
    with http_server(files_of(playlist.parent), THERE) as there, http_server(files_of(tmp_path)) as here:
        for name, part in (("other.m3u8", f"{there}/clip0.ts"), ("local.m3u8", f"file://{segment}")):
            (tmp_path / name).write_text(f"{head}{part}\n#EXT-X-ENDLIST\n")
        with pytest.raises(SourceError, match=f"leads to another host, {THERE}"):
            sums(open_source(f"{here}/other.m3u8"))
        assert sums(open_source(f"{here}/other.m3u8", SourceOptions(allow_hosts=(THERE,))))
        with pytest.raises(SourceError, match="the playlist names 'file'"):
            sums(open_source(f"{here}/local.m3u8"))
        assert sums(open_source(f"{here}/local.m3u8", SourceOptions(allow_protocols=("file",))))


def test_permission_for_files_is_none_for_hosts(playlist: Path, tmp_path: Path) -> None:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
    with http_server(files_of(playlist.parent), THERE) as there, http_server(files_of(tmp_path)) as here:
        (tmp_path / "other.m3u8").write_text(f"{head}{there}/clip0.ts\n#EXT-X-ENDLIST\n")
        with pytest.raises(SourceError, match="leads to another host"):
            sums(open_source(f"{here}/other.m3u8", SourceOptions(allow_protocols=("file",))))


def test_a_playlist_leads_nowhere_else_by_a_redirection(playlist: Path, tmp_path: Path) -> None:
    class Elsewhere(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - its name
            self.send_response(302)
            self.send_header("Location", f"{there}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http_server(files_of(playlist.parent), THERE) as there, http_server(Elsewhere) as here:
        with pytest.raises(SourceError, match=f"leads to another host, {THERE}"):
            GuardedFetching(f"{here}/p.m3u8", SourceOptions(), 4)(f"{here}/clip0.ts", 1, {})
        GuardedFetching(f"{here}/p.m3u8", SourceOptions(allow_hosts=(THERE,)), 4)(f"{here}/clip0.ts", 1, {}).close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ffconcat version 1.0\nfile clip0.ts\n", "it is no video, or of a kind that may open other files"),
        (
            '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI="key"\n#EXTINF:2,\nclip0.ts\n#EXT-X-ENDLIST\n',
            "the playlist is encrypted, which is not supported",
        ),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nabsent.ts\n#EXT-X-ENDLIST\n", "404 File not found"),
    ],
)
def test_playlists_that_cannot_be_read(playlist: Path, text: str, message: str) -> None:
    (playlist.parent / "key").write_bytes(bytes(16))
    (playlist.parent / "bad.m3u8").write_text(text)
    with http_server(files_of(playlist.parent)) as url, pytest.raises(SourceError, match=message):
        sums(open_source(f"{url}/bad.m3u8"))


def test_a_playlist_behind_a_password(playlist: Path, clip: Path) -> None:
    with http_server(partial(Locked, directory=str(playlist.parent))) as url:
        address = url.removeprefix("http://")
        assert sums(open_source(f"http://viewer:secret@{address}/clip.m3u8")) == sums(open_source(clip))
        with pytest.raises(RefusedError, match="401"):
            open_source(f"http://viewer:wrong@{address}/clip.m3u8")


def test_a_file_without_a_duration_is_a_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.h264", ["red"] * 30)
    with http_server(files_of(tmp_path)) as url:
        source = open_source(f"{url}/clip.h264")
        assert not source.live
        assert len(sums(source)) == 30
    assert clip.exists()


def test_a_file_that_stalls_on_its_way_can_be_left(bundle_path: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", ["red", "blue"] * 100)
    with http_server(partial(Halting, directory=str(tmp_path))) as url:
        command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", f"{url}/clip.mkv"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            assert run.stderr
            assert b"tflite-int8 on litert" in run.stderr.readline()
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
            started = time.monotonic()
            run.wait(10)
            assert time.monotonic() - started < 2
            assert run.returncode == 130


def test_a_file_may_be_named_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clip.mp4", ["red"] * 5).rename(tmp_path / "12:00.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(sums(open_source("12:00.mp4"))) == 5


@pytest.mark.parametrize("name", ["playlist.m3u8", "script.ffconcat"])
def test_a_file_that_names_other_files_is_refused(playlist: Path, cli: Cli, bundle_path: Path, name: str) -> None:
    text = playlist.read_text() if name.endswith("m3u8") else "ffconcat version 1.0\nfile clip0.ts\n"
    path = playlist.parent / name
    path.write_text(text)
    outcome = cli("run", bundle_path, "--source", path)
    assert outcome.status == 1
    assert "it is a playlist or no video at all" in outcome.error
    allowed = cli("run", bundle_path, "--source", path, "--allow-protocol", "file")
    assert allowed.status == 0, allowed.err


def test_what_may_be_opened_is_not_widened_by_the_back_door(cli: Cli, bundle_path: Path, clip: Path) -> None:
    outcome = cli("run", bundle_path, "--source", clip, "--source-option", "protocol_whitelist=file,http")
    assert outcome.status == 2
    assert "widened with --allow-protocol only" in outcome.error


def piped(bundle: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``edgevid run --source -`` with that on its standard input."""
    command = [sys.executable, "-m", "edgevid", "run", str(bundle), "--source", "-", "--predictions", "-", *options]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def test_raw_frames_on_standard_input(bundle_path: Path) -> None:
    colors = ["red"] * 10 + ["blue"] * 10
    frames = b"".join(picture(color, seed=seed).tobytes() for seed, color in enumerate(colors))
    done = piped(bundle_path, frames, "--size", "96x72", "--fps", "10", "--window", "1")
    assert done.returncode == 0, done.stderr
    records = read_jsonl(done.stdout.decode())
    assert [record["label"] for record in records] == colors
    assert records[-1]["time"] == pytest.approx(1.9)


def test_raw_frames_in_another_pixel_format(bundle_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(picture("green"), format="bgr24").reformat(format="nv12")
    done = piped(bundle_path, frame.to_ndarray().tobytes() * 5, "--size", "96x72", "--format", "nv12")
    assert [record["label"] for record in read_jsonl(done.stdout.decode())] == ["green"] * 5


def test_a_container_on_standard_input(bundle_path: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", ["green"] * 20)
    done = piped(bundle_path, clip.read_bytes())
    assert [record["label"] for record in read_jsonl(done.stdout.decode())] == ["green"] * 20


@pytest.mark.parametrize(
    ("options", "data", "status", "message"),
    [
        (["--size", "96"], b"", 2, "--size '96': expected WIDTHxHEIGHT"),
        (["--format", "nv12"], b"", 2, "--format nv12: raw frames on standard input need --size too"),
        (["--size", "8x8", "--format", "xyz"], b"0" * 999, 2, "--format xyz: expected a pixel format"),
        ([], b"no video at all" * 99, 1, "stdin: it cannot be read as a video"),
        (["--size", "96x72"], b"too short", 1, "stdin: no frame of it can be decoded"),
        (["--stall-after", "soon"], b"", 2, "--stall-after 'soon': expected a time such as 4s"),
        (["--stall-after", "never"], b"", 2, "--stall-after 'never': expected a time such as 4s"),
    ],
)
def test_what_is_wrong_with_standard_input(
    bundle_path: Path, options: list[str], data: bytes, status: int, message: str
) -> None:
    done = piped(bundle_path, data, *options)
    assert done.returncode == status
    assert message in done.stderr.decode()


def test_a_silent_standard_input_can_be_left(bundle_path: Path) -> None:
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", "-", "--size", "96x72"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin
        assert run.stderr
        run.stdin.write(picture("red").tobytes())
        run.stdin.flush()
        assert b"tflite-int8 on litert" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        started = time.monotonic()
        run.wait(10)
        assert time.monotonic() - started < 2
        assert run.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_standard_input_that_stops_while_it_is_opened_can_be_left(bundle_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "edgevid", "run", str(bundle_path), "--source", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin
        run.stdin.write(b"\x1aE")
        run.stdin.flush()
        time.sleep(1.5)
        run.send_signal(number)
        started = time.monotonic()
        run.wait(10)
        assert time.monotonic() - started < 2
        assert run.returncode == 128 + number


def test_a_pattern_is_several_files_one_after_the_other(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    for number, color in ((2, "green"), (10, "blue"), (1, "red")):
        write_clip(tmp_path / f"clip{number}.mp4", [color] * 10)
    outcome = cli("run", bundle_path, "--source", tmp_path / "clip*.mp4", "--predictions", "-")
    records = read_jsonl(outcome.out)
    assert [record["label"] for record in records] == ["red"] * 10 + ["green"] * 10 + ["blue"] * 10
    assert [record["frame"] for record in records] == list(range(30))
    assert [record["time"] for record in records] == pytest.approx([number / 25 for number in range(30)])


def test_a_file_that_cannot_be_read_is_told_and_passed_over(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip1.mp4", ["red"] * 10)
    (tmp_path / "clip2.mp4").write_bytes(b"no video")
    write_clip(tmp_path / "clip3.mp4", ["blue"] * 10)
    outcome = cli("run", bundle_path, "--source", tmp_path / "clip*.mp4", "--predictions", "-")
    assert outcome.status == 0
    lines = [record.get("label", record.get("event")) for record in read_jsonl(outcome.out)]
    assert lines == [*["red"] * 10, "skipped", *["blue"] * 10]
    assert "clip2.mp4: it cannot be read as a video" in outcome.err
    for good in ("clip1.mp4", "clip3.mp4"):
        (tmp_path / good).unlink()
    outcome = cli("run", bundle_path, "--source", tmp_path / "clip*.mp4")
    assert outcome.status == 1
    assert "none of its 1 files can be read as a video" in outcome.err


def test_a_pattern_of_images(bundle_path: Path, cli: Cli, images: Path) -> None:
    outcome = cli("run", bundle_path, "--source", images / "img[0-3].png", "--predictions", "-")
    assert len(read_jsonl(outcome.out)) == 4
    mixed = cli("run", bundle_path, "--source", str(images.parent / "*" / "*"))
    assert "expected images only, or videos only" in mixed.error or "no file has such a name" in mixed.error


def joined(*clips: Path) -> bytes:
    """Several MPEG-TS clips as one stream, as a camera sends it whose resolution is changed."""
    return b"".join(clip.read_bytes() for clip in clips)


def test_sound_may_come_on_the_way(tmp_path: Path) -> None:
    """A stream that was not there at the beginning ends nothing."""
    silent = write_clip(tmp_path / "silent.ts", ["red"] * 50)  # longer than FFmpeg looks ahead
    loud = tmp_path / "loud.ts"
    with av.open(str(loud), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48000)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = 96, 72, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture("blue", seed=number), format="bgr24")
            container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48000, number * 1024
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    joint = tmp_path / "joint.ts"
    joint.write_bytes(joined(silent, loud))
    with http_server(files_of(tmp_path)) as url:
        assert len(sums(open_source(f"{url}/joint.ts"))) == 70


def test_the_size_may_change_on_the_way(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    """720p, 360p and 720p again: every frame gets the right label, and the annotated video is whole."""
    parts = [("red", 720, 1280), ("green", 360, 640), ("blue", 720, 1280)]
    clips = [write_clip(tmp_path / f"{color}.ts", [color] * 8, height=h, width=w) for color, h, w in parts]
    stream, video = tmp_path / "stream.ts", tmp_path / "out.mp4"
    stream.write_bytes(joined(*clips))
    outcome = cli("run", bundle_path, "--source", stream, "--save", video, "--predictions", "-", "--window", 1)
    assert outcome.status == 0
    labels = [record["label"] for record in read_jsonl(outcome.out)]
    assert labels == ["red"] * 8 + ["green"] * 8 + ["blue"] * 8
    with av.open(str(video)) as container:
        assert isinstance(container.streams.video[0], VideoStream)
        shapes = {(frame.width, frame.height) for frame in container.decode(video=0)}
    assert shapes == {(1280, 720)}
    realtime = cli("run", bundle_path, "--source", stream, "--realtime", "--predictions", "-", "--window", 1)
    assert {record["label"] for record in read_jsonl(realtime.out)} == {"red", "green", "blue"}

"""Times of video rise, whatever timestamps the container has, and each frame that can be decoded comes once."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevid import Event, Frame, open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.realtime import RealtimeSource
from edgevid.sources.timestamps import Timestamps
from tests.conftest import Outcome, picture, read_jsonl, write_clip
from tests.servers import Quiet, http_server

Cli = Callable[..., Outcome]

COLORS = ["red", "green", "blue", "grey"] * 15
B_FRAMES: dict[str, Any] = {"g": "12", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
WRAP_S = 2**33 / 90_000


def pieces_of_stream(folder: Path, begins: Sequence[float], frames: int = 50, **options: Any) -> Iterator[bytes]:
    """Yield pieces of MPEG-TS, of 25 frames a second, that begin at those times."""
    for begin in begins:
        piece = folder / "piece.ts"
        with av.open(str(piece), "w", format="mpegts", options={"output_ts_offset": f"{begin}"}) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "25", **options})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
            for number in range(frames):
                container.mux(stream.encode(VideoFrame.from_ndarray(picture("red", seed=number), format="bgr24")))
            container.mux(stream.encode(None))
        yield piece.read_bytes()


def write_stream(path: Path, begins: Sequence[float], **options: Any) -> Path:
    """Write one stream of MPEG-TS in pieces of two seconds, of 25 frames a second, that begin at those times."""
    path.write_bytes(b"".join(pieces_of_stream(path.parent, begins, **options)))
    return path


def read(path: Path) -> tuple[list[Frame], list[Event]]:
    events: list[Event] = []
    with open_source(path, tell=events.append) as source:
        return list(source), events


def steps(frames: list[Frame]) -> list[float]:
    return [round(later.time - earlier.time, 3) for earlier, later in pairwise(frames)]


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize(
    ("begins", "jumps"),
    [
        ([1, 1], [-2.0]),
        ([1, 1001], [998.0]),
        ([1, 24_001, 24_003, 6], [23_998.0, -23_999.0]),
        ([47_775, 1], [-47_776.0]),
        ([WRAP_S - 4, WRAP_S - 2, WRAP_S], []),
        ([WRAP_S - 1], []),
        ([1, 3, 5], []),
    ],
    ids=["joined", "ahead", "a pause and back", "a restart", "a wrap between", "a wrap inside", "even"],
)
def test_a_clock_that_jumps_goes_on_by_the_frame_rate(
    tmp_path: Path, begins: list[float], jumps: list[float], bf: str
) -> None:
    frames, events = read(write_stream(tmp_path / "a.ts", begins, bf=bf))
    assert [frame.index for frame in frames] == list(range(50 * len(begins)))
    assert set(steps(frames)) == {0.04}
    assert [event.kind for event in events] == ["discontinuity"] * len(jumps)
    assert [frame.index % 50 for frame in frames if math.isinf(frame.gap_s)] == [0] * len(jumps)
    for event, jump in zip(events, jumps, strict=True):  # a restart may look like a wrap
        assert min(abs(event.data["jump_s"] - jump - wrap) for wrap in (0, WRAP_S)) < 0.2


def test_a_pause_that_a_stream_can_mean_is_kept(tmp_path: Path) -> None:
    frames, events = read(write_stream(tmp_path / "a.ts", [1, 8]))
    assert not events
    assert [step for step in steps(frames) if step > 0.05] == [5.04]


def test_a_file_that_holds_only_what_moved_keeps_its_pauses(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    """One of eight hours, which is more than MP4 can count in its finest unit; so the saved video has a coarser one."""
    path = tmp_path / "moved.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number in range(50):
            shown = VideoFrame.from_ndarray(picture("red", seed=number), format="bgr24")
            shown.pts, shown.time_base = number + 720_000 * (number >= 25), Fraction(1, 25)
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    frames, events = read(path)
    assert not events
    assert max(steps(frames)) == pytest.approx(8 * 3600 + 0.04)
    assert cli("run", bundle_path, "--source", path, "--save", tmp_path / "v.mp4").status == 0
    saved, _ = read(tmp_path / "v.mp4")
    assert [frame.time for frame in saved] == pytest.approx([frame.time for frame in frames], abs=0.001)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("h264.avi", "libx264"),
        ("mpeg4.avi", "mpeg4"),
        ("h264.mpg", "libx264"),
        ("mpeg2.mpg", "mpeg2video"),
        ("mpeg1.mpg", "mpeg1video"),
        ("h264.vob", "libx264"),
        ("h264.h264", "libx264"),
        ("hevc.hevc", "libx265"),
        ("mpeg2.m2v", "mpeg2video"),
        ("h264.flv", "libx264"),
        ("h264.ts", "libx264"),
        ("hevc.ts", "libx265"),
        ("mpeg2.ts", "mpeg2video"),
        ("h264.mkv", "libx264"),
        ("h264.mov", "libx264"),
        ("vp9.webm", "libvpx-vp9"),
        ("wmv2.wmv", "wmv2"),
        ("vp8.ogv", "libvpx"),
    ],
)
def test_missing_timestamps_are_not_made_up_in_the_wrong_order(tmp_path: Path, name: str, codec: str) -> None:
    options = B_FRAMES if codec == "libx264" else {"x265-params": "log-level=none"} if codec == "libx265" else {}
    if codec in ("mpeg4", "mpeg2video", "mpeg1video"):
        options = {"bf": "2", "g": "12", "b_strategy": "0"}
    frames, events = read(write_clip(tmp_path / name, COLORS, codec=codec, **options))
    assert len(frames) == len(COLORS)
    assert not events
    assert all(0.038 <= step <= 0.042 for step in steps(frames)), steps(frames)


def test_frames_before_zero_are_frames(tmp_path: Path) -> None:
    """A stream of MPEG-TS that begins before its clock wraps."""
    path = write_stream(tmp_path / "a.ts", [WRAP_S - 1])
    with Feed(open_source(path), Pick()) as feed:
        times = [frame.time for frame in feed]
    assert len(times) == 50
    assert times[0] < 0 < times[-1]


def test_times_rise_over_clips_that_begin_before_zero(tmp_path: Path) -> None:
    for name in ("a.ts", "b.ts"):
        write_stream(tmp_path / name, [WRAP_S - 1])
    with open_source(tmp_path / "?.ts") as source:
        frames = list(source)
    assert len(frames) == 100
    assert set(steps(frames)) == {0.04}


@pytest.mark.parametrize("start", [0.5, 2.5, 3.0, 5.1])
def test_a_part_of_a_stream_whose_clock_jumps_is_that_of_the_whole(tmp_path: Path, start: float) -> None:
    path = write_stream(tmp_path / "a.ts", [1, 501, 4], bf="2")
    whole, _ = read(path)
    start += whole[0].time
    with Feed(open_source(path), Pick(start=start)) as feed:
        part = [(frame.index, round(frame.time, 6)) for frame in feed]
    assert part == [(frame.index, round(frame.time, 6)) for frame in whole if frame.time >= start]


def test_in_real_time_a_clock_that_jumps_is_not_waited_for(tmp_path: Path) -> None:
    events: list[Event] = []
    source = RealtimeSource(open_source(write_stream(tmp_path / "a.ts", [1, 1001])))
    with Feed(source, Pick(), tell=events.append) as feed:
        times = [frame.time for frame in feed]
    assert times[-1] - times[0] == pytest.approx(3.96)
    assert [event.kind for event in events] == ["discontinuity"]


@contextmanager
def served(pieces: Sequence[bytes], piece_s: float) -> Iterator[str]:
    """Serve a stream over TCP at the speed of a camera, each piece in that time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as client:
            begun = time.monotonic()
            for number, piece in enumerate(pieces):
                for part in range(25):
                    client.sendall(piece[len(piece) * part // 25 : len(piece) * (part + 1) // 25])
                    time.sleep(max(0.0, begun + (number + part / 25) * piece_s - time.monotonic()))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.slow
def test_a_live_stream_whose_clock_jumps_goes_on(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    """Ahead, back, ahead to shortly before it wraps, over that, and anew."""
    begins = [1, 1001, 4, WRAP_S - 1, WRAP_S, 300]
    pieces = list(pieces_of_stream(tmp_path, begins, frames=25, bf="0"))
    predictions, video = tmp_path / "p.jsonl", tmp_path / "v.mp4"
    with served(pieces, piece_s=1.0) as url:
        outputs = ("--predictions", predictions, "--save", video)
        outcome = cli("run", bundle_path, "--source", url, "--reconnect-for", "1s", *outputs)
    assert "given up" in outcome.err
    lines = read_jsonl(predictions.read_text())
    times = [line["time"] for line in lines if "label" in line]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert max(later - earlier for earlier, later in pairwise(times)) < 2, "labels go on"
    assert 5.0 < times[-1] < 6.5
    assert [line["event"] for line in lines if "event" in line] == ["discontinuity"] * 4 + ["lost"]
    with av.open(str(video)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert {round(time, 2) for time in shown} <= {round(time, 2) for time in times}  # an encoder may drop some
    assert shown[-1] > times[-1] - 1


@pytest.mark.slow
def test_a_live_playlist_whose_clock_jumps_goes_on(tmp_path: Path) -> None:
    """A new segment each second; from the fifth on those of an encoder that began anew, a thousand seconds later."""
    begins = [number + 1 + 1000 * (number > 3) for number in range(9)]
    for number, piece in enumerate(pieces_of_stream(tmp_path, begins, frames=25, bf="0")):
        (tmp_path / f"{number}.ts").write_bytes(piece)
    began = time.monotonic()

    class Playlist(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - its name
            if not self.path.endswith("m3u8"):
                super().do_GET()
                return
            last = min(8, 3 + int(time.monotonic() - began))
            lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{last - 3}"]
            for number in range(last - 3, last + 1):
                lines += ["#EXT-X-DISCONTINUITY"] * (number == 4) + ["#EXTINF:1,", f"{number}.ts"]
            data = "\n".join([*lines, ""]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    events: list[Event] = []
    with (
        http_server(partial(Playlist, directory=str(tmp_path))) as url,
        Feed(open_source(f"{url}/live.m3u8"), tell=events.append) as feed,
    ):
        times = []
        for frame in feed:
            times.append(frame.time)
            if frame.time > 5.5:
                break
    assert all(0 < later - earlier < 2 for earlier, later in pairwise(times))
    assert [event.kind for event in events] == ["discontinuity"]


def test_a_discontinuity_stands_between_the_predictions(bundle_path: Path, cli: Cli, tmp_path: Path) -> None:
    clip = write_stream(tmp_path / "a.ts", [1, 500])
    predictions = tmp_path / "p.jsonl"
    outcome = cli("run", bundle_path, "--source", clip, "--predictions", predictions)
    assert "its clock jumped ahead by 497.0 s" in outcome.err
    kinds = [line.get("event", "prediction") for line in read_jsonl(predictions.read_text())]
    assert kinds == ["prediction"] * 50 + ["discontinuity"] + ["prediction"] * 50


STAMPS = st.lists(st.none() | st.floats(-1e5, 1e5, allow_nan=False), min_size=1, max_size=50)


@settings(max_examples=300, deadline=None)
@given(
    stamps=STAMPS,
    decoded=STAMPS,
    rate=st.sampled_from([0.1, 25.0, 1000.0]),
    may_jump=st.booleans(),
    wraps=st.booleans(),
)
def test_times_rise_whatever_the_timestamps(
    stamps: list[float | None], decoded: list[float | None], rate: float, may_jump: bool, wraps: bool
) -> None:
    clock = Timestamps(rate, may_jump, wraps)
    times = [clock.place(stamp, other)[0] for stamp, other in zip_longest(stamps, decoded)]
    assert all(later > earlier for earlier, later in pairwise(times))


def test_timestamps_of_decoding_are_taken_where_those_of_presentation_are_in_the_wrong_order() -> None:
    """As H.264 with B-frames has them in MXF that FFmpeg wrote."""
    shown = [group * 3 + number for group in range(20) for number in (0, 2, 1)]
    clock = Timestamps(25, may_jump=False, wraps=False)
    times = [clock.place(stamp / 25, (number + 2) / 25)[0] for number, stamp in enumerate(shown)]
    assert [round(later - earlier, 3) for earlier, later in pairwise(times[5:])] == [0.04] * 54


@given(order=st.permutations(range(8)))
def test_timestamps_out_of_order_lose_no_time(order: list[int]) -> None:
    stamps = [(8 * group + number) / 25 for group in range(10) for number in order]
    clock = Timestamps(25, may_jump=True, wraps=False)
    placed = [clock.place(stamp) for stamp in (*stamps, 100.0 / 25)]
    assert not any(jump for _, jump in placed)
    assert abs(placed[-1][0] - 4.0) < 0.5

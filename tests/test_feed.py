"""Which frames of a source are handed over, and which are not even decoded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid import Frame, Source, SourceError, UsageError, open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.realtime import RealtimeSource
from edgevid.sources.video import VideoSource
from tests.conftest import picture, write_clip


class Counter(Source):
    """Frames at a given pace, without end unless told."""

    rate = Fraction(100)
    time_base = Fraction(1, 100)

    def __init__(self, live: bool, pause_s: float = 0.0, count: int = 10**9) -> None:
        self.name, self.live, self._pause_s, self._count = "counter", live, pause_s, count
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        image = picture("red", 8, 8)
        for index in range(self._count):
            time.sleep(self._pause_s)
            yield Frame(index, index / 100, image)

    def close(self) -> None:
        self.closed.set()


def test_a_feed_hands_over_every_frame_of_a_file() -> None:
    with Feed(Counter(live=False, count=50)) as feed:
        assert [frame.index for frame in feed] == list(range(50))
        assert feed.dropped == 0


def test_a_feed_hands_over_the_newest_frame_of_a_camera() -> None:
    with Feed(Counter(live=True, pause_s=0.001, count=300)) as feed:
        seen = []
        for frame in feed:
            seen.append(frame.index)
            time.sleep(0.01)
    assert seen == sorted(set(seen))
    assert len(seen) + feed.dropped == 300
    assert feed.dropped > 100
    assert seen[-1] == 299


def test_a_feed_strides_and_stops() -> None:
    stop = threading.Event()
    source = Counter(live=False)
    with Feed(source, Pick(stride=3), stop) as feed:
        seen = []
        for frame in feed:
            seen.append(frame.index)
            if len(seen) == 5:
                stop.set()
    assert seen == [0, 3, 6, 9, 12]
    assert source.closed.is_set()
    with pytest.raises(UsageError, match="stride 0"):
        Pick(stride=0)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 20 s with a key frame every 2 s: red, but blue from 12 s on."""
    colors = ["red"] * 300 + ["blue"] * 200
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", colors, g="50", keyint_min="50")


@pytest.mark.parametrize(("start", "end"), [(0.0, 3.0), (7.1, 9.0), (12.0, None), (0.02, 0.1), (19.95, None)])
def test_a_part_has_the_frames_the_numbers_and_the_times_of_the_whole(
    long_clip: Path, start: float, end: float | None
) -> None:
    with open_source(long_clip) as source:
        expected = [frame for frame in source if start <= frame.time < (end or 1e9)]
    with Feed(open_source(long_clip), Pick(start=start, end=end or math.inf)) as part:
        assert part.frame_count == len(expected)
        found = list(part)
    assert [(frame.index, frame.time) for frame in found] == [(frame.index, frame.time) for frame in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_what_lies_before_a_part_is_not_decoded(long_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(long_clip)
    decoded: list[Frame] = []
    original = type(source).__iter__

    def counted(self: Source) -> Iterator[Frame]:
        for frame in original(self):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(type(source), "__iter__", counted)
    with Feed(source, Pick(start=15.0, end=15.2)) as part:
        assert len(list(part)) == 5
    assert len(decoded) <= 50 + 6, "from the key frame before it on, and the one that ends it"


# Three between two others, whatever the encoder thinks of it.
B_FRAMES: dict[str, Any] = {"bf": "3", "b_strategy": "0", "sc_threshold": "0"}


def write_uneven_clip(path: Path) -> Path:
    """Write 70 pictures of a rate of 25, two left out in the middle, in a file that counts time in 25ths."""
    with av.open(str(path), "w", options={"video_track_timescale": "25"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number in range(72):
            if number not in (35, 36):
                shown = VideoFrame.from_ndarray(picture("red", seed=number), format="bgr24")
                shown.pts, shown.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clips(long_clip: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips whose frames depend on each other in different ways."""
    folder = tmp_path_factory.mktemp("gop")
    colors = ["red", "green", "blue", "grey"] * 60
    return {
        "key frame every 2 s": long_clip,
        "B-frames": write_clip(folder / "b.mp4", colors, g="20", **B_FRAMES),
        "key frame every 8 frames, open": write_clip(folder / "open.mp4", colors, g="8", flags="-cgop", **B_FRAMES),
        "only key frames": write_clip(folder / "intra.mp4", colors, g="1"),
        "one key frame": write_clip(folder / "one.mp4", colors, g="999"),
        "no table of frames": write_clip(folder / "no_table.mkv", colors, g="20"),
        "other rate": clip,
        "two frames missing, coarse times": write_uneven_clip(folder / "uneven.mp4"),
        "AV1": write_clip(folder / "av1.mp4", colors[:90], codec="libsvtav1", g="20", preset="12"),
    }


@pytest.mark.parametrize(
    "pick",
    [
        *({"stride": stride} for stride in (2, 3, 7, 20, 50, 75, 10_000)),
        *({"max_fps": fps} for fps in (0.4, 1.0, 7.0, 12.5)),
        {"start": 1.3, "stride": 6},
        {"start": 0.5, "end": 1.9, "stride": 4},
        {"start": 1.01, "max_fps": 2.0},
    ],
    ids=str,
)
def test_the_frames_that_are_wanted_are_those_of_the_whole(clips: dict[str, Path], pick: dict[str, Any]) -> None:
    for name, path in clips.items():
        with open_source(path) as source:
            chooser, expected = Pick(**pick), []
            for frame in source:
                if chooser.wants(frame.index, frame.time):
                    chooser.take(frame.time)
                    expected.append((frame.index, frame.time, frame.image))
        with Feed(open_source(path), Pick(**pick)) as feed:
            found = [(frame.index, frame.time, frame.image) for frame in feed]
        assert [each[:2] for each in found] == [each[:2] for each in expected], name
        assert all((one[2] == other[2]).all() for one, other in zip(found, expected, strict=True)), name


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
UNUSUAL: dict[str, tuple[str, str, dict[str, str]]] = {
    "every frame is called a key frame": ("a.mp4", "libx264", {"g": "50", "bf": "0", "sc_threshold": "0"}),
    "so is each of MPEG-4": ("b.mp4", "mpeg4", {"g": "50", "sc_threshold": "1000000000"}),
    "key frames that need others": ("c.mp4", "libx264", {"g": "25", "x264-params": "intra-refresh=1:scenecut=0"}),
    "open groups of HEVC": ("d.mp4", "libx265", {"x265-params": "log-level=none:keyint=20:open-gop=1:scenecut=0"}),
    "open groups of MPEG-2": ("e.ts", "mpeg2video", {"g": "12", "bf": "2", "sc_threshold": "1000000000"}),
    "pictures that are not shown": ("f.webm", "libvpx", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_no_frame_is_lost_where_key_frames_are_not_what_they_seem(tmp_path: Path, kind: str) -> None:
    name, codec, options = UNUSUAL[kind]
    path = write_clip(tmp_path / name, ["red", "green", "blue", "grey"] * 25, Fraction(25), 72, 96, codec, **options)
    if name in ("a.mp4", "b.mp4"):  # without the table of key frames
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    check_parts(path, 100)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {}),
        ("b.mp4", "libx264", FRAGMENTED),
        ("c.mp4", "libx264", {}),
        ("d.webm", "libvpx-vp9", {}),
        ("e.webm", "libvpx", {}),
        ("f.ts", "libx264", {}),
    ],
    ids=lambda each: each if isinstance(each, str) and "." in each else "",
)
def test_frames_keep_their_numbers_at_a_variable_rate(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Of 60 pictures 20 are shown in the first 10 s, then 25 a second."""
    path = tmp_path / name
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number in range(60):
            shown = VideoFrame.from_ndarray(picture("red", seed=number), format="bgr24")
            shown.pts, shown.time_base = 500 * number if number < 20 else 10_000 + 40 * (number - 20), Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    check_parts(path, 60)


PARTS: list[dict[str, Any]] = [
    {"stride": 25},
    {"start": 1.5},
    {"start": 9.7, "stride": 3},
    {"start": 0.5, "end": 3.0, "max_fps": 2.0},
]


def check_parts(path: Path, frames: int) -> None:
    with open_source(path) as source:
        whole = [(frame.index, round(frame.time, 6), frame.image) for frame in source]
    assert len(whole) == frames
    for part in PARTS:
        chooser, expected = Pick(**part), []
        for frame in whole:
            if chooser.wants(*frame[:2]):
                chooser.take(frame[1])
                expected.append(frame)
        if not expected:
            continue
        with Feed(open_source(path), Pick(**part)) as feed:
            found = [(frame.index, round(frame.time, 6), frame.image) for frame in feed]
        assert [each[:2] for each in found] == [each[:2] for each in expected], part
        assert all((one[2] == other[2]).all() for one, other in zip(found, expected, strict=True)), part


@pytest.mark.parametrize("name", ["part.ts", "part.mkv", "part.avi", "open.mp4"])
def test_a_part_begins_where_it_is_asked_to_in_every_container(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"flags": "-cgop"} if name == "open.mp4" else {}
    path = write_clip(tmp_path / name, ["red", "blue"] * 40, g="9", **options, **B_FRAMES)
    with open_source(path) as source:
        whole = [(frame.index, frame.time) for frame in source]
    for number in range(1, 75, 2):
        start = whole[number][1] - 0.02 * (number % 4 == 1)  # at a frame, and between two
        for stride in (1, 5):
            expected = [(n, t) for n, t in whole if t >= start and n % stride == 0]
            with Feed(open_source(path), Pick(stride=stride, start=start)) as feed:
                assert [(frame.index, frame.time) for frame in feed] == expected, (start, stride)


def test_a_stop_is_seen_while_frames_are_passed_over() -> None:
    source, stop = Counter(live=False), threading.Event()
    threading.Timer(0.1, stop.set).start()
    with Feed(source, Pick(stride=10**9), stop) as feed:
        assert [frame.index for frame in feed] == [0]
    assert source.closed.is_set()


def test_a_live_source_is_released_while_frames_are_passed_over() -> None:
    counter = Counter(live=False, pause_s=0.001)
    with Feed(RealtimeSource(counter), Pick(max_fps=0.001)) as feed:
        next(iter(feed))
    assert counter.closed.wait(2)


def test_a_pick_is_for_any_number_of_feeds(clip: Path) -> None:
    pick = Pick(max_fps=5)
    counts = []
    for _ in range(2):
        with Feed(open_source(clip), pick) as feed:
            counts.append(len(list(feed)))
    assert counts[0] == counts[1] > 0


def test_a_driver_that_hangs_is_released_once_it_returns() -> None:
    slow = Counter(live=True, pause_s=1.5)
    feed = Feed(slow)
    closing = threading.Timer(0.1, feed.close)  # once: it gives up after a second
    closing.start()
    next(iter(feed), None)
    closing.join()
    assert slow.closed.wait(3)


def test_a_live_source_ends_at_its_end() -> None:
    counter = Counter(live=False, pause_s=0.0001)
    with Feed(RealtimeSource(counter), Pick(end=0.3)) as feed:
        began = time.monotonic()
        assert all(frame.time < 0.3 for frame in feed)
        assert time.monotonic() - began < 5, "it would count for ever"


def test_what_nobody_wants_is_not_decoded(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = VideoSource.__iter__

    def counted(self: VideoSource) -> Iterator[Frame]:
        for frame in original(self):
            decoded.append(frame.index)
            yield frame

    monkeypatch.setattr(VideoSource, "__iter__", counted)
    with Feed(open_source(clips["key frame every 2 s"]), Pick(stride=100)) as feed:
        assert [frame.index for frame in feed] == [0, 100, 200, 300, 400]
    assert len(decoded) < 40, "each from the key frame before it on"
    decoded.clear()
    with Feed(open_source(clips["only key frames"]), Pick(stride=50)) as feed:
        assert [frame.index for frame in feed] == decoded == [0, 50, 100, 150, 200]
    decoded.clear()
    with Feed(open_source(clips["B-frames"]), Pick(stride=7)) as feed:
        assert len(list(feed)) == 35
    assert len(decoded) < 180, "of 240: B-frames that no other frame needs are left out"


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (3.0, 3.0), (4.0, 3.0), (float("nan"), None)])
def test_a_part_needs_times_in_order(start: float, end: float | None) -> None:
    with pytest.raises(UsageError, match="expected seconds from 0 up, the end after the start"):
        Pick(start=start, end=math.inf if end is None else end)


def test_a_part_after_the_end_is_an_error(clip: Path) -> None:
    with (
        Feed(open_source(clip), Pick(start=30.0)) as part,
        pytest.raises(SourceError, match=r"no frame from 30 s on, the last seen is at 1\.97 s; give another --start"),
    ):
        list(part)


@pytest.mark.parametrize(("max_fps", "count"), [(0.0, 60), (5.0, 11), (10.0, 20), (1.0, 3), (100.0, 60)])
def test_no_more_frames_a_second_than_asked_for(clip: Path, max_fps: float, count: int) -> None:
    with Feed(open_source(clip), Pick(max_fps=max_fps)) as feed:
        times = [frame.time for frame in feed]
    assert abs(len(times) - count) <= 1
    if max_fps and max_fps < 25:
        for number, time_ in enumerate(times):
            assert time_ == pytest.approx(number / max_fps, abs=0.04), "it does not drift"


def test_a_file_in_real_time_is_a_live_source(clip: Path) -> None:
    began = time.monotonic()
    with RealtimeSource(open_source(clip)) as source:
        assert source.live
        ages = [time.monotonic() - began - frame.time for frame in source]
    assert len(ages) == 60
    assert min(ages) >= -0.01, "no frame before its time"
    assert np.median(ages) < 0.5


def test_closing_a_source_in_real_time_waits_for_no_frame(clip: Path) -> None:
    source = RealtimeSource(open_source(clip))
    frames = iter(source)
    next(frames)
    source.close()
    began = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - began < 1

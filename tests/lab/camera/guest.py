"""What runs in the virtual machine: measures the edgevid that is on the path, through its public doors, as JSON lines.

python -m tests.lab.camera.guest vivid|webcam OUT
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgevid import EdgevidError, Event, Source, SourceOptions, doctor, open_camera, open_source
from edgevid.arrays import Image
from edgevid.sources.feed import Feed
from tests.lab.camera.pictures import BARS, number_in

LOG = Path("/tmp/webcam.log")  # of a machine that nobody else is on
FORMATS = (
    *("YUYV", "UYVY", "YVYU", "VYUY", "YU12", "YV12", "422P", "YM12", "NV12", "NV21", "NV16", "NV61", "NV24", "NV42"),
    *("GREY", "Y10", "Y12", "Y16", "BGR3", "RGB3", "BGR4", "RGB4", "XR24", "BX24", "XB24", "RX24", "RGBP", "RGBR"),
    *("RGBO", "R444", "AYUV", "VUYX", "YUV3", "HSV3", "HSV6", "BA81", "RGGB", "MJPG", "H264"),
)
GREY = np.array([[luma] * 3 for luma in BARS @ [0.0722, 0.7152, 0.2126]])  # vivid's grey is the luma of Rec. 709
SETTLING_S = 1.0  # between two uses, where it is not about that
NEVER_S = 8.0  # that long nothing happens where nothing ever will
# vivid's own controls: what the driver says of its colours, and makes them by.
COLOURS = {
    "Rec. 709, NV12": ("NV12", "colorspace=1"),
    "Rec. 709, YUYV": ("YUYV", "colorspace=1"),
    "BT.2020, NV12": ("NV12", "colorspace=4"),
    "DCI-P3, NV12": ("NV12", "colorspace=5"),
    "SMPTE 240M, NV12": ("NV12", "colorspace=6"),
    "sRGB, encoded as Rec. 709": ("NV12", "colorspace=2,y_cbcr_encoding=2"),
    "full range, NV12": ("NV12", "colorspace=2,y_cbcr_encoding=0,quantization=1"),
    "full range, GREY": ("GREY", "quantization=1"),
    "limited range, GREY": ("GREY", "quantization=2"),
    "limited range, RGB3": ("RGB3", "quantization=2"),
    "full range, YUYV": ("YUYV", "quantization=1"),
}
AS_IT_WAS = "colorspace=2,y_cbcr_encoding=0,quantization=0"


def told(error: EdgevidError) -> str:
    """Return what the command would print, and its exit status."""
    return f"{error}  [{error.exit_status}]"


def opened(**options: Any) -> Source:
    """Open the camera, which may not be free at once."""
    time.sleep(SETTLING_S)
    return open_camera(0, SourceOptions(**options))


def first_frames(
    count: int, device: int | str, settling_s: float = SETTLING_S, **options: Any
) -> tuple[list[Image], str]:
    """Open a camera and read pictures; returns them, or why there are none."""
    events: list[Event] = []
    time.sleep(settling_s)
    try:
        with open_camera(device, SourceOptions(**options), events.append) as source:
            source.tell = events.append
            threading.Timer(NEVER_S, source.interrupt).start()
            images = [frame.image.copy() for frame, _ in zip(source, range(count), strict=False)]
    except EdgevidError as error:
        return [], told(error)
    said = events[0].text if events else "nothing is said"
    return images, "" if images else f"never ends: {said}"


def bars_of(image: Image) -> Any:
    """Return the colours of the eight bars."""
    height, width = image.shape[:2]
    return image[height // 2, [width * (2 * place + 1) // 16 for place in range(8)]].astype(int)


def controls(text: str) -> None:
    """Set vivid's controls."""
    subprocess.run(["v4l2-ctl", "-d0", "-c", text], check=True)


def colour_error(name: str) -> str:
    """Return how far the bars of a format are off, in grey levels; or what is said instead."""
    images, why = first_frames(3, 0, format=name)
    if not images:
        return why
    expected = GREY if name in ("GREY", "Y10", "Y12", "Y16") else BARS
    return f"{np.abs(bars_of(images[-1]) - expected).max():.0f}"


def vivid() -> Iterator[tuple[str, object]]:
    """Formats, colours, and what is said of nodes that are no cameras."""
    yield "formats", {name: colour_error(name) for name in FORMATS}
    found = {}
    for what, (name, setting) in COLOURS.items():
        controls(setting)
        found[what] = colour_error(name)
        controls(AS_IT_WAS)
    yield "colours", found
    yield "messages", {what: said(*doing) for what, doing in VIVID_MESSAGES.items()}
    yield "doctor", doctor_lines()


def doctor_lines() -> str:
    """Return how many lines doctor has about cameras, and which nodes they are about."""
    found = doctor.cameras()
    earlier = getattr(doctor, "_formats", None)  # asked v4l2-ctl
    lines = sum(len(earlier(camera.path) if earlier else camera.formats) for camera in found)
    return f"{lines} of {', '.join(camera.path for camera in found)}"


def said(do: Callable[[], Any], before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None) -> str:
    """Return what is said when something is done; "works" where nothing is."""
    kept = before() if before else None
    try:
        found = do()
    except EdgevidError as error:
        return told(error)
    finally:
        if after:
            after()
        if isinstance(kept, subprocess.Popen):
            kept.terminate()
            kept.wait()
        elif isinstance(kept, Source):
            kept.close()
    return str(found)


def taken(device: int | str, **options: Any) -> str:
    """Take a picture; returns its size, or why there is none."""
    images, why = first_frames(1, device, **options)
    return why or "works, {1}x{0}".format(*images[0].shape)


def another_program() -> subprocess.Popen[bytes]:
    """Have another program use the camera."""
    process = subprocess.Popen(["v4l2-ctl", "-d0", "--stream-mmap"], stderr=subprocess.DEVNULL)
    time.sleep(2)
    return process


def as_nobody() -> str:
    """Return what another user is told."""
    os.chmod("/dev/video0", 0o660)  # noqa: PTH101
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(writing, taken(0).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(reading, 4096).decode()


def without_driver() -> str:
    """Return what is said of a node that has no driver."""
    os.mknod("/dev/video77", 0o20660, os.makedev(81, 77))
    return taken(77)


VIVID_MESSAGES: dict[str, tuple[Callable[[], Any], ...]] = {
    "`--camera 63`, absent": (lambda: taken(63),),
    "`--camera /dev/video63`, absent": (lambda: taken("/dev/video63"),),
    "`--camera /dev/null`": (lambda: taken("/dev/null"),),
    "`--camera 1`, an output": (lambda: taken(1),),
    "`--camera 77`, no driver": (without_driver,),
    "`--camera 0`, by another user": (as_nobody,),
    "`--camera 0`, used by v4l2-ctl": (lambda: taken(0), another_program),
    "`--camera 0`, open here already": (lambda: taken(0), lambda: open_camera(0)),
    "`--camera 0 --format yuyv`": (lambda: taken(0, format="yuyv"),),
    "`--camera 0 --size 641x479`": (lambda: taken(0, size=(641, 479)),),
    "`--camera 0 --fps 77`": (lambda: taken(0, fps=77.0),),
    "`--source /dev/video0`": (lambda: open_source("/dev/video0").close(),),
    "`--source 0`": (lambda: open_source("0").close(),),
}


class Webcam:
    """The software webcam, in a process of its own."""

    def __init__(self, pictures: Path) -> None:
        LOG.touch()
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("webcam.py"), pictures, LOG], stdin=subprocess.PIPE, text=True
        )
        self.wait_for_node()

    def wait_for_node(self) -> None:
        """Wait until the driver has made its node."""
        until = time.monotonic() + 60
        while not Path("/dev/video0").exists() and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.5)

    def tell(self, line: str) -> None:
        """Have it do something."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


class Sent:
    """What the webcam has sent since then: numbers, times, and how each was spoilt."""

    def __init__(self) -> None:
        self._before = len(LOG.read_text().splitlines())

    def __call__(self) -> list[tuple[int, float, str]]:
        rows = [line.split() for line in LOG.read_text().splitlines()[self._before :]]
        return [(int(row[0]), float(row[1]), row[2]) for row in rows if len(row) == 3]


def latency(seconds: float, engine_s: float, **options: Any) -> dict[str, Any]:
    """Read a camera as ``run`` does, with an engine that takes so long; ages in ms, as told and in truth."""
    sent, labels, times = Sent(), [], []
    with Feed(opened(**options)) as feed:
        until = time.monotonic() + seconds
        for frame in feed:
            number = number_in(frame.picture)
            time.sleep(engine_s)
            now = time.monotonic()
            labels.append((number, now, now - frame.arrived))
            times.append(frame.time)
            if now > until:
                break
        dropped = feed.dropped
    log = sent()
    began: list[float] = []
    ages = []
    for number, now, age in labels[3:]:
        when = max((at for one, at, _ in log if one == number and at <= now), default=None)
        if when is not None:
            ages.append((age * 1000, (now - when) * 1000))
            began.append(when)
    of_stream = sum(1 for _, at, _ in log if began and began[0] <= at <= began[-1])
    return {
        "labels": len(labels),
        "told": statistics.median(age for age, _ in ages) if ages else None,
        "true": statistics.median(age for _, age in ages) if ages else None,
        "apart_90": sorted(abs(true - age) for age, true in ages)[len(ages) * 9 // 10] if ages else None,
        "apart_median": statistics.median(true - age for age, true in ages) if ages else None,
        "sent": of_stream,
        "dropped": dropped,
        "jitter": spread(times[3:], began),
    }


def spread(times: list[float], began: list[float]) -> float | None:
    """Return by how much frames' times differ from when they were sent, in ms: the standard deviation."""
    pairs = list(zip(times, began, strict=False))
    return statistics.pstdev((time_ - when) * 1000 for time_, when in pairs) if len(pairs) > 1 else None


def damage(camera: Webcam, how: str, count: int) -> dict[str, Any]:
    """Have JPEGs spoilt, and see what comes of them."""
    sent, seen = Sent(), []
    with Feed(opened(format="MJPG", size=(320, 240))) as feed:
        for frame in feed:
            seen.append((number_in(frame.picture), time.monotonic()))
            if len(seen) == 5:
                camera.tell(f"{how} {count}")
            if len(seen) > 40 and sum(kind == how for _, _, kind in sent()) == count:
                break
        broken, dropped = feed.source.broken, feed.dropped
    classified = sum(is_spoilt(sent(), *one) for one in seen)
    return {"sent": count, "broken": broken, "classified": classified, "dropped": dropped}


def is_spoilt(log: list[tuple[int, float, str]], number: int | None, when: float) -> bool:
    """Return whether a picture that was seen at a time is none that was sent whole in the two seconds before."""
    kinds = [kind for one, sent, kind in log if one == number and when - 2 < sent <= when]
    return not kinds or kinds[-1] != "whole"


def garbage_first(camera: Webcam) -> str:
    """Return what the first frame is where the camera's first JPEGs are garbage."""
    camera.tell("garbage 5")
    images, why = first_frames(1, 0, format="MJPG", size=(320, 240))
    camera.tell("garbage 0")
    return why or ("a picture of the camera's" if number_in(images[0]) is not None else "whatever memory held")


def reopened() -> str:
    """Return how many of ten opens at once after a close succeed."""
    good, why = 0, ""
    for _ in range(10):
        images, message = first_frames(1, 0, 0, format="MJPG", size=(320, 240))
        good += bool(images)
        why = why or message
    return f"{good} of 10" + (f"; {why}" if why else "")


@contextmanager
def silent(camera: Webcam) -> Iterator[None]:
    """Have the camera give no frame."""
    camera.tell("mute")
    try:
        yield
    finally:
        camera.tell("speak")


def silent_from_the_start(camera: Webcam) -> str:
    """Return what is said of a camera that opens, and gives no picture."""
    with silent(camera):
        return taken(0)


def unplugged(camera: Webcam) -> list[str]:
    """Return what is told when a camera is unplugged and plugged in again."""
    events: list[Event] = []
    with Feed(opened(size=(320, 240)), tell=events.append) as feed:
        for count, _ in enumerate(feed):
            if count == 5:
                camera.tell("unplug")
                threading.Timer(3, camera.tell, ["plug"]).start()
            if feed.source.gaps:
                break
    return [event.text for event in events]


def webcam(pictures: Path) -> Iterator[tuple[str, object]]:
    """Latency, damage, and what is said when a camera fails."""
    camera = Webcam(pictures)
    yield (
        "formats",
        {name: "; ".join(filter(None, [first_frames(1, 0, format=name)[1]])) or "works" for name in ("MJPG",)},
    )
    ways: dict[str, dict[str, Any]] = {
        "decoding slower than the camera (MJPG 1280x720), engine 5 ms": {
            "engine_s": 0.005,
            "format": "MJPG",
            "size": (1280, 720),
        },
        "engine slower than the camera (MJPG 320x240), engine 100 ms": {
            "engine_s": 0.1,
            "format": "MJPG",
            "size": (320, 240),
        },
        "engine slower than the camera (YUYV 320x240), engine 100 ms": {
            "engine_s": 0.1,
            "format": "YUYV",
            "size": (320, 240),
        },
        "neither (MJPG 320x240 at 15 fps), engine 5 ms": {
            "engine_s": 0.005,
            "format": "MJPG",
            "size": (320, 240),
            "fps": 15.0,
        },
    }
    yield "latency", {what: latency(12, **options) for what, options in ways.items()}
    yield "damage", {how: damage(camera, how, 20) for how in ("garbage", "cut", "empty")}
    yield "first", garbage_first(camera)
    yield "reopened", reopened()
    yield (
        "messages",
        {
            "`--size 1280x720`, which only MJPG has": taken(0, size=(1280, 720)),
            "`--size 1280x720 --format YUYV`": taken(0, size=(1280, 720), format="YUYV"),
            "`--fps 60`": taken(0, fps=60.0),
            "`--camera 1`, its metadata": taken(1),
            "`--camera /dev/video1`, its metadata": taken("/dev/video1"),
            "it opens, and gives no picture": silent_from_the_start(camera),
        },
    )
    yield "unplugged", unplugged(camera)


def main() -> None:
    """Measure, and print a line of JSON for each subject."""
    which, out = sys.argv[1], Path(sys.argv[2])
    with (out / f"{which}.jsonl").open("w") as file:
        for subject, found in vivid() if which == "vivid" else webcam(out / "pictures"):
            file.write(json.dumps({subject: found}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()

"""Real parts for the tests: generated clips, a small trained Keras CNN, and the bundle converted from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid.arrays import Image
from edgevid.bundle import Bundle
from edgevid.cli import main
from edgevid.hardware import cpu_features, cpu_model

# BGR; the model below tells them apart.
COLORS = {"red": (40, 40, 200), "green": (40, 200, 40), "blue": (200, 40, 40), "grey": (128, 128, 128)}
LABELS = tuple(COLORS)
SIZE = 32


def picture(color: str, height: int = 72, width: int = 96, seed: int = 0) -> Image:
    """Return a noisy picture of one colour, BGR."""
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    return np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    colors: list[str],
    rate: Fraction = Fraction(25),
    height: int = 72,
    width: int = 96,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write a clip with one picture of each colour, in order; H.264 unless another encoder is named."""
    pictures = (picture(color, height, width, index) for index, color in enumerate(colors))
    return write_pictures(path, pictures, rate, height, width, codec, **options)


def write_pictures(
    path: Path,
    pictures: Iterable[Image],
    rate: Fraction = Fraction(25),
    height: int = 72,
    width: int = 96,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write a clip of pictures, BGR; H.264 unless another encoder is named."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "10", **options})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for shown in pictures:
            container.mux(stream.encode(VideoFrame.from_ndarray(shown, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def write_tagged_clip(path: Path, matrix: int, color_range: int, layout: str = "yuv420p") -> Path:
    """Write five green pictures that say how their colours are coded, by the numbers of ITU-T H.273."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 72, layout
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range
        for index in range(5):
            shown = VideoFrame.from_ndarray(picture("green", 72, 96, index), format="bgr24")
            coded = shown.reformat(format=layout, dst_colorspace=matrix, dst_color_range=color_range)
            container.mux(stream.encode(coded))
        container.mux(stream.encode(None))
    return path


@dataclass(frozen=True)
class Outcome:
    """What a command line left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error, which must be one line."""
        lines = [line for line in self.err.splitlines() if line.startswith("edgevid: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, through its front door."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        status = exit_info.value.code
        assert isinstance(status, int)
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 60 frames at 30000/1001 a second: red, then green, then blue, with a blue flicker in the red."""
    colors = ["red"] * 20 + ["green"] * 20 + ["blue"] * 20
    colors[8] = "blue"
    return write_clip(tmp_path_factory.mktemp("clips") / "colors.mp4", colors, Fraction(30000, 1001))


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 20 seconds, to be played as a camera would: noise, of which annotated video takes 300 kB a second."""
    colors = ["red", "green", "blue", "grey"] * 5
    frames = [color for color in colors for _ in range(25)]
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames, height=240, width=320, preset="ultrafast")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 images, named so that only a natural order is the right one."""
    import cv2

    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        color = LABELS[index // 3]
        cv2.imwrite(str(folder / f"img{index}.png"), picture(color, seed=index))
    return folder


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras, imported as the converter does it."""
    from edgevid_convert.engine import keras as module

    return module


@pytest.fixture
def quiet_keras() -> Iterator[None]:
    """Let Keras and TensorFlow warn: of their own use of NumPy, mostly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def trained(keras: Any) -> Any:
    """A small CNN that tells the colours apart, trained here; input (32, 32, 3) of (pixel − 127.5) / 127.5, RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own, against NumPy
        return _trained(keras)


def _trained(keras: Any) -> Any:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(8, 3, 2, activation="relu"),
            layers.DepthwiseConv2D(3, activation="relu"),
            layers.Conv2D(16, 3, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(len(LABELS), "softmax"),
        ]
    )
    count = 400
    truth = np.arange(count) % len(LABELS)
    pixels = np.stack([picture(LABELS[label], SIZE, SIZE, 1000 + i) for i, label in enumerate(truth)])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit((pixels[..., ::-1] - 127.5) / 127.5, truth, epochs=6, verbose=0)
    accuracy = model.evaluate((pixels[..., ::-1] - 127.5) / 127.5, truth, verbose=0)[1]
    assert accuracy > 0.99
    return model


@pytest.fixture(scope="session")
def model_file(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as a ``.keras`` file."""
    path = tmp_path_factory.mktemp("model") / "colors.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained.save(path)
    return path


@pytest.fixture(scope="session")
def labels_file(model_file: Path) -> Path:
    """Its labels."""
    path = model_file.with_suffix(".txt")
    path.write_text("\n".join(LABELS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bundle_path(model_file: Path, labels_file: Path, clip: Path, images: Path) -> Path:
    """The bundle of that model with every variant, converted once through the command line."""
    output = model_file.with_suffix(".edgevid")
    arguments = ["convert", model_file, "-o", output, "--labels", labels_file, "--mean", "127.5", "--std", "127.5"]
    arguments += ["--calib", clip, images, "--window", "8"]
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    assert exit_info.value.code == 0
    return output


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    """That bundle, opened."""
    return Bundle(bundle_path)


@pytest.fixture(scope="session", autouse=True)
def _one_worker() -> Iterator[None]:
    """Have the process that converts load TensorFlow once for all tests."""
    from edgevid_convert.converter import kept_worker

    with kept_worker():
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell has what it starts in its background ignore Ctrl-C, and with it all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep every test away from the user's cache folder and environment."""
    monkeypatch.delenv("EDGEVID_BUNDLE", raising=False)
    if not request.node.get_closest_marker("sample"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@lru_cache
def _mounts_tmpfs() -> bool:
    """Whether a small disk can be made here: root can, but not in every container."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


# What a test may need, and whether it is here; without it the test is skipped by this name.
def _has_fribidi() -> bool:
    from PIL import features

    return bool(features.check("raqm") and features.check("fribidi"))


NEEDS: dict[str, Callable[[], bool]] = {
    "needs_bf16": lambda: bool(cpu_features() & {"avx512_bf16", "amx_bf16"}),
    "needs_camera": lambda: Path("/dev/video0").exists(),
    "needs_chromium": lambda: shutil.which("chromium") is not None,
    "needs_compiler": lambda: shutil.which("cc") is not None,
    "needs_faketime": lambda: any(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")),
    "needs_intel_cpu": lambda: "Intel" in cpu_model(),
    "needs_plugin_providers": lambda: all(map(find_spec, ("onnxruntime_ep_openvino", "onnxruntime_ep_webgpu"))),
    "needs_rtsp_server": lambda: any(Path("/usr/lib").glob("*/girepository-1.0/GstRtspServer-1.0.typelib")),
    "needs_systemd": lambda: shutil.which("systemd-analyze") is not None,
    "needs_software_gpu": lambda: Path("/usr/lib/chromium/vk_swiftshader_icd.json").exists(),
    "needs_fribidi": _has_fribidi,
    "needs_tmpfs": _mounts_tmpfs,
    "needs_tflite_runtime": lambda: sys.version_info < (3, 12),
}
LONG_FILES = ("test_demo.py", "test_collapse.py", "test_gate.py", "test_convert_stopped.py", "test_convert.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take minutes first: one of them at the end would keep all but one processor waiting."""
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs what is not here, by the name of what it needs."""
    for name, is_here in NEEDS.items():
        if item.get_closest_marker(name) and not is_here():
            pytest.skip(f"{name}: not on this machine")


def read_jsonl(text: str) -> list[dict[str, Any]]:
    """Return the objects of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]

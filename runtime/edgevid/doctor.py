"""What this machine can run, and what keeps it from running more: each backend is asked in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Literal

import msgspec

from edgevid._version import __version__
from edgevid.backends import BACKENDS, Usable, available_cores
from edgevid.child import how_it_ended, run_module
from edgevid.errors import MissingExtraError
from edgevid.hardware import Camera, cpu_features, cpu_model, governor, temperature

__all__ = ["BackendRow", "Diagnosis", "ask_backend", "diagnose"]

TIMEOUT_S = 60
HOT_C = 75.0  # a Raspberry Pi slows down from 80
# What a CPU feature is good for, by Linux' name: first those of x86, then those of ARM.
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI (int8)",
    "avx512_vnni": "AVX-512 VNNI (int8)",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimddp": "dot product (int8)",
    "i8mm": "i8mm (int8)",
    "asimdhp": "half precision",
    "bf16": "BF16",
    "sve": "SVE",
}
INT8_FEATURES = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")
ENCODERS = ("libx264", "libx265", "libsvtav1", "h264_v4l2m2m", "h264_nvenc", "h264_vaapi", "h264_qsv")


class BackendRow(msgspec.Struct, frozen=True, kw_only=True):
    """A backend on a device: whether it can be used here, and if not, why, and what to do."""

    backend: str
    device: str
    usable: bool
    hardware: str = ""
    reason: str = ""
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``edgevid doctor`` found; ``advice`` holds a line for each thing to mend."""

    versions: dict[str, str]
    cpu: str
    architecture: str
    cores: int
    features: tuple[str, ...]
    governor: str | None
    temperature_c: float | None
    backends: tuple[BackendRow, ...]
    opencv: tuple[str, ...]
    windows: bool
    cameras: tuple[Camera, ...]
    decoders: tuple[str, ...]
    encoders: tuple[str, ...]
    advice: tuple[str, ...]


def diagnose(progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> Diagnosis:
    """Look at this machine; takes seconds, since each engine is loaded.

    Args:
        progress: called with the backend that was looked at, how many are done, and how many there are.
    """
    rows: list[BackendRow] = []
    names = [name for name, entry in BACKENDS.items() if entry.automatic]
    with ThreadPoolExecutor(available_cores()) as executor:
        for done, (name, found) in enumerate(zip(names, executor.map(_backend_rows, names), strict=True), 1):
            progress(name, done, len(names))
            rows.extend(found)
    opencv, windows = _opencv()
    features = cpu_features()
    decoders, encoders = _codecs()
    diagnosis = Diagnosis(
        versions={"edgevid": __version__, "python": platform.python_version(), "system": platform.platform()},
        cpu=cpu_model(),
        architecture=platform.machine(),
        cores=available_cores(),
        features=tuple(text for name, text in FEATURES.items() if name in features),
        governor=governor(),
        temperature_c=temperature(),
        backends=tuple(rows),
        opencv=opencv,
        windows=windows,
        cameras=cameras(),
        decoders=decoders,
        encoders=encoders,
        advice=(),
    )
    return msgspec.structs.replace(diagnosis, advice=tuple(_advice(diagnosis, features)))


def ask_backend(name: str, device: str) -> Usable:
    """Ask a backend, in a process of its own, whether it can use a device of this machine."""
    try:
        ended = run_module("edgevid.backends.probe", name, device, timeout_s=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Usable(device, f"no answer within {TIMEOUT_S} s", "look at the device's driver: dmesg may say more")
    try:
        return msgspec.json.decode(ended.stdout, type=Usable)
    except msgspec.DecodeError:
        return Usable(device, how_it_ended(ended), "install the engine again, or another driver")


def _backend_rows(name: str) -> list[BackendRow]:
    """Return a backend's rows, asked in a process of its own: drivers crash, hang, and print."""
    entry = BACKENDS[name]
    if not entry.installed:
        error = MissingExtraError(f"backend {name!r}", str(entry.package), entry.extra)
        reason, _, remedy = str(error).partition(": ")
        if name == "onnxruntime":
            remedy += "  for the CPU; for a GPU or an NPU its build or plugin as well"
        if name == "tflite":
            remedy += "  in an environment of its own, with Python 3.10 or 3.11"
        return [
            BackendRow(backend=name, device=device, usable=False, reason=reason, remedy=remedy)
            for device in entry.devices
        ]
    rows = []
    for device in entry.devices:
        found = ask_backend(name, device)
        rows.append(
            BackendRow(
                backend=name,
                device=device,
                usable=not found.reason,
                hardware=found.hardware,
                reason=found.reason.removeprefix(f"device {device!r}: "),
                remedy=found.remedy,
            )
        )
    return rows


def _opencv() -> tuple[tuple[str, ...], bool]:
    """Return the packages that bring OpenCV, of which there should be one, and whether it can open windows."""
    found = _packages("opencv-")
    try:
        import cv2
    except ImportError:  # two of them overwrote each other, or libGL is missing
        return found, False
    return found, bool(cv2.currentUIFramework())


def _packages(prefix: str, but: str = "-") -> tuple[str, ...]:
    """Return the installed packages whose names begin so, with their versions."""
    names = ((str(found.metadata["Name"]).lower(), found.version) for found in distributions())
    fitting = {f"{name} {version}" for name, version in names if name.startswith(prefix) and not name.startswith(but)}
    return tuple(sorted(fitting))


def _codecs() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which of the codecs that matter PyAV has: decoders, then encoders."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    def there(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            Codec(name, mode)
        except UnknownCodecError:
            return False
        return True

    decoders = tuple(name for name in DECODERS if there(name, "r"))
    return decoders, tuple(name for name in ENCODERS if there(name, "w"))


def cameras() -> tuple[Camera, ...]:
    """Return the cameras of this machine; none where it is no Linux."""
    if sys.platform != "linux":
        return ()
    from edgevid.sources.v4l2_camera import cameras_here

    return tuple(cameras_here(formats=True))


def _advice(found: Diagnosis, features: frozenset[str]) -> list[str]:
    """Return what to mend, a line each."""
    advice = []
    if len(found.opencv) > 1:
        names = " ".join(package.split()[0] for package in found.opencv)
        advice.append(
            f"{len(found.opencv)} OpenCV packages overwrite each other: run  pip uninstall -y {names}  and then  "
            "pip install opencv-python-headless"
        )
    if (
        found.architecture.lower() in ("x86_64", "amd64", "aarch64", "arm64")
        and features
        and not features & INT8_FEATURES
    ):
        advice.append("this CPU has no instructions for int8: fp32 may be as fast; 'edgevid bench' tells")
    if find_spec("onnxruntime") and len(runtimes := _packages("onnxruntime", but="onnxruntime-ep")) > 1:
        advice.append(
            f"{len(runtimes)} builds of ONNX Runtime overwrite each other ({', '.join(runtimes)}): "
            "uninstall all of them, and install one"
        )
    if found.governor in ("powersave", "conservative"):
        advice.append(f"the clock is kept low ({found.governor}): run  sudo cpupower frequency-set -g performance")
    if found.temperature_c is not None and found.temperature_c >= HOT_C:
        advice.append(f"{found.temperature_c:.0f} °C: it will slow down; give it a heat sink or a fan")
    for camera in found.cameras:
        if not camera.readable:
            advice.append(
                f"{camera.path}: this user may not open it; run  sudo usermod -aG video $USER  and log in again"
            )
    if "h264" not in found.decoders:
        advice.append("this PyAV decodes no H.264: run  pip install --force-reinstall av")
    return advice

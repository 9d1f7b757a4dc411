"""What this machine is, as far as an inference engine and its user care: read from Linux' files, without privileges."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Camera",
    "board_model",
    "cpu_features",
    "cpu_model",
    "governor",
    "has_edge_tpu",
    "has_exact_int8",
    "no_render_node",
    "nvidia_model",
    "read_text",
    "temperature",
]

CPUINFO = Path("/proc/cpuinfo")
THERMAL = Path("/sys/class/thermal")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
RENDER_NODES = Path("/dev/dri")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")  # not on a Jetson, whose GPU is no card
BOARD_NAMES = (Path("/proc/device-tree/model"), Path("/sys/class/dmi/id/product_name"))  # of ARM, of x86
USB_DEVICES = Path("/sys/bus/usb/devices")
EDGE_TPU_VENDORS = frozenset({"1a6e", "18d1"})  # Global Unichip, until firmware is loaded; then Google
SELF_REGULATING = frozenset({"intel_pstate", "amd-pstate-epp"})  # drivers whose "powersave" goes with the load
X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_features() -> frozenset[str]:
    """Return the names that Linux gives the features of the first core, such as ``avx2`` or ``asimddp``.

    Empty where there is no ``/proc/cpuinfo``.
    """
    return frozenset(_first_value("flags", "Features").split())


def cpu_model() -> str:
    """Return the processor's name."""
    return _first_value("model name", "Model", "Hardware") or platform.processor() or "unknown"


def board_model() -> str:
    """Return what the firmware calls the board or computer, such as ``Raspberry Pi 5 Model B``; else nothing."""
    names = (read_text(path) for path in BOARD_NAMES)
    return next((name.rstrip("\0") for name in names if name), "")


def has_exact_int8() -> bool:
    """Return whether products of uint8 and int8 are known to be summed without saturation.

    x86 without VNNI adds two of them in 16 bits (``vpmaddubsw``), and what does not fit is cut off.
    """
    return platform.machine().lower() not in X86 or bool(cpu_features() & VNNI)


def governor() -> str | None:
    """Return how the kernel chooses the clock of the first core, such as ``performance``; None if it does not say.

    The "powersave" of drivers that go with the load all the same is called "dynamic".
    """
    named = read_text(GOVERNOR)
    driver = read_text(GOVERNOR.with_name("scaling_driver"))
    return "dynamic" if named == "powersave" and driver in SELF_REGULATING else named


def temperature() -> float | None:
    """Return the temperature of the hottest zone, in °C; None if the machine does not say."""
    readings = [read_text(file) for file in sorted(THERMAL.glob("thermal_zone*/temp"))]
    degrees = [int(text) / 1000 for text in readings if text and text.lstrip("-").isdigit()]
    return max(degrees, default=None)


def has_edge_tpu() -> bool:
    """Return whether an Edge TPU is on the PCI bus or on USB, before or after its first use there."""
    vendors = {read_text(file) for file in USB_DEVICES.glob("*/idVendor")}
    return any(Path("/dev").glob("apex_*")) or bool(vendors & EDGE_TPU_VENDORS)


def no_render_node() -> tuple[str, str] | None:
    """Return why no program of this user can reach a GPU through the kernel, and what to do; None if one can."""
    nodes = sorted(RENDER_NODES.glob("renderD*"))
    if not nodes:
        return (
            f"no GPU has a driver in the kernel: no {RENDER_NODES}/renderD*",
            "install the GPU's driver; in a container, pass the device in",
        )
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return f"{nodes[0]}: this user may not open it", "run  sudo usermod -aG render,video $USER  and log in again"
    return None


def nvidia_model() -> str:
    """Return the name of this machine's NVIDIA cards, as its driver gives it; empty where cards differ."""
    told = (read_text(file) or "" for file in NVIDIA_DRIVER.glob("gpus/*/information"))
    models = {
        line.partition(":")[2].strip() for text in told for line in text.splitlines() if line.startswith("Model:")
    }
    return models.pop() if len(models) == 1 else ""


@dataclass(frozen=True)
class Camera:
    """A video device: its path, its driver's name for it, whether this user may open it, and its formats as text."""

    path: str
    name: str
    readable: bool
    formats: tuple[str, ...] = ()


def _first_value(*names: str) -> str:
    """Return the first value of the first of these names that has one."""
    values: dict[str, str] = {}
    for line in (read_text(CPUINFO) or "").splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    return next((values[name] for name in names if values.get(name)), "")


def read_text(path: Path) -> str | None:
    """Return what a file of the system says, without the space around it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

"""The execution providers of ONNX Runtime that edgevid knows: a table, and how each is asked for a device."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgevid.backends.base import BackendOptions
from edgevid.backends.cache import cache_folder
from edgevid.errors import BackendError, UsageError, first_line
from edgevid.manifest import Variant

__all__ = ["PROVIDERS", "Provider", "add_provider", "choose_provider", "offers"]

TWO_OPENVINOS = (
    "the backend openvino and ONNX Runtime's provider openvino bring an OpenVINO each, and a process has room for one; "
    "use them in two processes"
)
NVIDIA = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu*")
CUDA_LIBRARIES = 'for CUDA and cuDNN  pip install "onnxruntime-gpu[cuda,cudnn]"  and NVIDIA\'s driver'
Defaults = Callable[[BackendOptions, Variant], Mapping[str, str]]


def _nothing(options: BackendOptions, variant: Variant) -> dict[str, str]:
    return {}


def _xnnpack(options: BackendOptions, variant: Variant) -> dict[str, str]:
    return {"intra_op_num_threads": str(options.thread_count)}


def _cuda(options: BackendOptions, variant: Variant) -> dict[str, str]:
    # TF32 would round products of float32 to 10 bits: fp32 means float32.
    # Its own choice, an exhaustive search, times algorithms anew for each session: that is slow, and may end otherwise.
    return {
        "device_id": options.which_device or "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def _tensorrt(options: BackendOptions, variant: Variant) -> dict[str, str]:
    folder = cache_folder("tensorrt")
    return {
        "device_id": options.which_device or "0",
        **({"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder} if folder else {}),  # it takes minutes
        "trt_fp16_enable": str(int(variant.precision == "fp16")),
        "trt_int8_enable": str(int(variant.precision == "int8")),
    }


def _openvino(options: BackendOptions, variant: Variant) -> dict[str, str]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # its own choice would be bf16 on CPUs that have it
    if options.device_kind == "cpu":
        settings["INFERENCE_NUM_THREADS"] = str(options.thread_count)
    return {"load_config": json.dumps({options.device_kind.upper(): settings})}


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        registered_name: its name in ONNX Runtime.
        devices: where it runs.
        package: what to install to get it.
        plugin: the module of a plugin package that brings it to any build of ONNX Runtime; None if it is built in.
        defaults: its options, where the user gives none.
        system: the only operating system that has it; empty for any.
        nodes: in ``/dev``, on Linux, one of which its device has; none if that cannot be told.
        libraries: how to get the libraries that it needs and its package does not bring.
        side_by_side: whether several of its sessions can run at once in a process.
    """

    registered_name: str
    devices: tuple[str, ...]
    package: str
    plugin: str | None = None
    defaults: Defaults = _nothing
    system: str = ""
    nodes: tuple[str, ...] = ()
    libraries: str = "install its device's driver"
    side_by_side: bool = True

    @property
    def plugged_in(self) -> bool:
        """Whether its plugin package is installed."""
        return self.plugin is not None and find_spec(self.plugin) is not None


# For a device the first one that is offered is taken, unless --provider names one. TensorRT takes minutes to load.
# Two sessions of WebGPU at once ended the process with SIGSEGV on an NVIDIA H100.
PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", ("cpu",), "onnxruntime"),
    "cuda": Provider(
        "CUDAExecutionProvider", ("gpu",), "onnxruntime-gpu", defaults=_cuda, nodes=NVIDIA, libraries=CUDA_LIBRARIES
    ),
    "tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider", ("gpu",), "onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx"
    ),
    "webgpu": Provider(
        "WebGpuExecutionProvider", ("gpu",), "onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu", side_by_side=False
    ),
    "directml": Provider("DmlExecutionProvider", ("gpu",), "onnxruntime-directml", system="Windows"),
    "qnn": Provider("QNNExecutionProvider", ("npu",), "onnxruntime-qnn"),
    "coreml": Provider("CoreMLExecutionProvider", ("gpu", "npu"), "onnxruntime", system="Darwin"),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        ("cpu", "gpu", "npu"),
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        _openvino,
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider",
        ("gpu",),
        "onnxruntime-gpu",
        defaults=_tensorrt,
        nodes=NVIDIA,
        libraries=f"install TensorRT of the version that the library's name ends in; {CUDA_LIBRARIES}",
    ),
    "xnnpack": Provider("XnnpackExecutionProvider", ("cpu",), "a build of onnxruntime with XNNPACK", defaults=_xnnpack),
}


def offers(ort: Any, name: str, device: str) -> bool | None:
    """Return whether a provider offers a device on this machine; None if it is not installed.

    A plugin says which devices it finds; what is built in is only known to be there.

    Raises:
        BackendError: the plugin's library cannot be loaded.
    """
    provider = PROVIDERS[name]
    if provider.plugged_in:
        return any(found.device.type.name.lower() == device for found in _devices(ort, provider))
    if provider.registered_name not in ort.get_available_providers():
        return None
    absent = provider.nodes and platform.system() == "Linux" and not any(map(_in_dev, provider.nodes))
    return device in provider.devices and not absent


def _in_dev(pattern: str) -> bool:
    return any(Path("/dev").glob(pattern))


def choose_provider(ort: Any, options: BackendOptions) -> str:
    """Return the provider asked for, or the first of the table that offers the device.

    Raises:
        UsageError: it is unknown, or not for this device.
        BackendError: it is not installed, or finds no such device here.
    """
    device, name = options.device_kind, options.provider
    if name is None:
        return _first_offering(ort, device)
    if name not in PROVIDERS:
        raise UsageError(f"provider {name!r}: expected one of {', '.join(PROVIDERS)}")
    provider = PROVIDERS[name]
    if device not in provider.devices:
        raise UsageError(f"provider {name!r}: it runs on {', '.join(provider.devices)}, not on {device!r}")
    offered = offers(ort, name, device)
    if offered is None:
        raise BackendError(f"provider {name!r}: not in this ONNX Runtime; pip install {provider.package}")
    if not offered:
        raise BackendError(f"provider {name!r}: it finds no {device} on this machine; use another --device")
    return name


def _first_offering(ort: Any, device: str) -> str:
    """Return the first provider that offers a device; those after it are not loaded."""
    able = {
        name: provider
        for name, provider in PROVIDERS.items()
        if device in provider.devices and provider.system in ("", platform.system())
    }
    without = []
    for name in able:
        try:
            offered = offers(ort, name, device)
        except BackendError:  # one plugin that does not load is no reason against the others
            offered = False
        if offered:
            return name
        if offered is not None:
            without.append(name)
    finding = f"{' and '.join(without)} found none" if without else "none is installed"
    packages = ", ".join(dict.fromkeys(provider.package for provider in able.values()))
    raise BackendError(
        f"device {device!r}: no execution provider of ONNX Runtime offers one ({finding}); "
        f"install the device's driver and one of {packages}"
    )


def add_provider(ort: Any, session_options: Any, name: str, options: BackendOptions, variant: Variant) -> list[Any]:
    """Give a session a provider; return what to pass to the session as its ``providers``.

    Raises:
        BackendError: it refuses its options.
    """
    provider = PROVIDERS[name]
    settings = {**provider.defaults(options, variant), **options.engine_options}
    if not provider.plugged_in:
        return [(provider.registered_name, settings)]
    devices = [device for device in _devices(ort, provider) if device.device.type.name.lower() == options.device_kind]
    which = int(options.which_device or 0)  # BackendOptions has seen to it that it is a number
    if which >= len(devices):
        raise BackendError(f"device {options.device!r}: {name} finds {len(devices)} of them, counted from 0")
    try:
        session_options.add_provider_for_devices([devices[which]], settings)
    except Exception as error:
        raise BackendError(f"provider {name!r}: it refuses {settings}: {first_line(error)}") from error
    return []


def _devices(ort: Any, provider: Provider) -> Iterable[Any]:
    """Return the devices that a plugin finds; registers it, if that has not been done.

    Raises:
        BackendError: the plugin's library cannot be loaded.
    """
    assert provider.plugin is not None
    if provider.registered_name not in _REGISTERED:
        if provider.plugin == "onnxruntime_ep_openvino" and "openvino" in sys.modules:
            raise BackendError(TWO_OPENVINOS)
        try:
            library = import_module(provider.plugin).get_library_path()
            ort.register_execution_provider_library(provider.registered_name, library)
        except Exception as error:
            raise BackendError(
                f"{provider.package}: ONNX Runtime cannot load it: {first_line(error)}; install matching versions"
            ) from error
        _REGISTERED.add(provider.registered_name)
    return [device for device in ort.get_ep_devices() if device.ep_name == provider.registered_name]


_REGISTERED: set[str] = set()


def brought_openvino() -> bool:
    """Return whether a plugin has brought an OpenVINO of its own into this process."""
    return PROVIDERS["openvino"].registered_name in _REGISTERED

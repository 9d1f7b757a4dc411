"""ONNX Runtime's CUDA provider, without a card: what a session with it said on an NVIDIA H100 is said again here."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgevid import hardware
from edgevid.backends import Backend, BackendOptions, load_backend, providers
from edgevid.backends.onnxruntime import usable
from edgevid.bundle import Bundle
from edgevid.errors import BackendError

CUDA = "CUDAExecutionProvider"
CARD = "NVIDIA H100 80GB HBM3"
REAL_SESSION = onnxruntime.InferenceSession
SOURCE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
    "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::"
    "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider "
    'option "device_id": '
)
NO_LIBRARY = (
    "[E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] [ONNXRuntimeError] : 1 : FAIL : Failed to load "
    "library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such "
    "file or directory\n"
)


class OnCuda:
    """A session that computes on the CPU and tells that it is on a card, as those of CUDA do."""

    running = most_at_once = 0
    counting = threading.Lock()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        options = {**named, "providers": ["CPUExecutionProvider"]}
        self._session = REAL_SESSION(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name=CUDA, get_nodes=part.get_nodes)
            for part in self._session.get_provider_graph_assignment_info()
        ]

    def run(self, *arguments: Any) -> Any:
        with self.counting:
            OnCuda.running += 1
            OnCuda.most_at_once = max(OnCuda.most_at_once, OnCuda.running)
        time.sleep(0.02)
        with self.counting:
            OnCuda.running -= 1
        return self._session.run(*arguments)


@pytest.fixture
def cuda_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this ONNX Runtime say that it has CUDA and no plugin, and the machine that it has a card."""
    for name, provider in list(providers.PROVIDERS.items()):
        if provider.plugin:  # once loaded they stay, and keep OpenVINO from loading in this process
            monkeypatch.delitem(providers.PROVIDERS, name)
    card = tmp_path / "gpus" / "0000:00:06.0"
    card.mkdir(parents=True)
    (card / "information").write_text(f"Model: \t\t {CARD}\nIRQ:   \t\t 41\nGPU UUID: \t GPU-255a\n")
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(providers, "_in_dev", lambda pattern: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])


def loaded(bundle: Bundle, variant: str = "onnx-fp32") -> Backend:
    options = BackendOptions("gpu", threads=1, provider="cuda")
    return load_backend("onnxruntime", bundle, bundle.variant(variant), options)


def opening(monkeypatch: pytest.MonkeyPatch, session: Callable[..., Any]) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


@pytest.mark.usefixtures("cuda_build")
def test_a_provider_that_onnx_runtime_goes_on_without_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = b""

    def without_it(*arguments: Any, **named: Any) -> Any:
        os.write(2, said)
        return REAL_SESSION(*arguments, **{**named, "providers": ["CPUExecutionProvider"]})

    opening(monkeypatch, without_it)
    with pytest.raises(BackendError, match="provider 'cuda': it cannot start: ONNX Runtime does not say why"):
        loaded(bundle)
    said = NO_LIBRARY.encode()
    with pytest.raises(BackendError) as caught:
        loaded(bundle)
    assert str(caught.value).startswith("provider 'cuda': it cannot start: libcublasLt.so.13 is missing; ")
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in str(caught.value)
    assert usable("gpu").reason == "provider 'cuda': it cannot start: libcublasLt.so.13 is missing"
    assert capfd.readouterr() == ("", ""), "the error says it"


@pytest.mark.usefixtures("cuda_build")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; line=70 ; expr=cuda; \n",
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
        (
            "x.cc:71 operator() Invalid device ID: 1, must be between 0 (inclusive) and 1 (exclusive).\n",
            "Invalid device ID: 1, must be between 0 (inclusive) and 1 (exclusive)",
        ),
    ],
)
def test_an_error_of_cuda_is_told_without_where_in_its_source_it_is(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, said: str, reason: str
) -> None:
    def refused(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError(SOURCE + said)

    opening(monkeypatch, refused)
    with pytest.raises(BackendError) as caught:
        loaded(bundle)
    assert str(caught.value) == f"provider 'cuda': it cannot start: {reason}; use another --device"


@pytest.mark.usefixtures("cuda_build")
def test_the_proof_names_the_card_and_what_it_computes_in(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opening(monkeypatch, OnCuda)
    whole, integers = loaded(bundle).proof, loaded(bundle, "onnx-int8").proof
    assert (whole.device, whole.hardware, whole.precision) == ("gpu", CARD, "float32")
    # Seen in a profile: every convolution of an int8 variant reads float32, between dequantize and quantize nodes.
    assert integers.precision == "float32"
    assert integers.on_device is not None
    assert whole.on_device is not None
    assert integers.on_device > 2 * whole.on_device
    assert usable("gpu").hardware == f"provider cuda ({CARD})"


@pytest.mark.usefixtures("cuda_build")
@pytest.mark.parametrize(("side_by_side", "most"), [(True, 2), (False, 1)])
def test_sessions_run_side_by_side_where_a_provider_can(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, side_by_side: bool, most: int
) -> None:
    provider = dataclasses.replace(providers.PROVIDERS["cuda"], side_by_side=side_by_side)
    monkeypatch.setitem(providers.PROVIDERS, "cuda", provider)
    opening(monkeypatch, OnCuda)
    monkeypatch.setattr(OnCuda, "most_at_once", 0)
    backends = [loaded(bundle) for _ in range(2)]
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda backend: [backend.infer() for _ in range(5)], backends))
    assert OnCuda.most_at_once == most


def test_cards_that_differ_have_no_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", tmp_path)
    assert hardware.nvidia_model() == ""
    for bus, model in (("01", "NVIDIA L4"), ("02", "NVIDIA L4")):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        (tmp_path / "gpus" / bus / "information").write_text(f"Model: {model}\n")
    assert hardware.nvidia_model() == "NVIDIA L4"
    (tmp_path / "gpus" / "02" / "information").write_text("Model: NVIDIA T4\n")
    assert hardware.nvidia_model() == ""


def test_a_card_without_vulkan_is_told_from_no_card(tmp_path: Path) -> None:
    (tmp_path / "gpus" / "01").mkdir(parents=True)
    (tmp_path / "gpus" / "01" / "information").write_text(f"Model: {CARD}\n")
    script = (
        "import sys, pathlib, edgevid.hardware as hardware\n"
        "hardware.NVIDIA_DRIVER = pathlib.Path(sys.argv[1])\n"
        "from edgevid.backends.litert import usable\n"
        "found = usable('gpu'); print(found.reason, found.remedy, sep='\\n')"
    )
    hidden = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **hidden},
    )
    reason, remedy = ended.stdout.splitlines()
    if "is missing" not in reason:  # without the loader that is the first thing to mend
        assert f"the kernel's driver has an {CARD}, and Vulkan does not" in reason
        assert "NVIDIA_DRIVER_CAPABILITIES=all" in remedy


def test_the_probe_model_is_one_that_onnx_runtime_runs() -> None:
    from edgevid.backends.onnx_probe import SHAPE, smallest_model

    session = REAL_SESSION(smallest_model(), providers=["CPUExecutionProvider"])
    image = np.array([[-1, 2, -3, 4]], np.float32)
    assert image.shape == SHAPE
    np.testing.assert_array_equal(session.run(None, {"image": image})[0], np.maximum(image, 0))

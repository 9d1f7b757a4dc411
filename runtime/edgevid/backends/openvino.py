"""OpenVINO: ``.onnx`` and ``.tflite`` variants on Intel and ARM CPUs, Intel GPUs and NPUs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgevid.backends.base import Backend, BackendOptions, Usable
from edgevid.backends.cache import cache_folder
from edgevid.backends.proof import Proof, check_proof
from edgevid.backends.providers import TWO_OPENVINOS, brought_openvino
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, first_line
from edgevid.hardware import no_render_node
from edgevid.manifest import Variant

__all__ = ["load", "usable"]

REMEDIES = {
    "gpu": "an Intel GPU needs its compute runtime (Debian: apt install intel-opencl-icd)",
    "npu": "an Intel NPU needs its driver, intel-npu-driver",
}
# What a layer of a compiled model is called where the time goes; OpenVINO's own names.
HEAVY_LAYERS = frozenset({"Convolution", "FullyConnected", "MatMul", "Deconvolution", "GroupConvolution", "Pooling"})
WORDS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "int8"}
NO_COMPUTATION = frozenset({"Input", "Output", "Const", "Parameter", "Result"})


def usable(device: str) -> Usable:
    """Return whether OpenVINO can use a device of this machine."""
    core = ov.Core()
    found = [name for name in core.available_devices if name.partition(".")[0] == device.upper()]
    if not found:
        if device == "gpu" and (problem := no_render_node()):
            return Usable(device, *problem)
        return Usable(device, f"OpenVINO finds only {', '.join(core.available_devices)}", REMEDIES.get(device, ""))
    return Usable(device, hardware=str(core.get_property(found[0], "FULL_DEVICE_NAME")))


class OpenVinoBackend(Backend):
    """A variant that OpenVINO compiled for one device.

    What is not int8 computes in float32, in float16 for fp16 variants on a GPU or NPU; another precision is a choice:
    ``INFERENCE_PRECISION_HINT=bf16`` in the engine options.

    Raises:
        BackendError: there is no such device, or the model cannot be compiled for it.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        if brought_openvino():
            raise BackendError(TWO_OPENVINOS)
        path, core = bundle.verified_file(variant), ov.Core()
        device = _device(core, options)
        if folder := cache_folder("openvino"):
            core.set_property({"CACHE_DIR": folder})
        try:
            model = core.read_model(str(path))
            model.reshape(list(self._input.shape))
        except Exception as error:
            remedy = "the onnx variants are for it" if variant.format == "tflite" else "convert the model again"
            raise BackendError(f"{path}: OpenVINO cannot read it: {_reason(error)}; {remedy}") from error
        properties = _properties(variant, options)
        try:
            compiled = core.compile_model(model, device, properties)
        except Exception as error:
            given = ", ".join(f"{key}={value}" for key, value in options.engine_options.items())
            with_options = f", with {given}" if given else ""
            raise BackendError(
                f"{path}: OpenVINO cannot compile it for {device}{with_options}: {_reason(error)}"
            ) from error
        self.proof = _proof(core, compiled, options.device_kind)
        check_proof(self.proof, f"OpenVINO on {options.device}", options.allow_partial)
        if options.device_kind == "cpu":
            self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))  # no more than there are cores
        self._request: Any = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self._input, shared_memory=True))
        self._output = np.zeros((self.batch, *variant.output.shape[1:]), variant.output.dtype)
        self._request.set_output_tensor(ov.Tensor(self._output, shared_memory=True))

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (batch, classes)."""
        try:
            self._request.infer(share_outputs=True)
        except Exception as error:
            raise BackendError(f"OpenVINO failed: {_reason(error)}") from error
        return self._output

    def close(self) -> None:
        """Release the compiled model."""
        self._request = None


load = OpenVinoBackend


def _device(core: Any, options: BackendOptions) -> str:
    """Return OpenVINO's name of the device.

    Raises:
        BackendError: it finds none such.
    """
    kind, which = options.device_kind.upper(), options.which_device
    wanted = f"{kind}.{which}" if which else kind
    found = core.available_devices
    if not any(name == wanted or name.partition(".")[0] == wanted for name in found):
        remedy = REMEDIES.get(options.device_kind, "use another --device")
        raise BackendError(f"device {options.device!r}: OpenVINO finds only {', '.join(found)}; {remedy}")
    return wanted


def _properties(variant: Variant, options: BackendOptions) -> dict[str, Any]:
    half = variant.precision == "fp16" and options.device_kind != "cpu"
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
    }
    if options.device_kind == "cpu":
        properties |= {"INFERENCE_NUM_THREADS": options.thread_count, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    return {**properties, **options.engine_options}


def _proof(core: Any, compiled: Any, device: str) -> Proof:
    """Return the proof, from the devices that execute and the layers of the compiled model."""
    devices = [str(name) for name in compiled.get_property("EXECUTION_DEVICES")]
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ordered_ops()]
    kinds = Counter(_text(layer["layerType"]) for layer in layers)
    precisions = Counter(
        WORDS.get(_text(layer["runtimePrecision"]), _text(layer["runtimePrecision"]))
        for layer in layers
        if _text(layer["layerType"]) in HEAVY_LAYERS
    )
    count = sum(number for kind, number in kinds.items() if kind not in NO_COMPUTATION)
    there = all(name.partition(".")[0].lower() == device for name in devices)
    return Proof(
        device=device,
        precision=" and ".join(precision for precision, _ in precisions.most_common()) or "unknown",
        places={"+".join(devices): count},
        on_device=count if there else 0,
        elsewhere={},
        hardware=str(core.get_property(devices[0], "FULL_DEVICE_NAME")),
    )


def _text(value: Any) -> str:
    """Return a runtime attribute as text; older versions wrap it."""
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's account, which is the reason; those before say where in its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(Exception(lines[-1])) if lines else type(error).__name__

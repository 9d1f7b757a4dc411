"""LiteRT, the successor of tflite-runtime: ``.tflite`` variants on the CPU, on a GPU, on an NPU, and on delegates."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.backends.base import Backend, BackendOptions, Usable
from edgevid.backends.interpreter import InterpreterBackend, edge_tpu
from edgevid.backends.proof import Proof, check_proof, counted_kinds
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, UsageError, first_line
from edgevid.hardware import no_render_node, nvidia_model
from edgevid.manifest import Variant
from edgevid.quiet import MISSING_LIBRARY, captured, quiet_at_exit

__all__ = ["load", "usable"]

# What LiteRT logs: it tells by no other way which device it took, and why it took none.
ADAPTER = re.compile(r"Selected adapter: (?P<name>.*?), arch=.*adapterType=(?P<kind>.*)")
NO_ADAPTER, NO_PLUGIN = "No adapters found", "No compiler plugin found"
GPU_REMEDY = "install the GPU's Vulkan driver and its loader (Debian: apt install libvulkan1 mesa-vulkan-drivers)"
NVIDIA_REMEDY = (
    "install the driver's Vulkan part (Debian: nvidia-vulkan-icd); in a container, set NVIDIA_DRIVER_CAPABILITIES=all"
)
NPU_REMEDY = "install the NPU vendor's runtime, or name its plugins with --engine-option dispatch_library_path=FOLDER"
OPTIONS = {"gpu": frozenset[str](), "npu": frozenset({"dispatch_library_path", "compiler_plugin_path"})}


def load(bundle: Bundle, variant: Variant, options: BackendOptions) -> Backend:
    """Load a ``.tflite`` variant on the device asked for.

    Raises:
        BackendError: it cannot be loaded, or does not run there.
    """
    compiled = options.device_kind in OPTIONS and not options.delegate
    return (CompiledBackend if compiled else LiteRTBackend)(bundle, variant, options)


def usable(device: str) -> Usable:
    """Return whether LiteRT can use a device of this machine."""
    if device == "edgetpu":
        return edge_tpu()
    if device not in OPTIONS:
        LiteRTBackend.interpreter_module()
        return Usable(device)
    from edgevid.backends.litert_probe import smallest_model

    content, options = smallest_model(), BackendOptions(device)
    with captured(1, 2) as log:
        _, failure = _compiled(lambda model, **how: model.from_buffer(content, **how), options, exact=True)
    if failure:
        return Usable(device, *_why_not(device, failure, log.text))
    hardware, emulated = _adapter(log.text)
    return Usable(device, hardware=f"{hardware}, emulated on the CPU" if emulated else hardware)


class LiteRTBackend(InterpreterBackend):
    """A ``.tflite`` variant in LiteRT's interpreter."""

    name = "litert"
    engine = "LiteRT"

    @classmethod
    def interpreter_module(cls) -> Any:
        """Import and return ``ai_edge_litert.interpreter``."""
        from ai_edge_litert import interpreter

        return interpreter


class CompiledBackend(Backend):
    """A ``.tflite`` variant that LiteRT compiles for a GPU (through WebGPU) or an NPU (through a vendor's plugin).

    On a GPU it computes in float32, but for fp16 variants, which compute in float16.

    Raises:
        BackendError: there is no such device, or it does not take every operator.
    """

    name = "litert"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        if options.batch > 1:
            raise UsageError(f"batch {options.batch}: litert takes one frame at a time on {options.device_kind}")
        if options.which_device:
            raise UsageError(
                f"device {options.device!r}: litert takes the one that the driver gives; leave the number out"
            )
        super().__init__(bundle, variant, options)
        path, exact = bundle.verified_file(variant), variant.precision != "fp16"
        self._dtype, self._classes = np.dtype(variant.output.dtype), int(np.prod(variant.output.shape))
        with captured(1, 2) as log:
            self._model, failure = _compiled(lambda model, **how: model.from_file(str(path), **how), options, exact)
            if not failure:
                self._inputs = self._model.create_input_buffers(0)
                self._outputs = self._model.create_output_buffers(0)
                self.infer()  # the first one logs, too
        no_plugin = options.device_kind == "npu" and NO_PLUGIN in log.text  # then LiteRT runs all of it on the CPU
        if failure or no_plugin:
            raise BackendError("; ".join(_why_not(options.device_kind, failure, log.text, path)))
        complete = self._model.is_fully_accelerated()
        self.proof = _proof(path, variant, options.device_kind, complete, log.text)
        check_proof(self.proof, f"LiteRT on {options.device}", options.allow_partial)

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (batch, classes)."""
        try:
            self._inputs[0].write(self._input)
            self._model.run_by_index(0, self._inputs, self._outputs)
            output: npt.NDArray[Any] = self._outputs[0].read(self._classes, self._dtype)
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"LiteRT failed: {first_line(error)}") from error
        return output.reshape(1, -1)

    def close(self) -> None:
        """Release the device."""
        with captured(1, 2):  # LiteRT says line by line that it does
            self._inputs = self._outputs = []
            self._model = None


def _compiled(opened: Callable[..., Any], options: BackendOptions, exact: bool) -> tuple[Any, str]:
    """Return ``opened(CompiledModel, ...)`` for a device, and why that failed; the one or the other.

    ``exact`` keeps a GPU from rounding to float16. An error's frames would keep the device, and LiteRT's log of its
    release would come later than it is captured: so no error leaves this function.
    """
    import ai_edge_litert
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.environment import Environment, EnvironmentOptions
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    known = OPTIONS[options.device_kind]
    if unknown := sorted(set(options.engine_options) - known):
        expected = ", ".join(sorted(known)) or "none"
        raise UsageError(f"--engine-option {', '.join(unknown)}: litert knows {expected} on {options.device_kind}")
    accelerators = {"gpu": HardwareAccelerator.GPU, "npu": HardwareAccelerator.NPU}[options.device_kind]
    if options.allow_partial:
        accelerators |= HardwareAccelerator.CPU
    folder = str(Path(str(ai_edge_litert.__file__)).parent)
    quiet_at_exit()
    try:
        model = opened(
            CompiledModel,
            environment=Environment.create(options=EnvironmentOptions(folder, **dict(options.engine_options))),
            options=Options(
                hardware_accelerators=accelerators,
                cpu_options=CpuOptions(num_threads=options.thread_count),
                gpu_options=GpuOptions(enforce_f32=exact),
            ),
        )
    except (RuntimeError, ValueError) as error:
        return None, str(error) or "no reason given"
    return model, ""


def _proof(path: Path, variant: Variant, device: str, complete: bool, log: str) -> Proof:
    """Return the proof; of a model that is not all on the device LiteRT does not say what is."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    without_delegates = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=without_delegates)
    kinds = [operator["op_name"] for operator in interpreter._get_ops_details()]
    hardware, emulated = _adapter(log)
    precision = "float16" if variant.precision == "fp16" else "float32"
    return Proof(
        device=device,
        precision=precision if device == "gpu" else variant.precision,
        places={device.upper() if complete else f"{device.upper()} and CPU, LiteRT does not say which": len(kinds)},
        on_device=len(kinds) if complete else None,
        elsewhere={} if complete else counted_kinds(kinds),
        hardware=hardware,
        emulated=emulated,
    )


def _adapter(log: str) -> tuple[str, bool]:
    """Return the name of the GPU that LiteRT took, and whether it is software."""
    found = ADAPTER.search(log)
    return (found["name"], found["kind"].strip().startswith("CPU")) if found else ("", False)


def _no_vulkan() -> tuple[str, str]:
    """Return why Vulkan's loader finds no GPU, if that can be told, and what to do about it."""
    if model := nvidia_model():  # its driver needs no render node
        return f"the kernel's driver has an {model}, and Vulkan does not", NVIDIA_REMEDY
    return no_render_node() or ("", GPU_REMEDY)


def _why_not(device: str, failure: str, log: str, path: Path | None = None) -> tuple[str, str]:
    """Return why a device cannot be used, for the model at ``path`` if it is about one, and what to do about it."""
    missing = dict.fromkeys(MISSING_LIBRARY.findall(log))
    if device == "npu":
        names = ", ".join(name for name in missing if "vulkan" not in name.lower() and "opencl" not in name.lower())
        return f"device 'npu': LiteRT has no plugin that loads{f' ({names} is missing)' if names else ''}", NPU_REMEDY
    if NO_ADAPTER in log:
        names = ", ".join(name for name in missing if "vulkan" in name.lower())
        reason, remedy = (f"{names} is missing", GPU_REMEDY) if names else _no_vulkan()
        return f"device 'gpu': LiteRT finds no GPU{f' ({reason})' if reason else ''}", remedy
    lines = [line.strip("└ ") for line in failure.splitlines() if line.strip()]
    return f"device 'gpu': LiteRT cannot compile {path or 'a model'}: {lines[-1]}", "use --device cpu"

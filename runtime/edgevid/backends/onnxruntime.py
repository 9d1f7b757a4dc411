"""ONNX Runtime: ``.onnx`` variants on the CPU, and on whatever its execution providers reach."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgevid.backends.base import Backend, BackendOptions, Usable
from edgevid.backends.onnx_probe import smallest_model
from edgevid.backends.proof import NOT_TOLD, Proof, check_proof, counted_kinds
from edgevid.backends.providers import NVIDIA, PROVIDERS, add_provider, choose_provider, offers
from edgevid.bundle import Bundle
from edgevid.errors import BackendError, UsageError, first_line
from edgevid.hardware import has_exact_int8, nvidia_model
from edgevid.manifest import Variant
from edgevid.quiet import captured, missing_libraries

__all__ = ["load", "open_session", "operator_kinds", "usable"]

LOG_ERRORS_ONLY = 3
# Spinning threads take the cores that decoding and preprocessing need.
NO_SPINNING = ("session.intra_op.allow_spinning", "0")
# Kernels that do not saturate; where the CPU does not saturate anyway, they are less than half as fast.
EXACT_KERNELS = ("session.x64quantprecision", "1")
RECORD_PROVIDERS = ("session.record_ep_graph_assignment_info", "1")
CPU = PROVIDERS["cpu"].registered_name
JOINED = frozenset({"QuantizeLinear", "DequantizeLinear"})
DETOUR = re.compile(
    r'.*\[ONNXRuntimeError\] : \d+ : \w+ : |\S+\.(?:h|cc):\d+ \S+ |Failed to parse provider option "\w+": ', re.DOTALL
)
CANNOT_START = "provider {!r}: it cannot start: {}; {}"
EXACT_PROVIDERS = frozenset({"cpu", "cuda", "openvino", "xnnpack"})  # with the options that they get by default
FLOAT_PROVIDERS = frozenset({"cuda"})  # they have no integer convolutions: they dequantize, and compute in float32


def session_options(threads: int) -> Any:
    """Return options for a session on this many threads, with exact integer arithmetic on every CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    for entry in [NO_SPINNING] if has_exact_int8() else [NO_SPINNING, EXACT_KERNELS]:
        options.add_session_config_entry(*entry)
    return options


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """Open an ``.onnx`` file on the CPU, on this many threads, with exact integer arithmetic on every CPU.

    Raises:
        Exception: of one of ONNX Runtime's many kinds; it cannot be loaded.
    """
    options = session_options(threads)
    options.add_session_config_entry(*RECORD_PROVIDERS)
    return ort.InferenceSession(str(path), options, providers=[CPU])


def open_with(model: str | bytes, settings: Any, chosen: list[Any], name: str) -> ort.InferenceSession:
    """Open a model, a path or its bytes, with a provider, which is then in the session.

    Args:
        model: the path of an ``.onnx`` file, or its content.
        settings: the session's options.
        chosen: the session's ``providers``, as of :func:`add_provider`.
        name: the provider's name in the table.

    Raises:
        BackendError: the model cannot be loaded, or the provider cannot start: left alone, ONNX Runtime would tell that
            on stdout, and go on without it.
    """
    provider = PROVIDERS[name]
    try:
        with captured(1, 2) as log:
            if chosen and provider.nodes == NVIDIA and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA and cuDNN from NVIDIA's Python packages; it does not look there by itself
            session = ort.InferenceSession(model, settings, providers=chosen or None, enable_fallback=0)
    except Exception as error:
        if chosen and (missing := missing_libraries(log.text)):
            raise BackendError(CANNOT_START.format(name, missing, provider.libraries)) from error
        if chosen and provider.registered_name in str(error):  # it names itself; what a model lacks it does not
            raise BackendError(CANNOT_START.format(name, _reason(error), "use another --device")) from error
        raise BackendError(f"{model!s:.300}: ONNX Runtime cannot load it: {_reason(error)}") from error
    if chosen and provider.registered_name not in session.get_providers():
        reason = missing_libraries(log.text) or "ONNX Runtime does not say why"
        raise BackendError(CANNOT_START.format(name, reason, provider.libraries))
    return session


def _reason(error: Exception) -> str:
    """Return what ONNX Runtime says in an error, without where in its own source and over which detour."""
    return first_line(Exception(DETOUR.sub("", str(error).partition(" ; ")[0]))).rstrip(".")


def operator_kinds(session: Any) -> set[str]:
    """Return the kinds of operators in a session of :func:`open_session`."""
    return {node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}


def usable(device: str) -> Usable:
    """Return whether an execution provider that is installed can use a device of this machine."""
    offering, broken = [], []
    for name, provider in PROVIDERS.items():
        if device in provider.devices:
            try:
                if offers(ort, name, device):
                    offering.append(_tried(name))
            except BackendError as error:  # a broken one is no reason against the others
                broken.append(str(error))
    if offering:
        others = [error.partition("; ")[0] for error in broken]
        return Usable(device, hardware="; ".join([f"provider {', '.join(offering)}", *others]))
    if broken:
        return Usable(device, *broken[0].split("; ", 1))
    try:
        choose_provider(ort, BackendOptions(device))
    except BackendError as error:
        return Usable(device, *str(error).split("; ", 1))
    raise AssertionError("what no provider offers cannot be chosen")


def _tried(name: str) -> str:
    """Return a provider that offers a device, with what is known of that.

    Raises:
        BackendError: it is for NVIDIA's cards, and does not start.
    """
    if PROVIDERS[name].nodes != NVIDIA:  # others that are built in would start on the CPU as well
        return name if PROVIDERS[name].plugged_in or name == "cpu" else f"{name} (built in, not tried)"
    open_with(smallest_model(), ort.SessionOptions(), [PROVIDERS[name].registered_name], name)
    return f"{name} ({nvidia_model() or 'built in'})"


class OnnxRuntimeBackend(Backend):
    """An ``.onnx`` variant in an ONNX Runtime session; on the CPU its input and output stay in one place.

    Raises:
        UsageError: the provider is unknown.
        BackendError: the model cannot be loaded, or not on that device.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, variant: Variant, options: BackendOptions) -> None:
        super().__init__(bundle, variant, options)
        path, provider = bundle.verified_file(variant), choose_provider(ort, options)
        if provider == "cpu" and options.engine_options:
            raise UsageError(f"--engine-option {', '.join(options.engine_options)}: the provider 'cpu' has none")
        settings = session_options(self.threads)
        settings.add_session_config_entry(*RECORD_PROVIDERS)
        chosen = add_provider(ort, settings, provider, options, variant)
        self._session = open_with(str(path), settings, chosen, provider)
        self.proof = _proof(self._session, variant, options, provider)
        check_proof(self.proof, f"ONNX Runtime's provider {provider!r} on {options.device}", options.allow_partial)
        (image,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        self._names = image.name, [output.name]
        # In place on the CPU; other providers copy the input to where they compute, once, when it is bound.
        self._binding = self._bound(variant) if provider == "cpu" else None
        self._turn = nullcontext() if PROVIDERS[provider].side_by_side else _ONE_AT_A_TIME

    def _bound(self, variant: Variant) -> Any:
        image, (output,) = self._names
        self._output = np.zeros((self.batch, *variant.output.shape[1:]), variant.output.dtype)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(image, ort.OrtValue.ortvalue_from_numpy(self._input))
        binding.bind_ortvalue_output(output, ort.OrtValue.ortvalue_from_numpy(self._output))
        return binding

    def infer(self) -> npt.NDArray[Any]:
        """Run the model on :attr:`input` and return its raw output, of shape (batch, classes)."""
        image, outputs = self._names
        try:
            if self._binding is None:
                with self._turn:
                    self._output = self._session.run(outputs, {image: self._input})[0]
            else:
                self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
        return self._output

    def close(self) -> None:
        """Release the session."""
        self._binding = self._session = None


_ONE_AT_A_TIME = Lock()
load = OnnxRuntimeBackend


def _proof(session: Any, variant: Variant, options: BackendOptions, name: str) -> Proof:
    """Return the proof, from ONNX Runtime's record of which provider took which operators.

    The record is of the graph before operators are joined; quantize and dequantize nodes do not count where they vanish
    then.
    """
    provider = PROVIDERS[name].registered_name
    if not hasattr(session, "get_provider_graph_assignment_info"):
        if provider == CPU:
            return Proof("cpu", NOT_TOLD, {}, None, {})
        raise BackendError(f"ONNX Runtime {ort.__version__} cannot prove what {provider} runs; install 1.24 or newer")
    uncounted = frozenset() if name in FLOAT_PROVIDERS else JOINED
    parts: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        kinds = (node.op_type for node in part.get_nodes())
        parts.setdefault(part.ep_name, []).extend(kind for kind in kinds if kind not in uncounted)
    mine = parts.get(provider, [])
    told = name in EXACT_PROVIDERS and not options.engine_options
    return Proof(
        device=options.device_kind,
        precision=_precision(variant, name) if told else NOT_TOLD,
        places={part.removesuffix("ExecutionProvider"): len(kinds) for part, kinds in parts.items() if kinds},
        on_device=len(mine),
        elsewhere=counted_kinds(kind for part, kinds in parts.items() if part != provider for kind in kinds),
        hardware=nvidia_model() if PROVIDERS[name].nodes == NVIDIA else "",
    )


def _precision(variant: Variant, name: str) -> str:
    """Return what compute-heavy operators compute in, of providers that round no further than the variant does."""
    if variant.precision != "int8" or name in FLOAT_PROVIDERS:
        return "float32"
    return "int8 and float32" if counted_kinds(variant.float_operators) else "int8"

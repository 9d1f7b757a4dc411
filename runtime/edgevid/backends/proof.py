"""Where the operators of a loaded variant run, as its engine reports it: what a backend may claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgevid.errors import BackendError

__all__ = ["COMPUTE_HEAVY", "NOT_TOLD", "Proof", "check_proof", "counted_kinds"]

# Where the time of a CNN goes, by the names of TFLite, ONNX and ONNX Runtime's own integer operators.
COMPUTE_HEAVY = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"}
    | {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"}
    | {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"}
)


NOT_TOLD = "not told"


@dataclass(frozen=True)
class Proof:
    """Where a variant's operators run.

    Attributes:
        device: ``cpu``, ``gpu``, ``npu`` or ``edgetpu``; ``delegate`` for an external delegate of unknown kind.
        precision: what the compute-heavy operators compute in there, such as ``int8`` or ``float32``; ``not told``
            where the engine chooses it and does not say.
        places: how many operators run where, such as ``{"XNNPACK": 60, "TFLite kernels": 1}``.
        on_device: how many of them run on the device; None if the engine does not say how many.
        elsewhere: the compute-heavy operators that do not: how many of each kind.
        hardware: the device's own name, as its driver gives it.
        emulated: whether the device is software that runs on the CPU.
    """

    device: str
    precision: str
    places: Mapping[str, int]
    on_device: int | None
    elsewhere: Mapping[str, int]
    hardware: str = ""
    emulated: bool = False

    @property
    def operators(self) -> int:
        """How many operators there are."""
        return sum(self.places.values())

    @property
    def share(self) -> float | None:
        """The share of operators on the device, from 0 to 1; None if the engine does not say."""
        return None if self.on_device is None else self.on_device / max(1, self.operators)

    def __str__(self) -> str:
        name = f" ({self.hardware}{', emulated on the CPU' if self.emulated else ''})" if self.hardware else ""
        places = ", ".join(f"{count} in {place}" for place, count in self.places.items())
        return f"{self.device}{name}, {self.precision}{f', operators: {places}' if places else ''}"


def check_proof(proof: Proof, what: str, allow_partial: bool) -> None:
    """Refuse a device that has not every compute-heavy operator, unless that was allowed.

    Args:
        proof: of what was loaded.
        what: what was to run them, for the error.
        allow_partial: let the rest run elsewhere.

    Raises:
        BackendError: compute-heavy operators, or all operators, run elsewhere.
    """
    if proof.on_device == 0:
        raise BackendError(
            f"{what} runs none of the {proof.operators} operators, which is no acceleration; run them on the CPU"
        )
    if proof.elsewhere and not allow_partial:
        kinds = ", ".join(f"{count} {kind}" for kind, count in proof.elsewhere.items())
        raise BackendError(
            f"{what} leaves compute-heavy operators to the CPU: {kinds}; --allow-partial accepts that, "
            "or run all of them on the CPU"
        )


def counted_kinds(kinds: Iterable[str]) -> dict[str, int]:
    """Return how many of each compute-heavy kind there are, the most first."""
    counts: dict[str, int] = {}
    for kind in kinds:
        if kind in COMPUTE_HEAVY:
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))

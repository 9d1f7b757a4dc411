"""What a classifier's scores are: told by what they are over many inputs, and by the operators they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError, UsageError
from edgevid.manifest import Activation

__all__ = ["SUM_SLACK", "Operator", "activation_of"]

# Operators by their names in TensorFlow, ONNX and TFLite.
# What may stand between the last activation and the output, and computes nothing.
TRANSPARENT = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "NoOp", "ExpandDims", "Transpose", "Flatten", "Unsqueeze"}
    | {"QuantizeLinear", "DequantizeLinear", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CAST", "QUANTIZE"}
    | {"DEQUANTIZE"}
)
# What joins, weighs or averages scores.
JOINING = frozenset(
    {
        "Add",
        "AddN",
        "AddV2",
        "AvgPool",
        "BiasAdd",
        "Concat",
        "ConcatV2",
        "Div",
        "GatherV2",
        "Max",
        "Mean",
        "Mul",
        "Pack",
    }
    | {
        "Pack",
        "Pad",
        "PadV2",
        "RealDiv",
        "Slice",
        "Split",
        "StridedSlice",
        "Sub",
        "Sum",
        "Unpack",
        "Gather",
        "ReduceMax",
    }
    | {"GlobalAveragePool", "ReduceMean", "ReduceSum", "ADD", "ADD_N", "AVERAGE_POOL_2D", "CONCATENATION", "DIV"}
    | {"GATHER", "MEAN", "MUL", "PACK", "PAD", "REDUCE_MAX", "SLICE", "SPLIT", "STRIDED_SLICE", "SUB", "SUM"}
)
BOUNDING = frozenset(
    {"ClipByValue", "Maximum", "Minimum", "Relu6", "Clip", "HardSigmoid", "MAXIMUM", "MINIMUM", "RELU6", "RELU_0_TO_1"}
)
LINEAR = frozenset(
    {"BatchMatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "Einsum", "FusedBatchNormV3", "MatMul"}
    | {"BatchNormalization", "Conv", "Gemm", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
)
SOFTMAX, SIGMOID = frozenset({"Softmax", "SOFTMAX"}), frozenset({"Sigmoid", "LOGISTIC"})
SLACK, SUM_SLACK = 1e-5, 2e-3
VARIED = 1e-4
MOSTLY = 0.8  # of the inputs; wild noise may take a sound model beyond all numbers


class Operator(NamedTuple):
    """An operator of a graph: its kind, and the names of what it reads."""

    kind: str
    inputs: Sequence[str]


def activation_of(
    path: Path,
    operators: Mapping[str, Operator],
    output: str,
    answers: npt.NDArray[np.float32],
    sum_slack: float = SUM_SLACK,
) -> Activation:
    """Return what the last layer of a classifier makes of its logits.

    Args:
        path: the model, for messages.
        operators: the graph's, each under the name of what it gives; no constants.
        output: the name of the last.
        answers: to many inputs, float32 (inputs, classes).
        sum_slack: how far from 1 a sum of probabilities may be: far, where they were rounded to 8 bits.

    Raises:
        UsageError: neither the answers nor the operators decide it.
        ModelError: the answers say nothing.
    """
    last, kinds = _origins(operators, output)
    finite = np.isfinite(answers).all(axis=1)
    if finite.mean() < MOSTLY:
        raise ModelError(
            f"{path}: it answers with NaN or infinity to ordinary pictures: its weights are broken, as after a "
            "training that diverged; train it again, or convert an earlier checkpoint"
        )
    answers = answers[finite]
    single, sums = answers.shape[1] == 1, answers.sum(axis=1)
    if single and last in SOFTMAX:
        raise ModelError(
            f"{path}: its last layer is a softmax of one unit, which answers 1 whatever it sees; train it with a "
            "sigmoid, or with two units"
        )
    within = bool((answers >= -SLACK).all() and (answers <= 1 + SLACK).all())
    to_one = within and not single and bool((np.abs(sums - 1) < sum_slack).all())
    if last in SIGMOID and within:
        return "sigmoid"
    if last in SOFTMAX and to_one:
        return "softmax"
    if not within and (not kinds or kinds - SIGMOID - SOFTMAX):
        return "logits"
    varied = bool((np.ptp(answers, axis=0) > VARIED).any())
    if to_one and varied and not kinds & LINEAR:
        return "softmax"
    if within and not to_one and (kinds <= SIGMOID or (varied and not kinds & (LINEAR | SOFTMAX))):
        return "sigmoid"
    if within and not to_one and kinds & BOUNDING:
        return "sigmoid"
    raise UsageError(
        f"{path}: what its scores are cannot be told: they come from {', '.join(sorted({last, *kinds}))}, lie between "
        f"{answers.min():.3g} and {answers.max():.3g}, and sum to {sums.min():.3g} to {sums.max():.3g}; give "
        "--activation softmax (probabilities of which one is right), sigmoid (of which several may be) or logits (no "
        "probabilities)"
    )


def _origins(operators: Mapping[str, Operator], output: str) -> tuple[str, set[str]]:
    """Return the last operator that computes, and those that the scores come from, by way of what joins them."""
    if output not in operators:
        return "an unknown operator", set()
    name = output
    while operators[name].kind in TRANSPARENT and operators[name].inputs and operators[name].inputs[0] in operators:
        name = operators[name].inputs[0]
    found, waiting, seen = set(), [name], {name}
    while waiting:
        kind, inputs = operators[waiting.pop()]
        if kind not in JOINING | TRANSPARENT:
            found.add(kind)
        if kind in JOINING | TRANSPARENT | BOUNDING:
            before = [each for each in inputs if each in operators and each not in seen]
            seen.update(before)
            waiting += before
    return operators[name].kind, found

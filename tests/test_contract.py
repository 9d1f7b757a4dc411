"""One contract for every backend, device and provider, each in a process of its own: real engines, real files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevid.bundle import Bundle
from edgevid.manifest import VARIANT_IDS
from edgevid.sources import open_source
from tests.conftest import COLORS, LABELS, Outcome, picture

ROOT = Path(__file__).parent.parent
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
PICTURES = [picture(color, seed=seed) for color in COLORS for seed in (5, 77)]
REFERENCE = "litert"


@dataclass(frozen=True)
class Target:
    """A row of the contract: a backend with its options, what it reads, and how near to the reference it must be."""

    backend: str
    formats: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    tolerance: float = 1e-4


TARGETS = {
    "litert": Target("litert", ("tflite",)),
    "litert-gpu": Target("litert", ("tflite",), {"device": "gpu"}, "gpu", 1e-3),
    "tflite": Target("tflite", ("tflite",)),
    "onnxruntime": Target("onnxruntime", ("onnx",)),
    "onnxruntime-openvino": Target("onnxruntime", ("onnx",), {"provider": "openvino"}),
    "openvino": Target("openvino", ("onnx", "tflite")),
    "null": Target("null", ("tflite", "onnx")),
}
MARKS: dict[str, list[pytest.MarkDecorator]] = {
    "litert-gpu": [pytest.mark.needs_software_gpu],
    "tflite": [pytest.mark.needs_tflite_runtime, pytest.mark.slow],
    "onnxruntime-openvino": [pytest.mark.needs_plugin_providers, pytest.mark.needs_intel_cpu],
}
ALL = [pytest.param(name, marks=MARKS.get(name, ())) for name in TARGETS]
REAL = [row for row in ALL if row.values != ("null",)]
ON_CPU = [row for row in REAL if row.values != ("litert-gpu",)]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def old_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of an environment with tflite-runtime in it, which has no room beside NumPy 2."""
    folder = tmp_path_factory.mktemp("tflite-runtime")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[tflite-runtime]"], check=True)
    return python


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a target over variants of a bundle in a process of its own; the contract's answers are kept."""
    pictures = tmp_path_factory.mktemp("contract") / "pictures.npy"
    np.save(pictures, np.stack(PICTURES))
    known: dict[str, dict[str, Any]] = {}

    def run_target(name: str, bundle: Path | None = None, variants: list[str] | None = None, **more: Any) -> Any:
        target, key = TARGETS[name], json.dumps([name, str(bundle), variants, more])
        if key in known:
            return known[key]
        python = request.getfixturevalue("old_runtime") if name == "tflite" else sys.executable
        asked = {
            "bundle": str(bundle or bundle_path),
            "backend": target.backend,
            "options": {"threads": 1, **target.options, **more.pop("options", {})},
            "variants": variants or [variant for variant in VARIANT_IDS if variant.split("-")[0] in target.formats],
            "pictures": str(pictures),
            **more,
        }
        ended = subprocess.run(
            [python, "-m", "tests.contract_child"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=software_gpu(tmp_path_factory) if name == "litert-gpu" else None,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == "", "engines are kept quiet"
        known[key] = json.loads(ended.stdout)
        return known[key]

    return run_target


def software_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which Vulkan is SwiftShader, a GPU in software."""
    folder = tmp_path_factory.mktemp("runtime-dir")
    icd = str(SWIFTSHADER)
    return {**os.environ, "VK_ICD_FILENAMES": icd, "VK_DRIVER_FILES": icd, "XDG_RUNTIME_DIR": str(folder)}


def edgevid(*arguments: object, env: dict[str, str] | None = None, python: str | Path = sys.executable) -> Outcome:
    """Run the command line in a process of its own."""
    command = [str(python), "-m", "edgevid", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def answers(result: dict[str, Any]) -> Any:
    return np.array(result["probabilities"], np.float32)


@pytest.mark.parametrize("name", ALL)
def test_it_answers_with_probabilities_the_same_each_time(run: Run, name: str) -> None:
    target, results = TARGETS[name], run(name)
    assert results
    for variant, result in results.items():
        if name == "tflite" and "error" in result:  # what is newer than it; it depends on the model
            assert "tflite-runtime cannot load it" in result["error"]
            assert "convert the model again with --target tflite-runtime" in result["error"]
            continue
        assert "error" not in result, (variant, result)
        probabilities = answers(result)
        assert probabilities.shape == (len(PICTURES), len(LABELS))
        assert result["dtype"] == "float32"
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=0.02)
        assert result["repeatable"], variant
        assert (result["name"], result["device"], result["threads"]) == (target.backend, target.device, 1)


@pytest.mark.parametrize("name", REAL)
def test_every_variant_tells_the_colours_apart(run: Run, name: str) -> None:
    expected = [index for index in range(len(LABELS)) for _ in range(2)]
    for variant, result in run(name).items():
        if "error" not in result:
            assert answers(result).argmax(axis=1).tolist() == expected, variant


@pytest.mark.parametrize("name", REAL)
def test_engines_agree_on_float32(run: Run, name: str) -> None:
    reference = answers(run(REFERENCE)["tflite-fp32"])
    for variant in (f"{kind}-fp32" for kind in TARGETS[name].formats):
        mine = answers(run(name)[variant])
        np.testing.assert_allclose(mine, reference, atol=TARGETS[name].tolerance)
        assert (mine.argmax(axis=1) == reference.argmax(axis=1)).all()


@pytest.mark.parametrize("name", REAL)
def test_the_proof_says_where_every_operator_runs(run: Run, name: str) -> None:
    for variant, result in run(name).items():
        if "error" in result:
            continue
        proof = result["proof"]
        assert proof["share"] == 1.0, variant
        assert sum(proof["places"].values()) == proof["on_device"] > 0
        assert proof["elsewhere"] == {}
        assert proof["emulated"] == (name == "litert-gpu")
        if variant.endswith("fp32"):
            assert proof["precision"] == "float32", variant
        if variant.endswith("-int8") and "dynamic" not in variant and name != "litert-gpu":
            assert "int8" in proof["precision"], variant


@pytest.mark.parametrize("name", [row for row in ALL if row.values != ("litert-gpu",)])
def test_several_frames_at_once_get_the_answers_of_each_alone(run: Run, name: str) -> None:
    results = run(name, batch=3)  # of eight pictures: the last batch is not full
    assert len(results) == len(run(name))
    for variant, result in results.items():
        assert "error" not in result, (variant, result)
        np.testing.assert_allclose(result["together"], result["probabilities"], atol=1e-5, err_msg=variant)


@pytest.fixture(scope="session")
def wide_bundle(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model has work enough for several threads."""
    from edgevid.cli import main

    folder = tmp_path_factory.mktemp("wide")
    layers = keras.layers
    stack = [keras.Input((96, 96, 3)), *(layers.Conv2D(64, 3, activation="relu") for _ in range(3))]
    output = folder / "wide.edgevid"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own, against NumPy
        model = keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(len(LABELS), "softmax")])
        model.save(folder / "wide.keras")
        with pytest.raises(SystemExit) as exit_info:
            main(["convert", str(folder / "wide.keras"), "-o", str(output), "--precision", "fp32"])
    assert exit_info.value.code == 0
    return output


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ON_CPU)
def test_as_many_threads_work_as_were_asked_for(run: Run, wide_bundle: Path, name: str, threads: int) -> None:
    variant = f"{TARGETS[name].formats[0]}-fp32"
    busy = 0
    for attempt in range(3):  # on a loaded machine a thread may find no work to take over; never are there more
        asked = {"options": {"threads": threads}, "inferences": 100 + attempt}
        result = run(name, wide_bundle, [variant], **asked)[variant]
        assert result["threads"] == threads
        assert result["busy"] <= threads
        busy = max(busy, result["busy"])
        if busy == threads:
            break
    assert busy == threads


@pytest.mark.needs_bf16
def test_bfloat16_is_a_choice_that_the_proof_names(run: Run) -> None:
    options = {"engine_options": {"INFERENCE_PRECISION_HINT": "bf16"}}
    assert run("openvino", None, ["onnx-fp32"], options=options)["onnx-fp32"]["proof"]["precision"] == "bfloat16"


@pytest.fixture(scope="session")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An external delegate, compiled here from C."""
    library = tmp_path_factory.mktemp("delegate") / "libtest.so"
    source = str(ROOT / "tests" / "delegate.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library), source, "-lm"], check=True)
    return library


@pytest.mark.needs_compiler
class TestDelegate:
    @pytest.mark.parametrize("name", [row for row in ALL if row.values[0] in ("litert", "tflite")])
    def test_what_it_takes_is_reported_and_right(self, run: Run, delegate: Path, tmp_path: Path, name: str) -> None:
        given = {"take": "softmax", "echo": str(tmp_path / "echo")}
        options = {"delegate": str(delegate), "engine_options": given, "allow_partial": True}
        result = run(name, None, ["tflite-fp32"], options=options)["tflite-fp32"]
        assert (tmp_path / "echo").read_text() == "".join(f"{key}={value}\n" for key, value in given.items())
        assert result["device"] == "delegate"
        assert result["proof"]["places"]["libtest.so"] == result["proof"]["on_device"] == 1
        assert result["proof"]["elsewhere"] == {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1}
        np.testing.assert_allclose(answers(result), answers(run(REFERENCE)["tflite-fp32"]), atol=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["take=nothing"], "runs none of the 6 operators, which is no acceleration"),
            (["take=nothing", "--allow-partial"], "runs none of the 6 operators, which is no acceleration"),
            (["take=softmax"], "leaves compute-heavy operators to the CPU: 2 CONV_2D"),
            (["colour=red"], "it cannot be loaded, with options colour=red: unknown option"),
        ],
    )
    def test_what_it_does_not_take_is_not_called_accelerated(
        self,
        cli: Callable[..., Outcome],
        bundle_path: Path,
        clip: Path,
        delegate: Path,
        options: list[str],
        message: str,
    ) -> None:
        first, *rest = options
        given = ["--variant", "tflite-fp32", "--delegate", delegate, "--delegate-option", first, *rest]
        outcome = edgevid("run", bundle_path, "--source", clip, *given)
        assert outcome.status == 1
        assert message in outcome.error


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--device", "tpu"], 2, "device 'tpu': expected one of auto, cpu, gpu, npu, edgetpu"),
        (["--device", "edgetpu"], 2, "was not compiled for it; convert with --target edgetpu"),
        (["--device", "npu"], 1, "device 'npu': no backend runs a variant there: litert: LiteRT has no plugin"),
        (["--backend", "openvino", "--device", "gpu"], 1, "device 'gpu': OpenVINO finds only CPU; an Intel GPU needs"),
        (["--backend", "openvino", "--device", "npu"], 1, "OpenVINO finds only CPU; an Intel NPU needs its driver"),
        (["--backend", "openvino", "--engine-option", "NO=1"], 1, "with NO=1: NotFound: Unsupported property NO"),
        (["--backend", "onnxruntime", "--device", "npu"], 1, "no execution provider of ONNX Runtime offers one"),
        (["--backend", "onnxruntime", "--device", "edgetpu"], 2, "backend 'onnxruntime' runs on cpu, gpu, npu"),
        (["--provider", "cuda", "--backend", "onnxruntime"], 2, "provider 'cuda': it runs on gpu, not on 'cpu'"),
        (
            ["--provider", "cuda", "--backend", "onnxruntime", "--device", "gpu"],
            1,
            "not in this ONNX Runtime; pip install onnxruntime-gpu",
        ),
        (
            ["--backend", "litert", "--provider", "cpu"],
            2,
            "--provider cpu: it is for the backend onnxruntime, not for 'litert'",
        ),
        (["--device", "gpu:x"], 2, "device 'gpu:x': expected a device such as cpu, gpu, gpu:1"),
        (["--device", "cpu:1"], 2, "device 'cpu:1': expected a device such as"),
        (["--device", "edgetpu:"], 2, "device 'edgetpu:': expected a device such as"),
        (["--device", "gpu", "--delegate", "./no.so"], 2, "--delegate ./no.so: it is the device; leave --device gpu"),
        (["--backend", "litert", "--device", "npu", "--allow-partial"], 1, "LiteRT has no plugin that loads"),
        (["--threads", "2000"], 2, "threads 2000: expected 1 to"),
        (["--batch", "0"], 2, "batch 0: expected 1 to 1024"),
        (["--backend", "null", "--engine-option", "a=b"], 2, "the backend 'null' has none"),
        (
            ["--delegate", "./no.so"],
            1,
            "delegate ./no.so: it cannot be loaded, with options none: ./no.so: cannot open",
        ),
        (["--engine-option", "a=b"], 2, "--engine-option a: LiteRT on the CPU has none"),
        (["--engine-option", "ab"], 2, "--engine-option 'ab': expected KEY=VALUE"),
    ],
)
def test_what_cannot_run_is_an_error_of_one_line(
    bundle_path: Path, clip: Path, arguments: list[str], status: int, message: str
) -> None:
    outcome = edgevid("run", bundle_path, "--source", clip, *arguments)
    assert message in outcome.error
    assert outcome.status == status


@pytest.mark.needs_tflite_runtime
@pytest.mark.slow
def test_the_old_runtime_and_the_old_opencv_write_annotated_video(
    old_runtime: Path, bundle_path: Path, clip: Path, tmp_path: Path
) -> None:
    video = tmp_path / "annotated.mp4"
    arguments = ["--source", clip, "--backend", "tflite", "--save", video]
    outcome = edgevid("run", bundle_path, *arguments, python=old_runtime)
    assert outcome.status == 0, outcome.err
    assert "tflite-int8 ran in tflite on cpu" in outcome.out
    with open_source(video) as written, open_source(clip) as original:
        for annotated, plain in zip(written, original, strict=True):
            height = plain.image.shape[0]
            changed = np.abs(annotated.image.astype(int) - plain.image).mean(axis=(1, 2))
            assert changed[-height // 6 :].max() > 20, "the bar"
            assert changed[: height // 2].max() < 20


def test_an_engine_runs_where_nothing_can_be_cached(bundle_path: Path, clip: Path) -> None:
    arguments = ["--source", clip, "--backend", "openvino", "--max-frames", 2]
    outcome = edgevid("run", bundle_path, *arguments, env={**os.environ, "XDG_CACHE_HOME": "/proc/nowhere"})
    assert outcome.status == 0, outcome.err


@pytest.mark.needs_plugin_providers
def test_a_plugin_without_a_device_is_no_gpu(bundle_path: Path, clip: Path) -> None:
    options = ["--backend", "onnxruntime", "--provider", "webgpu", "--device", "gpu"]
    outcome = edgevid("run", bundle_path, "--source", clip, *options)
    assert outcome.status == 1
    assert outcome.err == "edgevid: provider 'webgpu': it finds no gpu on this machine; use another --device\n"


@pytest.mark.needs_software_gpu
def test_a_software_gpu_runs_when_named_and_is_never_chosen(
    bundle_path: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def ran(device: str) -> str:
        outcome = edgevid("run", bundle_path, "--source", clip, "--device", device, env=software_gpu(tmp_path_factory))
        assert outcome.status == 0, outcome.err
        return outcome.err + outcome.out

    assert "tflite-fp16 ran in litert on gpu (SwiftShader Device" in ran("gpu")
    chosen = ran("auto")
    assert "chose litert, cpu, tflite-int8: no accelerator" in chosen
    assert "is emulated on the CPU" in chosen


def test_a_model_compiled_for_another_device_needs_its_library(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    import msgspec

    from edgevid.bundle import sha256_file
    from edgevid.manifest import EdgeTpu

    folder = tmp_path / "tpu.edgevid"
    shutil.copytree(bundle_path, folder)
    manifest = Bundle(folder).manifest
    full = next(variant for variant in manifest.variants if variant.id == "tflite-int8-full")
    compiled = EdgeTpu(file=full.file, sha256=sha256_file(folder / full.file), mapped_operators=5, cpu_operators=1)
    variants = tuple(
        msgspec.structs.replace(variant, edgetpu=compiled) if variant is full else variant
        for variant in manifest.variants
    )
    text = msgspec.json.encode(msgspec.structs.replace(manifest, variants=variants))
    (folder / "edgevid.json").write_bytes(text)
    outcome = edgevid("run", folder, "--source", clip, "--device", "edgetpu:usb")
    assert outcome.status == 1
    assert "delegate libedgetpu.so.1: it cannot be loaded, with options device=usb" in outcome.error

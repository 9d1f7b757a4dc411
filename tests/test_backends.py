"""One contract for every backend, and the choice between them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgevid import BackendError, BundleError, Frame, MissingExtraError, SourceError, UsageError
from edgevid import backends as backends_module
from edgevid.backends import BACKENDS, BackendOptions, available_cores, load_backend
from edgevid.bundle import Bundle
from edgevid.choice import choose_backend
from edgevid.engine import Engine, EnginePool, share_cores
from edgevid.sources import open_source
from tests.conftest import picture

# The contract that each keeps is in test_contract.py.
HERE = [name for name, entry in BACKENDS.items() if entry.installed]


def engine(bundle: Bundle, name: str, variant: str, threads: int = 1) -> Engine:
    return Engine(bundle, bundle.variant(variant), name, BackendOptions(threads=threads))


@pytest.mark.parametrize("name", HERE)
def test_closing_twice_is_safe(bundle: Bundle, name: str) -> None:
    backend = load_backend(name, bundle, bundle.preferred(BACKENDS[name].formats))
    with backend:
        pass
    backend.close()


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_a_file_that_is_no_model_is_named(bundle: Bundle, tmp_path: Path, name: str) -> None:
    variant = bundle.preferred(BACKENDS[name].formats)
    (tmp_path / "bad").write_bytes(b"TFL3 this is no model" * 100)
    fake = type("Fake", (), {"verified_file": lambda self, variant: tmp_path / "bad", "manifest": bundle.manifest})
    with pytest.raises(BackendError, match=r"bad: .* cannot load it"):
        load_backend(name, fake(), variant)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", HERE)
def test_several_engines_answer_as_one_and_in_order(bundle: Bundle, clip: Path, name: str, workers: int) -> None:
    variant = bundle.preferred(BACKENDS[name].formats)
    single = engine(bundle, name, variant.id)
    with open_source(clip) as source, EnginePool(bundle, variant, name, BackendOptions(threads=1), workers) as pool:
        answers = [(frame.index, frame.picture, probabilities.copy()) for frame, probabilities in pool.map(source)]
    assert [index for index, _, _ in answers] == list(range(60))
    for _, frame_picture, probabilities in answers:
        np.testing.assert_array_equal(single(frame_picture), probabilities)


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_before_a_failure_of_the_source_are_not_lost(bundle: Bundle, workers: int) -> None:
    def failing() -> Iterator[Frame]:
        for index in range(30):
            yield Frame(index, 0.0, picture("red"))
        raise SourceError("unplugged")

    with EnginePool(bundle, bundle.variant("tflite-int8"), "litert", BackendOptions(threads=1), workers) as pool:
        answers = pool.map(failing())
        assert [next(answers)[0].index for _ in range(30)] == list(range(30))
        with pytest.raises(SourceError, match="unplugged"):
            next(answers)


def test_loading_in_several_threads_leaves_stderr_alone(bundle: Bundle) -> None:
    before = os.fstat(2).st_ino
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda _: engine(bundle, "litert", "tflite-int8"), range(12)))
    assert os.fstat(2).st_ino == before


def test_a_failing_worker_is_heard(bundle: Bundle) -> None:
    with EnginePool(bundle, bundle.variant("tflite-int8"), "null", BackendOptions(threads=1), 2) as pool:
        frames = [Frame(i, 0.0, picture("red") if i != 5 else np.zeros((3, 3), np.uint8)) for i in range(10)]
        with pytest.raises(UsageError, match="expected BGR uint8"):
            list(pool.map(frames))


def test_cores_are_shared_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = available_cores()
    assert share_cores(live=True) == (cores, 1)
    threads, workers = share_cores(live=False)
    assert threads * workers <= cores
    assert share_cores(live=False, threads=cores) == (cores, 1)
    assert share_cores(live=False, threads=3, workers=2) == (3, 2)
    monkeypatch.setattr("edgevid.engine.available_cores", lambda: 16)
    assert share_cores(live=False) == (2, 8)
    assert share_cores(live=False, device="gpu") == (16, 1)


def test_auto_takes_the_fastest_variant_that_can_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _chosen(bundle) == ("litert", "tflite-int8")
    assert _chosen(bundle, variant_id="onnx-fp32") == ("onnxruntime", "onnx-fp32")
    assert _chosen(bundle, "onnxruntime") == ("onnxruntime", "onnx-int8")
    _uninstall("litert", monkeypatch)
    _uninstall("openvino", monkeypatch)
    assert _chosen(bundle) == ("onnxruntime", "onnx-int8")


def test_what_was_asked_for_runs_or_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="backend 'tflte': expected one of auto, litert, onnxruntime"):
        choose_backend(bundle, "tflte")
    with pytest.raises(UsageError, match=r"variant 'tflite-int4': .* has tflite-int8"):
        choose_backend(bundle, variant_id="tflite-int4")
    with pytest.raises(UsageError, match="backend 'litert' reads tflite, not the variant 'onnx-int8'"):
        choose_backend(bundle, "litert", "onnx-int8")
    with pytest.raises(UsageError, match="device 'gpu': backend 'null' runs on cpu"):
        load_backend("null", bundle, bundle.variant("tflite-int8"), BackendOptions(device="gpu"))
    with pytest.raises(UsageError, match="threads -1"):
        BackendOptions(threads=-1)
    _uninstall("onnxruntime", monkeypatch)
    _uninstall("openvino", monkeypatch)
    with pytest.raises(MissingExtraError, match=r'run  pip install "edgevid\[onnx\]"'):
        choose_backend(bundle, variant_id="onnx-int8")
    with pytest.raises(MissingExtraError, match=r'run  pip install "edgevid\[onnx\]"'):
        load_backend("onnxruntime", bundle, bundle.variant("onnx-int8"))


def test_the_example_of_a_new_backend_is_one_file_and_one_row(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contributing = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    module, row = re.findall(r"```python\n(.*?)```", contributing, re.DOTALL)
    (tmp_path / "opencv.py").write_text(module)
    monkeypatch.setattr("edgevid.backends.__path__", [*backends_module.__path__, str(tmp_path)])
    entry = eval("{" + row + "}", {"BackendEntry": backends_module.BackendEntry})
    monkeypatch.setitem(BACKENDS, "opencv", entry["opencv"])
    image = picture("green", seed=5)
    mine, reference = (engine(bundle, name, "onnx-fp32") for name in ("opencv", "onnxruntime"))
    np.testing.assert_allclose(mine(image), reference(image), atol=1e-4)
    assert mine.backend.proof.share == 1.0
    assert entry["opencv"].imported("opencv").usable("cpu").reason == ""


def test_a_bundle_without_a_variant_for_the_backend(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no variant in the format onnx1"):
        bundle.preferred(("onnx1",))


def _chosen(bundle: Bundle, backend: str = "auto", variant_id: str | None = None) -> tuple[str, str]:
    name, variant = choose_backend(bundle, backend, variant_id)
    return name, variant.id


def _uninstall(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point a row of the table at a package that nobody has installed."""
    entry = dataclasses.replace(BACKENDS[name], package="a_package_that_is_not_there")
    monkeypatch.setitem(backends_module.BACKENDS, name, entry)


def test_onnxruntime_sums_integers_exactly_on_every_cpu(tmp_path: Path) -> None:
    """Its default on x86 without VNNI would sum two products in 16 bits, and cut off: half of the answer here."""
    from edgevid.backends.onnxruntime import open_session

    exact = 255 * 127 * CHANNELS
    path = integer_sum(tmp_path / "sum.onnx", exact / 200)
    (answer,) = open_session(path, 1).run(None, {"image": np.full((1, CHANNELS, 4, 4), 255, np.float32)})
    np.testing.assert_allclose(answer, exact, rtol=0.01)


@pytest.mark.parametrize(
    ("cpuinfo", "exact"),
    [("flags\t\t: fpu avx2\n", True), ("flags\t\t: fpu avx2 avx_vnni\n", False), ("flags\t: avx512_vnni\n", False)],
)
def test_slower_exact_kernels_are_for_cpus_that_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, exact: bool
) -> None:
    from edgevid.backends.onnxruntime import open_session

    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("edgevid.hardware.CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    options = open_session(integer_sum(tmp_path / "sum.onnx", 1.0), 1).get_session_options()
    if exact:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")


CHANNELS = 64


def integer_sum(path: Path, step: float) -> Path:
    """Write a convolution of uint8 and int8 whose weights are all 127; its output's quantization step is ``step``."""
    onnx = pytest.importorskip("onnx")
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weights": np.full((8, CHANNELS, 1, 1), 127, np.int8),
        "weights_zero": np.int8(0),
        "step": np.float32(step),
    }
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["image", "one", "zero"], ["q"]),
        make("DequantizeLinear", ["q", "one", "zero"], ["x"]),
        make("DequantizeLinear", ["weights", "one", "weights_zero"], ["w"]),
        make("Conv", ["x", "w"], ["y"]),
        make("QuantizeLinear", ["y", "step", "zero"], ["qy"]),
        make("DequantizeLinear", ["qy", "step", "zero"], ["answer"]),
    ]
    tensor = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "sum",
        [onnx.helper.make_tensor_value_info("image", tensor, (1, CHANNELS, 4, 4))],
        [onnx.helper.make_tensor_value_info("answer", tensor, (1, 8, 4, 4))],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path

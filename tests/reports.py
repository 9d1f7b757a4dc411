"""Reports of benches that never were, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import msgspec

from edgevid_bench.intervals import Latency
from edgevid_bench.recommend import ranked, recommend
from edgevid_bench.report import Clip, Conditions, Machine, Method, Model, Report, Row


def row(variant: str, fps: float, agreement: float | None, half: float = 1.0, **changes: Any) -> Row:
    """Return a row that ran."""
    latency = Latency(
        500 / fps,
        600 / fps,
        900 / fps,
        {"p50": (490 / fps, 510 / fps)},
        [(400 + 10 * step) / fps for step in range(19)],
        500,
    )
    values = {
        "backend": "litert",
        "device": "cpu",
        "threads": 1,
        "workers": 2,
        "status": "ok",
        "rounds": 5,
        "infer_ms": latency,
        "label_ms": latency,
        "infer_fps": fps / 2,
        "end_to_end_ci95": (fps - half, fps + half),
        "across_ci95": (fps - 2 * half, fps + 2 * half),
        "stage_cpu_ms": {"decode": 0.6, "preprocess": 0.4, "infer": 1200 / fps, "smooth": 0.1},
        "roofline_fps": fps * 1.1,
        "efficiency": 0.91,
        "load_ms": 90.0,
        "first_inference_ms": 12.0,
        "peak_rss_mb": 140.0,
        "file_bytes": 5_000_000,
    }
    return Row(**{"variant": variant, "end_to_end_fps": fps, "smoothed_agreement": agreement, **values, **changes})


def report(*rows: Row, cpu: str = "Cortex-A76", model: str = "a" * 64, clip: str = "c" * 64, **changes: Any) -> Report:
    """Return a report of these rows."""
    placed = ranked(rows)
    state = Conditions(load=0.1, governor="performance", clock_mhz=2400.0, temperature_c=51.5)
    made = Report(
        machine=Machine(
            cpu=cpu,
            board="Raspberry Pi 5 Model B Rev 1.0",
            architecture="aarch64",
            cores=4,
            memory_gb=8.3,
            system="Linux-6.6",
            python="3.11.2",
            versions={"edgevid": "0.1.0", "ai-edge-litert": "2.3.0"},
            calibration_ms=4.0,
            before=state,
            after=msgspec.structs.replace(state, temperature_c=71.0),
        ),
        bundle=Model(name="flowers", path="flowers.edgevid", source_sha256=model, manifest_sha256="b" * 64),
        source=Clip(name="clip.mp4", sha256=clip, frames=250, rate=25.0, width=640, height=272),
        method=Method(
            command="edgevid bench flowers.edgevid --output report.json",
            date="2026-11-26T03:00:00+00:00",
            seconds=300.0,
            min_rounds=3,
            max_rounds=12,
            min_secs=2.0,
            max_frames=500,
            video=False,
            batch=1,
            max_drop=0.02,
            allow_disturbed=False,
            seed=0,
            complete=True,
        ),
        rows=placed,
        absent={"litert gpu": "LiteRT finds no GPU"},
        recommendation=recommend(placed, 0.02),
    )
    return msgspec.structs.replace(made, **changes)

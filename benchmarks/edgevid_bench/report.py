"""The report: what was measured, on what machine, how, and the choice it points to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from edgevid.errors import UsageError
from edgevid_bench.intervals import Interval, Latency

__all__ = [
    "Clip",
    "Conditions",
    "Machine",
    "Method",
    "Minute",
    "Model",
    "Recommendation",
    "Report",
    "Row",
    "Sustained",
    "check_same",
    "read_report",
]

SCHEMA = 2
Key = tuple[str, str, str, int, int]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the machine at one moment; None where it does not say.

    ``load`` is the mean number of running processes over the last minute, ``clock_mhz`` the mean of the cores,
    ``temperature_c`` that of the hottest zone, and ``throttled`` what slows it down now.
    """

    load: float | None = None
    governor: str | None = None
    clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    on_battery: bool | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on, and its state before and after.

    ``board`` is what the firmware calls it, where it does. ``cores`` are those that the bench could use. ``versions``
    are those of the packages that take part. ``calibration_ms`` is how long a fixed piece of work takes here, at its
    best in the bench: a measure of the machine that no version of edgevid changes.
    """

    cpu: str
    board: str = ""
    architecture: str
    cores: int
    memory_gb: float
    system: str
    python: str
    versions: dict[str, str]
    calibration_ms: float | None = None
    before: Conditions
    after: Conditions | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle: its name and folder, and what tells the Keras model and this conversion of it from others."""

    name: str
    path: str
    source_sha256: str
    manifest_sha256: str
    keras_accuracy: float | None = None


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """The clip: ``sha256`` tells it from others, and is empty for what is no file."""

    name: str
    sha256: str
    frames: int
    rate: float
    width: int
    height: int


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How it was measured: the command, and its options; ``complete`` is false after Ctrl-C."""

    command: str
    date: str
    seconds: float
    min_rounds: int
    max_rounds: int
    min_secs: float
    max_frames: int
    video: bool
    batch: int
    max_drop: float
    allow_disturbed: bool
    seed: int
    complete: bool


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One backend × device × variant × thread count.

    ``device`` is the proven one; ``hardware`` is its name, ``emulated`` whether it is software, ``precision`` what the
    variant computes in there. ``operators`` says how many of its operators run where, ``on_device`` how many there.
    ``disturbed`` says what disturbed every attempt at a round, if anything: the row is not valid then.

    Single stream, one thing at a time: ``infer_ms`` is of one inference, which takes ``batch`` frames, ``label_ms``
    from a decoded frame to its label. Throughput: ``end_to_end_fps`` is of whole runs over the clip, with ``workers``
    inferences of ``threads`` threads at once; ``rank`` is one more than the valid rows that are faster beyond doubt.
    ``end_to_end_ci95`` tells rows of one bench apart; ``across_ci95``, for other benches, is wider by the machine's
    drift.
    ``roofline_fps`` is what the CPU time of the bare stages allows, ``efficiency`` the share of it that was reached.
    ``stage_cpu_ms`` is CPU time a frame of each stage alone; ``infer`` there is with one thread.
    ``energy_mj`` is millijoules a frame in those runs, of all that ``meter`` meters.

    ``top1_agreement`` and ``smoothed_agreement`` are with the Keras model on the frames held out at conversion;
    ``accuracy`` is on labelled frames, where conversion had some. ``clip_top1_agreement`` and
    ``clip_smoothed_agreement`` were measured here: this row's labels of the clip against those of the fp32 variant.
    """

    backend: str
    device: str
    variant: str
    threads: int
    batch: int = 1
    workers: int = 1
    status: Literal["ok", "unavailable", "failed"]
    reason: str = ""
    rounds: int = 0
    repeated: int = 0
    disturbed: tuple[str, ...] = ()
    rank: int | None = None
    hardware: str = ""
    precision: str = ""
    emulated: bool = False
    operators: dict[str, int] = {}
    on_device: int | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    infer_ms: Latency | None = None
    label_ms: Latency | None = None
    infer_fps: float | None = None
    end_to_end_fps: float | None = None
    end_to_end_ci95: Interval | None = None
    across_ci95: Interval | None = None
    stage_cpu_ms: dict[str, float] | None = None
    roofline_fps: float | None = None
    efficiency: float | None = None
    energy_mj: float | None = None
    watts: float | None = None
    meter: str = ""
    temperature_c: float | None = None
    clock_mhz: float | None = None
    peak_rss_mb: float | None = None
    file_bytes: int
    file_sha256: str = ""
    top1_agreement: float | None = None
    smoothed_agreement: float | None = None
    accuracy: float | None = None
    clip_top1_agreement: float | None = None
    clip_smoothed_agreement: float | None = None

    @property
    def valid(self) -> bool:
        """Whether it ran, undisturbed."""
        return self.status == "ok" and not self.disturbed

    @property
    def name(self) -> str:
        """What tells it from the other rows, for reading."""
        threads = f" · {self.threads} {'thread' if self.threads == 1 else 'threads'}" if self.device == "cpu" else ""
        return f"{self.backend} · {self.device} · {self.variant}{threads}"

    @property
    def key(self) -> Key:
        """What tells it from the other rows."""
        return _key(self)


class Recommendation(msgspec.Struct, frozen=True):
    """The row to run, and why."""

    backend: str
    device: str
    variant: str
    threads: int
    batch: int
    end_to_end_fps: float
    smoothed_agreement: float | None
    sentence: str

    @property
    def key(self) -> Key:
        """What tells the row from the others."""
        return _key(self)


def _key(row: Row | Recommendation) -> Key:
    return row.backend, row.device, row.variant, row.threads if row.device == "cpu" else 0, row.batch


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a long run: its end, in seconds, its frames per second, the machine's state, what disturbed it."""

    until_s: float
    end_to_end_fps: float
    conditions: Conditions
    disturbances: tuple[str, ...] = ()


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """A long run of one row; ``kept`` is the speed of its last third ÷ that of its first, ``error`` what ended it."""

    row: str
    minutes: tuple[Minute, ...]
    kept: float
    error: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``edgevid bench --output`` writes; ``absent`` says why backends and devices are not in it."""

    schema: int = SCHEMA
    machine: Machine
    bundle: Model
    source: Clip
    method: Method
    rows: tuple[Row, ...]
    absent: dict[str, str]
    recommendation: Recommendation | None
    sustained: Sustained | None = None


def read_report(path: Path) -> Report:
    """Read a report that ``edgevid bench --output report.json`` wrote.

    Raises:
        UsageError: it is none, or one of another schema.
        OSError: it cannot be read.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: {error}; expected a report of 'edgevid bench --output report.json'") from error
    if report.schema != SCHEMA:
        raise UsageError(
            f"{path}: a report of schema {report.schema}, expected {SCHEMA}; bench again with this version"
        )
    return report


def check_same(one: str, report: Report, other: str, beside: Report) -> None:
    """Check that two reports are of the same model, clip and kind of run.

    Raises:
        UsageError: they are not.
    """
    for what, values in (
        ("the model", (report.bundle.source_sha256, beside.bundle.source_sha256)),
        ("the clip", (report.source.sha256 or report.source.name, beside.source.sha256 or beside.source.name)),
        ("--video", (report.method.video, beside.method.video)),
        ("--max-frames", (report.method.max_frames, beside.method.max_frames)),
    ):
        if values[0] != values[1]:
            raise UsageError(f"{one} and {other} cannot be compared: {what} is not the same; bench both with the same")

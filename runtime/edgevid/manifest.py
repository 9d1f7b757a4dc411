"""The manifest of a bundle, schema 1: what a converted model expects, answers, and was measured to do."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgevid.decisions import Decisions
from edgevid.errors import UsageError
from edgevid.judgement import Accuracy as Accuracy
from edgevid.judgement import Candidate as Candidate
from edgevid.judgement import Parity as Parity
from edgevid.judgement import Search as Search
from edgevid.judgement import Sensitivity as Sensitivity
from edgevid.methods import Smoothing
from edgevid.record import Record

SCHEMA = 1
MOST_FRAMES = 1024
LARGEST_SIDE = 8192
MANIFEST_FILE = "edgevid.json"
LABELS_FILE = "labels.txt"

Format = Literal["tflite", "onnx"]
Precision = Literal["fp32", "fp16", "dynamic-int8", "int8", "int8-full"]
ColorOrder = Literal["rgb", "bgr", "grey"]
Resize = Literal["nearest", "bilinear", "area"]
Fit = Literal["stretch", "crop", "letterbox"]
Activation = Literal["softmax", "sigmoid", "logits"]

# What edgevid converts to. Fastest first on the CPUs measured so far, float before the slow dynamic int8 (README).
VARIANT_IDS = (
    "tflite-int8",
    "onnx-int8",
    "tflite-fp32",
    "onnx-fp32",
    "tflite-fp16",
    "tflite-int8-full",
    "tflite-dynamic-int8",
)


class InputSpec(Record, frozen=True, kw_only=True):
    """The image that the model takes: height × width × channels, in pixels."""

    height: int
    width: int
    channels: Literal[1, 3]
    color: ColorOrder

    def __post_init__(self) -> None:
        if not (1 <= self.height <= LARGEST_SIDE and 1 <= self.width <= LARGEST_SIDE):
            raise UsageError(f"input size {self.height}×{self.width}: expected 1 to {LARGEST_SIDE} pixels a side")
        if (self.color == "grey") != (self.channels == 1):
            raise UsageError(f"color order {self.color!r} does not go with {self.channels} channel(s)")


class Preprocessing(Record, frozen=True, kw_only=True):
    """How a frame becomes the input tensor: resize, fit, then (pixel − mean) / std per channel.

    ``mean`` and ``std`` are in grey levels of 0–255, in the order of the model's channels.
    """

    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise UsageError(f"mean has {len(self.mean)} value(s) but std has {len(self.std)}")
        if any(not value > 0 for value in self.std):
            raise UsageError(f"std {list(self.std)}: expected numbers above 0")

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and largest value that the input tensor can hold."""
        low = min((0 - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        high = max((255 - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        return low, high


class OutputSpec(Record, frozen=True, kw_only=True):
    """The model's answer: how many classes, and what its last layer makes of them.

    A ``binary`` model answers with one number, the score of the second of two classes; the first has what is left.
    """

    classes: int
    activation: Activation
    binary: bool = False

    def __post_init__(self) -> None:
        if self.binary and (self.classes != 2 or self.activation == "softmax"):
            raise UsageError(
                f"a binary model of {self.classes} classes, {self.activation}: expected 2, and sigmoid or logits"
            )

    @property
    def units(self) -> int:
        """How many numbers the model answers with."""
        return 1 if self.binary else self.classes

    @property
    def multi_label(self) -> bool:
        """Whether the model answers to each class on its own, so that several labels may hold, or none."""
        return self.activation == "sigmoid" and not self.binary


class Tensor(Record, frozen=True, kw_only=True):
    """Shape, dtype and quantization of a variant's input or output: real = scale × (value − zero_point).

    An input has the shape (1, height, width, channels) or, with ``channels_first``, (1, channels, height, width).
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "int8", "uint8"]
    scale: float = 0.0
    zero_point: int = 0
    channels_first: bool = False

    def __post_init__(self) -> None:
        if self.quantized and not self.scale > 0:
            raise UsageError(f"a tensor of {self.dtype} with scale {self.scale}: expected a number above 0")

    @property
    def quantized(self) -> bool:
        """Whether the values are integers that stand for real numbers."""
        return self.dtype != "float32"


class Calibration(Record, frozen=True, kw_only=True):
    """Which clips and folders the int8 variants were calibrated on, by name, and with how many frames or windows.

    ``searched`` frames chose between candidates; ``held_out`` ones did nothing but judge, and ``distinct_held_out`` of
    them differ from one another (None where that was not counted).
    """

    sources: tuple[str, ...]
    frames: int
    near_duplicates: int
    held_out: int
    searched: int = 0
    distinct_held_out: int | None = None


class EdgeTpu(Record, frozen=True, kw_only=True):
    """A variant's file as the Edge TPU's compiler made it, and how many operators run there and on the CPU."""

    file: str
    sha256: str
    mapped_operators: int
    cpu_operators: int


class Variant(Record, frozen=True, kw_only=True):
    """One converted model: ``id`` is ``<format>-<precision>``; ``parity`` is None only during conversion.

    ``repaired`` tells that its weights were rounded with care, ``search`` how it was chosen where it was;
    ``rejected`` says why it did not pass the gate, and is None where it did.
    ``accuracy`` is None where no labelled frames were given.
    ``edgetpu`` is there where the variant was compiled for one. ``free_batch`` says that it takes any number of frames
    at once, and answers to each as it does to one alone.
    """

    id: str
    format: Format
    precision: Precision
    file: str
    bytes: int
    sha256: str
    input: Tensor
    output: Tensor
    float_operators: tuple[str, ...] = ()
    parity: Parity | None = None
    repaired: bool = False
    search: Search | None = None
    rejected: str | None = None
    accuracy: Accuracy | None = None
    edgetpu: EdgeTpu | None = None
    free_batch: bool = False

    def __post_init__(self) -> None:
        if self.id != f"{self.format}-{self.precision}" or self.id not in VARIANT_IDS:
            raise UsageError(f"variant id {self.id!r}: expected one of {', '.join(VARIANT_IDS)}, as its format says")


class SequenceSpec(Record, frozen=True, kw_only=True):
    """How a model of several frames at a time is fed: the last ``frames`` of them, again every ``hop`` frames.

    Where it is split, a variant answers to one frame with so many ``features``, and a head, one a format, makes class
    probabilities of those of the last ``frames``: it takes float32 (1, frames, features). Else ``features`` is 0, there
    is no head, and a variant takes (1, frames, height, width, channels).
    """

    frames: int
    hop: int = 1
    features: int = 0
    heads: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UsageError(f"frames {self.frames}: expected 1 to {MOST_FRAMES}")
        check_hop(self.hop)
        if bool(self.features) != bool(self.heads):
            raise UsageError(f"{self.features} features for {len(self.heads)} heads: expected both or none")
        for head in self.heads:
            if head.input.shape != (1, self.frames, self.features):
                raise UsageError(f"{head.file}: input of shape {head.input.shape} for {self.features} features")


class SourceModel(Record, frozen=True, kw_only=True):
    """The file that was converted."""

    file: str
    sha256: str


class Manifest(Record, frozen=True, kw_only=True):
    """Everything a device needs to know of a converted model (``edgevid.json``).

    ``left_out`` holds the variants that could not be made, each with the reason. ``keras_accuracy`` is the Keras
    model's own on the labelled frames, if any were given. ``max_drop`` is the gate's. ``remarks`` say what looked
    wrong about the input.
    """

    schema: int = SCHEMA
    name: str
    made_with: dict[str, str]
    source: SourceModel
    input: InputSpec
    preprocessing: Preprocessing
    value_range: tuple[float, float]
    output: OutputSpec
    smoothing: Smoothing
    decisions: Decisions = Decisions()
    labels_sha256: str
    calibration: Calibration | None
    max_drop: float = 0.02
    variants: tuple[Variant, ...]
    left_out: dict[str, str] = msgspec.field(default_factory=dict)
    keras_accuracy: Accuracy | None = None
    remarks: tuple[str, ...] = ()
    sequence: SequenceSpec | None = None

    @property
    def takes_windows(self) -> bool:
        """Whether a variant takes several frames at once, and not one at a time."""
        return self.sequence is not None and not self.sequence.features

    @property
    def row(self) -> OutputSpec | None:
        """What a variant's own output is; None where it is features, of which a head makes class scores."""
        return None if self.sequence is not None and self.sequence.heads else self.output

    def __post_init__(self) -> None:
        spec = self.input
        if self.schema < 1:
            raise UsageError(f"schema {self.schema}: expected {SCHEMA}")
        if not self.variants:
            raise UsageError("no variants")
        if len(self.preprocessing.mean) != spec.channels:
            raise UsageError(f"mean and std of {len(self.preprocessing.mean)} channels for {spec.channels}")
        image: tuple[int, ...] = (spec.height, spec.width, spec.channels)
        sequence, units = self.sequence, self.output.units
        if sequence is not None and self.takes_windows:
            image = (sequence.frames, *image)
        features = sequence.features if sequence else 0
        for variant in self.variants:
            first = variant.input.channels_first
            if variant.input.shape != (1, *((image[-1], *image[:-1]) if first else image)):
                raise UsageError(f"{variant.id}: input of shape {variant.input.shape} for an image of {spec}")
            _check_answer(variant, features or units, "features" if features else "scores")
        for head in sequence.heads if sequence else ():
            _check_answer(head, units, "scores")


def check_hop(hop: int) -> int:
    """Return ``hop`` if windows may be so many frames apart.

    Raises:
        UsageError: they may not.
    """
    if not 1 <= hop <= MOST_FRAMES:
        raise UsageError(f"hop {hop}: expected a whole number of frames from 1 to {MOST_FRAMES}")
    return hop


def _check_answer(variant: Variant, size: int, what: str) -> None:
    if variant.output.shape != (1, size):
        raise UsageError(f"{variant.id}: output of shape {variant.output.shape} for {size} {what}")

"""From a model file to one frozen graph, or two where frames and windows of them are apart."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from edgevid.errors import EdgevidError, ModelError, UsageError
from edgevid.manifest import Activation
from edgevid_convert.loading.containers import container_of
from edgevid_convert.loading.frozen import FrozenGraph, FrozenModel, Statistics
from edgevid_convert.loading.isolation import MEMORY_VARIABLE, child_process, died_of, memory_limit

__all__ = [
    "Answer",
    "Facts",
    "Failure",
    "FrozenModel",
    "Request",
    "Statistics",
    "load_model",
    "read_frozen",
    "write_frozen",
]

REQUEST_FILE, ANSWER_FILE, GRAPH_FILE, HEAD_FILE = "request.json", "answer.json", "graph.pb", "head.pb"
CHILD_MODULE = "edgevid_convert.loading.child"
REFUSAL_SECONDS = 0.5  # within which the child has looked at most files, before it loads them
IMPORTED_MEANWHILE = "edgevid_convert.variants"  # TensorFlow and the converters, which take seconds
FAILURES: dict[str, type[EdgevidError]] = {"ModelError": ModelError, "UsageError": UsageError}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is asked to load."""

    path: str
    image_size: tuple[int, int] | None
    custom_objects: str | None
    trust: bool
    memory_gb: float
    signature: str | None = None
    activation: Activation | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The child's answer: what it found; the graph lies beside it, and that of the head if the model is split."""

    height: int
    width: int
    channels: Literal[1, 3]
    classes: int
    binary: bool
    activation: Activation
    statistics: Statistics | None
    frames: int
    split: bool
    written_by: str
    notes: tuple[str, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The child's answer: which error it met, one of :data:`FAILURES`, and its text."""

    kind: str
    text: str


Answer: TypeAlias = Facts | Failure


class LoadingError(Exception):
    """What a child printed before it failed; the cause of the error that the user sees, for --debug."""


def load_model(
    path: Path,
    image_size: tuple[int, int] | None = None,
    *,
    custom_objects: Path | None = None,
    trust: bool = False,
    signature: str | None = None,
    activation: Activation | None = None,
) -> FrozenModel:
    """Load a ``.keras``, ``.h5`` or SavedModel classifier, in a child process, and freeze it for one image size.

    The file is looked through before Keras opens it: what could run code of its own, or fill the memory, is refused.

    Args:
        path: the file, or the SavedModel's folder.
        image_size: height and width; None for what the model states.
        custom_objects: a Python file that defines the model's own layers; it is run in the child.
        trust: load a model that may run code, too.
        signature: of a SavedModel, the one to call; None for the default one.
        activation: what the last layer makes of its logits; None to tell it.

    Raises:
        ModelError: it cannot be read, is no image classifier, or was refused.
        UsageError: the model leaves its input size open and ``image_size`` is None, or they contradict.
    """
    container_of(path)  # says what it is, before a process is started
    request = Request(
        path=str(path),
        image_size=image_size,
        custom_objects=None if custom_objects is None else str(custom_objects),
        trust=trust,
        memory_gb=memory_limit(),
        signature=signature,
        activation=activation,
    )
    with tempfile.TemporaryDirectory(prefix="edgevid-load-") as name:
        folder = Path(name)
        (folder / REQUEST_FILE).write_bytes(msgspec.json.encode(request))
        with child_process(CHILD_MODULE, folder) as child:
            with suppress(subprocess.TimeoutExpired):
                child.wait(REFUSAL_SECONDS)
            if child.poll() is None:
                import_module(IMPORTED_MEANWHILE)
            status = child.wait()
        return _result(folder, request, status)


def _result(folder: Path, request: Request, status: int) -> FrozenModel:
    """Read what the child left.

    Raises:
        ModelError, UsageError: what the child met, or that it died.
    """
    printed = LoadingError((folder / "log").read_text(encoding="utf-8", errors="replace"))
    try:
        answer = msgspec.json.decode((folder / ANSWER_FILE).read_bytes(), type=Answer)
    except (OSError, msgspec.DecodeError):
        raise ModelError(
            f"{request.path}: the process that loaded it {died_of(status)}; if it needs more than the "
            f"{request.memory_gb:.1f} GB of memory allowed, set {MEMORY_VARIABLE}=GB; --debug shows what it printed"
        ) from printed
    if isinstance(answer, Failure):
        raise FAILURES.get(answer.kind, ModelError)(answer.text) from printed
    return read_frozen(answer, folder)


def read_frozen(facts: Facts, folder: Path) -> FrozenModel:
    """Return the model that the child left in a folder."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    def graph(name: str) -> GraphDef:
        return GraphDef.FromString((folder / name).read_bytes())

    return FrozenModel(
        height=facts.height,
        width=facts.width,
        channels=facts.channels,
        classes=facts.classes,
        binary=facts.binary,
        activation=facts.activation,
        statistics=facts.statistics,
        frames=facts.frames,
        written_by=facts.written_by,
        notes=facts.notes,
        graph=graph(GRAPH_FILE),
        head=FrozenGraph(graph=graph(HEAD_FILE)) if facts.split else None,
    )


def write_frozen(model: FrozenModel, folder: Path) -> Facts:
    """Leave a model in a folder for the parent, and return what is known of it."""
    (folder / GRAPH_FILE).write_bytes(model.graph.SerializeToString())
    if model.head:
        (folder / HEAD_FILE).write_bytes(model.head.graph.SerializeToString())
    return Facts(
        height=model.height,
        width=model.width,
        channels=model.channels,
        classes=model.classes,
        binary=model.binary,
        activation=model.activation,
        statistics=model.statistics,
        frames=model.frames,
        split=model.head is not None,
        written_by=model.written_by,
        notes=model.notes,
    )

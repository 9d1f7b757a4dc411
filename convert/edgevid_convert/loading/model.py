"""From a model file to one frozen graph: image in, class probabilities or logits out."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edgevid.errors import EdgevidError, ModelError, UsageError
from edgevid.manifest import Activation
from edgevid_convert.loading.containers import check_container
from edgevid_convert.loading.isolation import MEMORY_VARIABLE, child_process, died_of, memory_limit

__all__ = ["Answer", "Facts", "Failure", "FrozenModel", "Request", "Statistics", "load_model"]

REQUEST_FILE, ANSWER_FILE, GRAPH_FILE = "request.json", "answer.json", "graph.pb"
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


class Statistics(msgspec.Struct, frozen=True):
    """What the first batch normalization gave in training: a mean and a variance a channel.

    Attributes:
        tensor: the name of the operator with its output.
        mean, variance: of that output.
    """

    tensor: str
    mean: tuple[float, ...]
    variance: tuple[float, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The child's answer: what it found; the graph lies beside it."""

    height: int
    width: int
    channels: Literal[1, 3]
    classes: int
    activation: Activation
    statistics: Statistics | None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The child's answer: which error it met, one of :data:`FAILURES`, and its text."""

    kind: str
    text: str


Answer: TypeAlias = Facts | Failure


class LoadingError(Exception):
    """What a child printed before it failed; the cause of the error that the user sees, for --debug."""


@dataclass(frozen=True)
class FrozenModel:
    """A classifier as one graph without variables, for one image of a fixed size.

    Attributes:
        height, width, channels: the image's size.
        classes: how many classes the model tells apart.
        activation: what its last layer makes of its logits.
        graph: TensorFlow's GraphDef: the placeholder ``image``, float32 (1, height, width, channels), and the
            node ``output``, float32 (1, classes).
        statistics: what the first batch normalization saw in training, where there is one.
    """

    height: int
    width: int
    channels: Literal[1, 3]
    classes: int
    activation: Activation
    graph: Any
    statistics: Statistics | None = None

    @cached_property
    def _session(self) -> Any:
        from edgevid_convert.engine import opened_graph

        return opened_graph(self.graph)

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the model's own answer, float32 (1, classes): the reference that variants are held against."""
        answer: npt.NDArray[np.float32] = self._session.run("output:0", {"image:0": images})
        return answer

    def save_frozen(self, folder: Path) -> None:
        """Write the graph as a SavedModel whose signature names its input ``image`` and its output ``output``."""
        from edgevid_convert.engine import tf

        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(self.graph, name=""), [])
        function = imported.prune("image:0", "output:0")
        spec = tf.TensorSpec((1, self.height, self.width, self.channels), tf.float32, name="image")
        module = tf.Module()
        module.serve = tf.function(lambda image: {"output": function(image)}, input_signature=[spec], autograph=False)
        # Without gradients, which nothing here needs: swish has one of its own that a frozen graph cannot save.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), module.serve.get_concrete_function(), options)


def load_model(
    path: Path,
    image_size: tuple[int, int] | None = None,
    *,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> FrozenModel:
    """Load a ``.keras``, ``.h5`` or SavedModel classifier, in a child process, and freeze it for one image size.

    The file is looked through before Keras opens it: what could run code of its own, or fill the memory, is refused.

    Args:
        path: the file, or the SavedModel's folder.
        image_size: height and width; None for what the model states.
        custom_objects: a Python file that defines the model's own layers; it is run in the child.
        trust: load a model that may run code, too.

    Raises:
        ModelError: it cannot be read, is no image classifier, or was refused.
        UsageError: the model leaves its input size open and ``image_size`` is None, or they contradict.
    """
    check_container(path)
    request = Request(
        path=str(path),
        image_size=image_size,
        custom_objects=None if custom_objects is None else str(custom_objects),
        trust=trust,
        memory_gb=memory_limit(),
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
    from tensorflow.core.framework.graph_pb2 import GraphDef

    return FrozenModel(
        height=answer.height,
        width=answer.width,
        channels=answer.channels,
        classes=answer.classes,
        activation=answer.activation,
        statistics=answer.statistics,
        graph=GraphDef.FromString((folder / GRAPH_FILE).read_bytes()),
    )

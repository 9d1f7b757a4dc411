"""The child process that opens a model: looks it through, loads and freezes it, and leaves a graph and facts."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import msgspec

from edgevid.errors import EdgevidError, ModelError
from edgevid_convert.causes import cause_of
from edgevid_convert.loading.containers import container_of
from edgevid_convert.loading.description import notes_on, written_by
from edgevid_convert.loading.isolation import MEMORY_VARIABLE, submit_to_limits
from edgevid_convert.loading.model import ANSWER_FILE, REQUEST_FILE, Answer, Facts, Failure, Request, write_frozen
from edgevid_convert.loading.security.scan import scan_model

__all__ = ["load", "main"]

OUT_OF_MEMORY = ("Unable to allocate", "OOM when allocating", "bad_alloc", "Cannot allocate memory")


def main(folder: str, parent: int) -> None:
    """Load the model that ``request.json`` in the folder names; write ``answer.json``, and what it tells of."""
    request = msgspec.json.decode((Path(folder) / REQUEST_FILE).read_bytes(), type=Request)
    submit_to_limits(parent, request.memory_gb)
    answer: Answer
    try:
        answer = load(request, Path(folder))
    except Exception as error:  # noqa: BLE001 - the door of the child: every error goes to the parent
        traceback.print_exc()
        answer = _failure(error, request)
    (Path(folder) / ANSWER_FILE).write_bytes(msgspec.json.encode(answer))


def load(request: Request, folder: Path) -> Facts:
    """Look a model through, open it, and freeze it; write its graph into the folder.

    Raises:
        ModelError, UsageError: see :func:`edgevid_convert.loading.model.load_model`.
    """
    path, custom = Path(request.path), Path(request.custom_objects) if request.custom_objects else None
    container = container_of(path)
    scanned = scan_model(path, container, folder, trust=request.trust, custom=custom is not None)
    from edgevid_convert.loading.opening import open_model  # TensorFlow comes with it: only now
    from edgevid_convert.loading.tracing import freeze
    from edgevid_convert.loading.windows import freeze_windows

    opened = open_model(
        path, container, scanned, folder, custom_objects=custom, signature=request.signature, trust=request.trust
    )
    frozen = (freeze_windows if opened.takes_windows else freeze)(opened, path, request)
    return write_frozen(
        replace(frozen, written_by=written_by(container, scanned), notes=notes_on(scanned.config)), folder
    )


def _failure(error: Exception, request: Request) -> Failure:
    if _out_of_memory(error):
        return Failure(
            kind="ModelError",
            text=f"{request.path}: loading it takes more than the {request.memory_gb:.1f} GB of memory allowed; "
            f"if it may, set {MEMORY_VARIABLE}=GB",
        )
    if isinstance(error, EdgevidError):
        return Failure(kind=type(error).__name__, text=str(error))
    return Failure(
        kind=ModelError.__name__,
        text=f"{request.path}: it cannot be loaded: unexpected {type(error).__name__}: {cause_of(error)}",
    )


def _out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False

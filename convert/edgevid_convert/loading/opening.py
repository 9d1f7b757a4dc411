"""Opens a model with Keras or TensorFlow, in the child process: what it takes, and how to ask it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from edgevid.errors import UsageError, first_line
from edgevid_convert.engine import keras
from edgevid_convert.loading.containers import Container
from edgevid_convert.loading.keras_files import open_keras
from edgevid_convert.loading.opened import Opened
from edgevid_convert.loading.saved_models import open_saved_model
from edgevid_convert.loading.security.scan import Scanned

__all__ = ["open_model"]


def open_model(
    path: Path,
    container: Container,
    scanned: Scanned,
    scratch: Path,
    *,
    custom_objects: Path | None,
    signature: str | None,
    trust: bool,
) -> Opened:
    """Open a model that was looked through.

    Args:
        path: the file, or the SavedModel's folder.
        container: which of them it is.
        scanned: what was found in it.
        scratch: a folder for what has to be changed.
        custom_objects: the Python file that defines the model's own classes.
        signature: of a SavedModel, the one to call.
        trust: whether the model may bring code of its own.

    Raises:
        ModelError: it cannot be read, or has not one input and one output.
        UsageError: ``custom_objects`` cannot be run, or does not define what the model needs.
    """
    if container == "saved_model":
        return open_saved_model(path, signature)
    if signature is not None:
        raise UsageError(f"--signature {signature}: only SavedModels have signatures, and {path} is none; leave it out")
    if scanned.generation == 2:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # so that tf.keras of a file of custom objects is Keras 2
    defined = _definitions(custom_objects) if custom_objects else {}
    known = {*defined, *keras.saving.get_custom_objects()}
    for name in sorted(scanned.custom_names):
        if name not in known and name.rpartition(">")[2] not in known:
            raise UsageError(f"{path}: it needs {name!r}, which --custom-objects {custom_objects} does not define")
    return open_keras(path, container, scanned, scratch, defined, trust=trust)


def _definitions(file: Path) -> dict[str, Any]:
    """Run a Python file, and return the classes and functions that it defines itself."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError(f"--custom-objects {file}: expected a Python file, MODULE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.append(str(file.resolve().parent))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError):
            raise
        raise UsageError(f"--custom-objects {file}: {type(error).__name__}: {first_line(error)}") from error
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return {name: getattr(module, name) for name in own}

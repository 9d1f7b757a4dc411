"""The options of every command that runs a variant: which, in which backend, on which device, and what they load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from edgevid.backends import BACKENDS, DEVICES, BackendOptions
from edgevid.backends.providers import PROVIDERS
from edgevid.bundle import Bundle
from edgevid.choice import Choice, choose
from edgevid.classifier import VideoClassifier
from edgevid.cli.terminal import Terminal, adding, completing
from edgevid.engine import share_cores
from edgevid.errors import UsageError
from edgevid.manifest import VARIANT_IDS

__all__ = ["EngineOptions", "engine_options", "key_values", "take_engine"]


engine_options = adding(
    click.option(
        "--variant",
        type=click.Choice(VARIANT_IDS),
        help="Which variant of the bundle.  [default: the best that bench measured, else the fastest kind that passed]",
    ),
    click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True),
    click.option(
        "--device",
        metavar=f"auto|{'|'.join(DEVICES)}",
        shell_complete=completing(("auto", *DEVICES)),
        default="cpu",
        show_default=True,
        help="Where; which of several after a colon: gpu:1, edgetpu:usb.",
    ),
    click.option(
        "--threads",
        type=int,
        default=0,
        help="Threads of one inference, on the CPU.  [default: the cores are shared out]",
    ),
    click.option("--allow-partial", is_flag=True, help="Let operators that the device lacks run on the CPU."),
    click.option("--delegate", metavar="LIBRARY", help="An external TFLite delegate (litert, tflite)."),
    click.option(
        "--provider",
        type=click.Choice(list(PROVIDERS)),
        help="An execution provider (onnxruntime).  [default: by device]",
    ),
    click.option(
        "--engine-option",
        "--delegate-option",
        "engine_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="Passed to the delegate, the provider or OpenVINO; may be repeated.",
    ),
    click.option("--workers", type=int, default=0, help="Frames of a file classified side by side."),
    click.option("--batch", type=int, default=1, show_default=True, help="Frames of a file in one inference."),
)


@dataclass(frozen=True)
class EngineOptions:
    """The options above, as given."""

    variant: str | None
    backend: str
    device: str
    threads: int
    allow_partial: bool
    delegate: str | None
    provider: str | None
    engine_options: Sequence[str]
    workers: int
    batch: int

    def choose(self, bundle: Bundle, live: bool) -> Choice:
        """Return what runs, and what it was chosen by; raises as :func:`edgevid.choice.choose` does."""
        if live and self.batch > 1:
            raise UsageError(f"--batch {self.batch}: a camera's frame would wait for others; leave it out")
        if live and self.workers > 1:
            raise UsageError(f"--workers {self.workers}: a camera's frame is classified alone; leave it out")
        options = BackendOptions(
            device=self.device,
            allow_partial=self.allow_partial,
            delegate=self.delegate,
            provider=self.provider,
            engine_options=key_values(self.engine_options),
            batch=self.batch,
        )
        return choose(bundle, self.backend, self.variant, options, live)

    def load(self, bundle: Bundle, live: bool, terminal: Terminal, **stream: Any) -> VideoClassifier:
        """Return the classifier that was asked for; say what was chosen where that was left open, and why.

        Args:
            bundle: the model.
            live: whether a camera's frames come, or a file's.
            terminal: where it is said.
            stream: what else the classifier is told.
        """
        choice = self.choose(bundle, live)
        if choice.stale:
            terminal.message(f"what bench measured is left aside: {choice.stale}; run 'edgevid bench' again")
        if choice.why:
            terminal.message(f"chose {choice.backend}, {choice.device}, {choice.variant.id}: {choice.why}")
        alone = live or bundle.manifest.takes_windows
        threads, workers = share_cores(alone, self.threads or choice.threads, self.workers, choice.device)
        return VideoClassifier(
            bundle,
            backend=choice.backend,
            variant=choice.variant.id,
            device=choice.device,
            threads=threads,
            workers=workers,
            allow_partial=self.allow_partial,
            delegate=self.delegate,
            provider=self.provider,
            engine_options=key_values(self.engine_options),
            batch=self.batch,
            **stream,
        )


def take_engine(options: dict[str, Any]) -> EngineOptions:
    """Take the values of the options out of all that a command was given."""
    return EngineOptions(**{name: options.pop(name) for name in EngineOptions.__annotations__})


def key_values(texts: Sequence[str]) -> dict[str, str]:
    """Return options given as ``KEY=VALUE``.

    Raises:
        UsageError: one has no equals sign, or no key.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--engine-option {text!r}: expected KEY=VALUE")
        found[key] = value
    return found

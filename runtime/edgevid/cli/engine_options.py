"""The options of every command that runs a variant: which backend, on which device, and what is passed to it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgevid.backends import BACKENDS, DEVICES
from edgevid.backends.providers import PROVIDERS
from edgevid.cli.terminal import adding, completing
from edgevid.errors import UsageError

__all__ = ["engine_options", "key_values"]


engine_options = adding(
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
)


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

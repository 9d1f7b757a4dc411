"""The command line: a table of commands, and the one place where errors become lines and exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from itertools import zip_longest
from typing import NoReturn

import click

from edgevid._version import __version__
from edgevid.cli.signals import Terminated, raised_in
from edgevid.cli.terminal import Terminal, common_options
from edgevid.errors import EdgevidError, SinkError
from edgevid.quiet import show_all
from edgevid.secrets import hide_arguments

__all__ = ["main"]

# command: (module, function, what it does); a module is imported when its command is asked for.
COMMANDS = {
    "convert": ("edgevid_convert.cli", "convert", "Convert a trained Keras classifier into a bundle."),
    "pack": ("edgevid_convert.pack_cli", "pack", "Make a bundle of a model that is TFLite or ONNX already."),
    "run": ("edgevid.cli.run", "run", "Classify a video, a folder of images, or a camera."),
    "classify": ("edgevid.cli.classify", "classify", "Say what whole clips show, one verdict a clip."),
    "health": ("edgevid.cli.health", "health", "Say whether a run that writes --health is well."),
    "bench": ("edgevid_bench.cli", "bench", "Measure every backend and variant on this machine."),
    "compare": ("edgevid_bench.compare_cli", "compare_command", "Say which of several machines are fast enough."),
    "tune": ("edgevid_bench.tuning.cli", "tune", "Choose how labels are steadied, on your own clips."),
    "demo": ("edgevid.cli.demo", "demo", "Convert, run and bench a real model on a real clip."),
    "doctor": ("edgevid.cli.doctor", "doctor", "Say what can run on this machine, and why not."),
    "inspect": ("edgevid.cli.inspect", "inspect", "Show what is in a bundle."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, or its own help asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with 'edgevid demo'. Each command has a --help with examples.",
)
@click.version_option(__version__, message="edgevid %(version)s")
@common_options
def cli() -> None:
    """Put a trained Keras image classifier on an edge device and let it classify video."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the status that the README lists."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where the locale has no such letter, better an escape than a crash
            stream.reconfigure(errors="backslashreplace")
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed from the start: it would be that of the next file, into which engines would print
            os.open(os.devnull, os.O_RDWR)
    hide_arguments()
    show_all(False)
    with closing(Terminal()) as terminal:
        status = _status(arguments, terminal)
    sys.exit(status)


def _status(arguments: Sequence[str] | None, terminal: Terminal) -> int:
    try:
        if sys.stdout is None:
            raise SinkError("stdout: it is closed; give results a place to go, /dev/null say")
        with raised_in(terminal):
            status = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="edgevid",
                standalone_mode=False,
                obj=terminal,
            )
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except SystemExit:  # click's answer to a broken pipe: the reader of our output has gone, as 'head' does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except BaseException as error:  # noqa: BLE001 - the door of the program: every error ends as a line
        return _report(terminal.stopped_by or error, error, terminal)


def _report(error: BaseException, raised: BaseException, terminal: Terminal) -> int:
    """Say in one line what failed and what to do, with --debug how it was raised; return the exit status."""

    def tell(*lines: str) -> None:
        for line, traced in zip_longest(lines, [raised]):
            terminal.error(line, traced)

    match error:
        case EdgevidError():
            tell(*error.lines)
            return error.exit_status
        case KeyboardInterrupt() | click.Abort():  # click's name for Ctrl-C
            tell("interrupted")
            return 128 + signal.SIGINT
        case Terminated():
            tell("terminated")
            return 128 + signal.SIGTERM
        case click.exceptions.NoArgsIsHelpError():
            terminal.console.print(error.format_message(), markup=False)
            return error.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "edgevid"
            tell(f"{error.format_message()}  (see '{command} --help')")
            return error.exit_code
        case click.ClickException():
            tell(error.format_message())
            return error.exit_code
        case OSError():
            tell(f"{error.filename or 'system'}: {error.strerror or error}")
            return 1
        case _:
            tell(f"unexpected {type(error).__name__}: {error}; run again with --debug and report it")
            return 1

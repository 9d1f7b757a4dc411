"""``--config edgevid.toml``: the options of a command from a file, checked all at once; the command line wins."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgevid.cli.terminal import LOG_FORMATS, Terminal
from edgevid.errors import ConfigError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ConfiguredCommand", "keys_of"]

EITHER = (("source", "camera"),)  # one of these on the command line makes those of the file void
# click's types: which of TOML's fit, and how they are called. Where click takes any text, as in --window 64|2s, a whole
# number is one, too.
PATHS_AND_CHOICES: tuple[tuple[type, ...], str] = (str,), "a text in quotes"
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "text": ((str, int), "a text in quotes"),
    "boolean": ((bool,), "true or false"),
    "integer": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
}


class ConfiguredCommand(click.Command):
    """A command whose options a file may give, by ``--config FILE``, and whose log may be JSON, by ``--log-format``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the file first, so that what is wrong with the command line is told as the file wants it told."""
        if not ctx.resilient_parsing:  # as the completion of names parses, which must not fail
            log_format = _set_log_format(ctx, _last_given(args, "--log-format"))
            if path := _last_given(args, "--config"):
                given = _parsed(Path(path))
                if not log_format:
                    _set_log_format(ctx, given.get("log-format"))
                ctx.default_map = _checked(given, path, self, ctx)
        rest = super().parse_args(ctx, args)
        for names in EITHER:
            sources = {name: ctx.get_parameter_source(name) for name in names}
            if ParameterSource.COMMANDLINE in sources.values():
                ctx.params.update(dict.fromkeys(n for n in names if sources[n] is ParameterSource.DEFAULT_MAP))
        return rest


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """Return what a file may hold: the names on the command line without dashes in front, and what they set."""
    keys: dict[str, click.Parameter] = {}
    for parameter in command.params:
        long = [name.removeprefix("--") for name in parameter.opts if name.startswith("--")]
        keys |= dict.fromkeys(long or [str(parameter.name)], parameter)
    keys.pop("config", None)
    return keys


def _checked(given: dict[str, Any], path: str, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """Return the values of a file by the names that click has for them.

    Raises:
        ConfigError: something is wrong; names all of that.
    """
    keys = keys_of(command)
    wrong = [f"{path}: {key}: {text}" for key, value in given.items() for text in _wrong(key, value, keys, ctx)]
    if wrong:
        raise ConfigError(wrong)
    return {str(keys[key].name): value for key, value in given.items()}


def _parsed(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        UsageError: it is absent, or no TOML.
    """
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; --config takes a TOML file such as edgevid.toml") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no UTF-8 text, at byte {error.start}; --config takes a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        where = f"at line {text.rstrip().count(chr(10)) + 1}, the last"
        raise UsageError(f"{path}: no TOML: {str(error).replace('at end of document', where)}") from error


def _wrong(key: str, value: Any, keys: dict[str, click.Parameter], ctx: click.Context) -> Iterator[str]:
    """Yield what is wrong with one key, if anything is."""
    if key not in keys:
        near = get_close_matches(key, keys, 1)
        yield f"no such option; did you mean {near[0]!r}?" if near else "no such option; 'edgevid run --help' has them"
        return
    parameter = keys[key]
    if expected := _other_type(parameter, value):
        yield f"{json.dumps(value, ensure_ascii=False, default=str)}: expected {expected}"
        return
    try:
        parameter.process_value(ctx, value)
    except click.UsageError as error:
        yield error.message
    except UsageError as error:
        yield str(error)


def _other_type(parameter: click.Parameter, value: Any) -> str | None:
    """Return what was expected in place of this value, if its type is another."""
    types, expected = TYPES.get(parameter.type.name.removesuffix(" range"), PATHS_AND_CHOICES)
    if parameter.multiple or parameter.nargs != 1:
        items, expected = (value if isinstance(value, list) else [None]), f"a list, each item {expected}"
    else:
        items = [value]
    return None if all(type(item) in types for item in items) else expected


def _last_given(arguments: Sequence[str], option: str) -> str | None:
    """Return what an option is given on a command line that is not parsed yet."""
    given = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        name, equals, value = argument.partition("=")
        if name == option:
            given = value if equals else following
    return given


def _set_log_format(ctx: click.Context, name: Any) -> bool:
    """Set the format of the log, if it is one; return whether it is."""
    known = name in LOG_FORMATS
    if known:
        ctx.ensure_object(Terminal).log_as(name)
    return known

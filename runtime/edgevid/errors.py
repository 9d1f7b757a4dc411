"""The errors edgevid raises: each names the thing, the value, what was expected and the remedy, in one line.

EdgevidError             exit status 1
├── UsageError           2   a value the caller gave cannot be meant
│   └── ConfigError      2   the same of a configuration file, all of it at once
├── MissingExtraError    1   a package of an optional extra is not installed
├── BundleError          1   a bundle is absent, damaged, or of another schema
├── SourceError          1   frames cannot be read
│   └── RefusedError     1   the source is there and does not let us in
├── SinkError            1   predictions or frames cannot be written
├── BackendError         1   an engine cannot load or run a variant
├── ModelError           1   a trained model cannot be converted
└── GateError            3   a measured result misses what was asked for
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BackendError",
    "BundleError",
    "ConfigError",
    "EdgevidError",
    "GateError",
    "MissingExtraError",
    "ModelError",
    "RefusedError",
    "SinkError",
    "SourceError",
    "UsageError",
    "first_line",
]


class EdgevidError(Exception):
    """Base of every error that edgevid raises on purpose; its text is one line."""

    exit_status = 1

    @property
    def lines(self) -> Sequence[str]:
        """The text, or the lines of an error that is several at once."""
        return (str(self),)


class UsageError(EdgevidError, ValueError):
    """A value that the caller gave cannot be meant: out of range, unknown, or contradictory."""

    exit_status = 2


class ConfigError(UsageError):
    """What is wrong in a configuration file, a line each, so that nobody has to find it out bit by bit."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self._lines = lines

    @property
    def lines(self) -> Sequence[str]:
        """One line for each thing that is wrong."""
        return self._lines


class MissingExtraError(EdgevidError, ImportError):
    """A package that an optional extra brings is not installed.

    Attributes:
        package: its name.
    """

    def __init__(self, what: str, package: str, extra: str | None) -> None:
        self.package = package
        requirement = f"edgevid[{extra}]" if extra else package
        super().__init__(f'{what} needs the package {package!r}: run  pip install "{requirement}"')


class BundleError(EdgevidError):
    """A bundle is absent, damaged, changed since conversion, or of a newer schema."""


class SourceError(EdgevidError):
    """A source cannot be opened, has no frames, or stopped delivering them."""


class RefusedError(SourceError):
    """A source is there, and does not let us in: the password is wrong, say."""


class SinkError(EdgevidError):
    """An output cannot be created or written."""


class BackendError(EdgevidError):
    """An inference engine cannot load or run the variant it was given."""


class ModelError(EdgevidError):
    """A trained model cannot be read, or is no image classifier that edgevid can convert."""


class GateError(EdgevidError):
    """A measured result misses what was asked for."""

    exit_status = 3


def first_line(error: BaseException, most: int = 300) -> str:
    """Return what another library's error says, fit for one line: its first line that is not empty, cut to length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__

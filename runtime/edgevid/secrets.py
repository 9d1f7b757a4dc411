"""Passwords and tokens in URLs: kept out of messages, and out of what 'ps' shows."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["hide_arguments", "redact", "redact_all"]

# Up to the last @ of a word, since a password may hold any other delimiter. A path of it has lost a slash, and where it
# is a parameter of another URL it is encoded.
USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:(:/{1,2})(\S*)(@)|(%3A%2F%2F)(\S*)(@|%40))", re.IGNORECASE)
# A quote or a colon at the end of a word is the message's, not the value's.
PARAMETER = re.compile(
    r"((?:[?&;/#]|%(?:3F|26|3B|2F|23))[^\s=?&;/#]*?(?:pass|pas|pwd|pw|user|usr|login|token|secret|key|auth|credential|sig)[^\s=?&;/#]*?(?:=|%3D))"
    r"([^\s&]+?)(?=&|['\"):,;\]]*(?:\s|$))",
    re.IGNORECASE,
)
# Those of recorders, in a path: /user=admin_password=secret_channel=1.sdp
FIELD = re.compile(r"([_,](?:pass\w*?|pwd|pw|pas|user)=)([^\s&_,]+)", re.IGNORECASE)
# A password with a space in it.
SPACED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://)([^\s/@:]+:[^/@\n]*)(?=@)")
# Of a GStreamer element.
PROPERTY = re.compile(
    r"(?<!\S)((?:user-id|(?:[a-z]+-)?(?:pw|password|passphrase))\s*=\s*)(\"[^\"]*\"|\S+)", re.IGNORECASE
)
HEADER = re.compile(r"(Authorization:\s*)(.*)", re.IGNORECASE)
ARGUMENTS_BEGIN, ARGUMENTS_END = 48, 49  # fields of /proc/PID/stat


def redact(text: str) -> str:
    """Return a text without the users, passwords and tokens in its URLs: ``rtsp://***@host/live?key=***``."""
    return _masked(text, lambda secret: "***")


def redact_all(value: Any) -> Any:
    """Return what JSON can hold, with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return [redact_all(item) for item in value] if isinstance(value, (list, tuple)) else value


def hide_arguments() -> None:
    """Overwrite the secrets in this process' arguments, which every user of the machine may read; Linux only.

    In place and with as many asterisks: a library that sets the whole title would take the other arguments with it.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    begin, end = (int(fields[number - 3]) for number in (ARGUMENTS_BEGIN, ARGUMENTS_END))
    if not 0 < begin < end:  # the kernel does not tell
        return
    given = ctypes.string_at(begin, end - begin)
    hidden = b"\0".join(_masked_bytes(argument) for argument in given.split(b"\0"))
    if hidden != given:
        ctypes.memmove(begin, hidden, len(given))


def _masked_bytes(argument: bytes) -> bytes:
    text = argument.decode(errors="surrogateescape")
    masked = _masked(text, lambda secret: "*" * len(secret.encode(errors="surrogateescape")))
    return masked.encode(errors="surrogateescape")


def _masked(text: str, mask: Callable[[str], str]) -> str:
    def user(match: re.Match[str]) -> str:
        scheme, colon, secret, at = (part for part in match.groups() if part is not None)
        return f"{scheme}{colon}{mask(secret)}{at}"

    text = USER.sub(user, text)
    for pattern in (SPACED, PARAMETER, FIELD, PROPERTY, HEADER):
        text = pattern.sub(lambda match: f"{match[1]}{mask(match[2])}", text)
    return text

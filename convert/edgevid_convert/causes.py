"""The cause of another library's error, in one line: it stands somewhere in the middle of a long text."""

from __future__ import annotations

import re

__all__ = ["cause_of"]

MOST = 300
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
# Lines that say where and with what, after the cause or before it.
SURROUNDINGS = re.compile(
    r"^(Arguments received|Call arguments|•|at |File \"|Traceback|\[Op:|Stack trace|Please ensure|During handling|"
    r"The above exception|Errors may have originated|Input Source operations|Original stack|node |config=|\^|"
    r"In call to configurable|-{3,}|={3,}|\}|\{)"
)
# Where a library says itself that the cause follows: of several, the innermost is the last.
MARKS = (
    re.compile(r"Exception encountered: *(.+)"),
    re.compile(r"^\s*(?:\w+\.)*(?:\w*Error|Exception): *(.+)", re.MULTILINE),
    re.compile(r"^<unknown>:0: error: *(?:loc\(.*\): )?(.+)", re.MULTILINE),
    re.compile(r"^(?:[^\n]*: )?error: *(?:loc\(.*\): )?(.+)", re.MULTILINE),
)


def cause_of(error: BaseException) -> str:
    """Return the line of an error's text that says why, cut to length; the name of its class where there is no text."""
    text = ESCAPES.sub("", str(error))
    for mark in MARKS:
        found = [str(line).strip() for line in mark.findall(text) if line.strip()]
        if found:
            return found[-1][:MOST]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not SURROUNDINGS.match(line)]
    # Of a layer that failed when it was called, Keras names the layer first, and says why after that.
    if len(telling) > 1 and telling[0].startswith(("Exception encountered when calling", "in user code")):
        telling = telling[1:]
    return telling[0][:MOST] if telling else type(error).__name__

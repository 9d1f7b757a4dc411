"""The labels of a model's classes, from whatever file says them: told by what is in it, not by its name.

:data:`RECOGNIZERS` is what text may be, in the order in which it is tried. Where a file says which class a label is of,
that counts; only where it says nothing, labels are taken by position. What could be meant two ways is an error.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edgevid.errors import ModelError, UsageError, first_line

__all__ = ["Labels", "read_labels"]

MOST_BYTES = 16 << 20
INTEGER = "[0-9]{1,18}"

# A line that begins with its number, or ends in it; a sign that parts the two is surer than a space.
NUMBERED = (
    ("begin with", "sign", re.compile(rf'"?(?P<number>{INTEGER})"?(?:\s*[,:;=|\t]\s*(?P<name>.*))?')),
    ("end in", "sign", re.compile(rf'(?P<name>.+)[,:;=|\t]\s*"?(?P<number>{INTEGER})"?')),
    ("begin with", "space", re.compile(rf'"?(?P<number>{INTEGER})"?(?:(?:\s*[,:;=|\t]\s*|[.)]?\s+)(?P<name>.*))?')),
    ("end in", "space", re.compile(rf"(?P<name>.+)\s(?P<number>{INTEGER})")),
)
DISTINCT = 0.9  # where a smaller share of the names differs without the numbers, these belong to the names

# Headings of a table, lower case, letters and digits only; the first that is there counts.
INDEX_COLUMNS = (
    *("index", "idx", "classindex", "classidx", "classid", "labelindex", "labelidx", "labelid", "categoryid", "id"),
    *("number", "", "label", "class"),
)
NAME_COLUMNS = ("displayname", "classname", "labelname", "categoryname", "name", "label", "class", "category", "title")
SURE_INDICES = set(INDEX_COLUMNS) - set(NAME_COLUMNS)

# Where JSON and Python files keep their labels, beside other things.
NESTED = (
    *("class_indices", "class_to_idx", "label2id", "id2label", "idx_to_class", "index_to_class"),
    *("labels", "classes", "class_names", "names", "categories"),
)

SYNSET = re.compile(r"n[0-9]{8}(?:[\s,:]+(?P<names>[^\s,:].*))?")
IDENTIFIER = re.compile(r"n[0-9]{8}|/[a-z]/\w+")
ITEM = re.compile(r"""item\s*:?\s*\{((?:[^{}"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*)\}[\s,]*""")
FIELD = re.compile(r"""(\w+)\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|-?\w+)""")

AN_ITEM = "item { id: 1 name: 'cat' }"
BRACKETED = re.compile(r"""(\[[^][{}"',:]+\]|\{[^][{}"',:]+\})[^][{}"',:]*(\n|$)""")  # a label such as [unknown]

# First lines that are perhaps no class of the model: a background that it lacks, or a heading.
NO_CLASS = {"background", "??", "???", "dummy", "none", "unlabeled", "labels", "classes", *NAME_COLUMNS}
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}
AS_LIST = 'if the numbers belong to the labels, give those as a JSON list such as ["7 up", "3 m"]'
TABLE = "expected a heading for its index such as index, and one for the labels such as name"
FORMS = 'expected a list of labels, or an object such as {"0": "cat", "1": "dog"} or {"cat": 0, "dog": 1}'


@dataclass(frozen=True)
class Labels:
    """One label a class, in the order of the classes.

    Attributes:
        names: of a binary model the negative class first, then the one whose probability the sigmoid gives.
        remarks: what the user should be told of how they were read, a line each.
    """

    names: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What a form of file says; ``each`` is what a label is one of where position tells its class, such as a line."""

    names: Sequence[str]
    remarks: tuple[str, ...] = ()
    each: str = ""


class Pair(NamedTuple):
    """A label, and the number that goes with it."""

    number: int
    name: str


class Reading(NamedTuple):
    """What lines say if one takes the number in each for its index; ``parted`` is by what, a sign or a space."""

    pairs: list[Pair]
    parted: str


class NotReadError(Exception):
    """What is wrong in a file of labels, and what to do; its path goes before it."""


def read_labels(path: Path | None, classes: int, binary: bool = False) -> Labels:
    """Return one label a class, from a file in one of many forms or the sub-folders of a folder; without, numbers.

    Args:
        path: ``--labels``.
        classes: of the model; 2 of a binary one.
        binary: whether one unit answers for two classes. Then one label will do, the positive class's.

    Raises:
        UsageError: it is no text, or does not say plainly which label is which class's.
        ModelError: it cannot be read, or has another number of labels.
    """
    if path is None:
        return Labels(tuple(f"class {index}" for index in range(classes)), ())
    try:
        found = _folder(path) if path.is_dir() else _recognized(_text(path))
        found = replace(found, names=[_clean(name) for name in found.names])
        found = _without_synsets(_without_blanks(found, classes))
        if wrong := _miscounted(found, classes, binary):
            raise ModelError(f"--labels {path}: {wrong}")
        _check_names(found)
    except NotReadError as error:
        raise UsageError(f"--labels {path}: {error}") from error
    except FileNotFoundError as error:
        raise ModelError(f"--labels {path}: no such file or folder; expected one with the model's labels") from error
    except OSError as error:
        raise ModelError(f"--labels {path}: it cannot be read ({error.strerror}); expected a text file") from error
    if len(found.names) == classes:
        return Labels(tuple(found.names), found.remarks)
    (name,) = found.names
    told = f"labels: one for two classes, so {name!r} is that of class 1, whose probability the sigmoid gives"
    return Labels((f"not {name}", name), (*found.remarks, told))


def _folder(path: Path) -> Found:
    """Return the names of the sub-folders in the order in which Keras' data sets number them."""
    folders = sorted(each.name for each in path.iterdir() if each.is_dir())
    names = [name for name in folders if not name.startswith(".")]
    if not names:
        raise NotReadError("no sub-folders in it; expected a file of labels, or a folder with a sub-folder a class")
    if PARTS.issuperset(name.lower() for name in names):
        raise NotReadError(
            f"its sub-folders are {', '.join(names)}, the parts of a data set; expected a sub-folder a class: "
            f"give {path / min(names, key=lambda name: not name.lower().startswith('train'))}"
        )
    hidden = [name for name in folders if name.startswith(".")]
    told = (f"labels: hidden folders were left out: {_some(hidden)}",) if hidden else ()
    return Found(names, told, each="sub-folder")


def _text(path: Path) -> str:
    """Return what the file says, with lines that end in a line feed."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise NotReadError(f"more than {MOST_BYTES >> 20} MiB; expected a text file with the model's labels")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotReadError("not UTF-8 text; expected labels, one a line: save it as UTF-8") from error
    if "\0" in text:
        raise NotReadError("not UTF-8 text, since it has zero bytes; expected labels, one a line: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _recognized(text: str) -> Found:
    return next(found for recognizer in RECOGNIZERS if (found := recognizer(text)))


# Forms of text: each returns what it reads, or None if the text is of another form.


def _json(text: str) -> Found | None:
    """Read JSON, and what Python prints of a list or dict, perhaps after ``name =``."""
    text = re.sub(r"\A\w+\s*=\s*(?=[\[{])", "", text.strip())
    if not text.startswith(("[", "{")):
        return None
    try:
        value = _parsed(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        if BRACKETED.match(text):
            return None
        raise NotReadError(f"neither JSON ({first_line(error)}) nor a list or dict of Python's; {FORMS}") from error
    parts = {key: value[key] for key in NESTED if key in value} if isinstance(value, dict) else {}
    inner = {key: part for key, part in parts.items() if isinstance(part, (dict, list))}
    first, *others = [_of_value(part) for part in inner.values() or [value]]
    if any(other.names != first.names for other in others):
        raise NotReadError(f"{', '.join(inner)} in it do not say the same; expected one of them: leave the others out")
    return first


def _label_map(text: str) -> Found | None:
    """Read a label map of TensorFlow's Object Detection API: ``item { id: 1 name: 'cat' }``."""
    text = re.sub(r"(?m)^\s*#.*$", "", text).strip()
    if not re.match(r"item\s*:?\s*\{", text):
        return None
    if rest := ITEM.sub("", text):
        raise NotReadError(f"{rest[:40]!r} is no item of a label map; expected only {AN_ITEM}")
    pairs = []
    for number, body in enumerate(ITEM.findall(text), 1):
        fields = dict(FIELD.findall(body))
        name = fields.get("display_name", fields.get("name"))
        if name is None or not _is_index(fields.get("id")):
            raise NotReadError(f"item {number} of the label map lacks its id or name; expected {AN_ITEM}")
        pairs.append(Pair(int(fields["id"]), _unescaped(name)))
    return _ordered(pairs)


def _table(text: str) -> Found | None:
    """Read a table with headings, of which one is an index: parted by commas, tabs or semicolons."""
    for delimiter in ",\t;":
        try:
            reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
            rows = [row for row in reader if any(map(str.strip, row))]
        except csv.Error:
            continue
        if len(rows) > 1 and len(rows[0]) > 1 and (found := _of_rows(rows[0], rows[1:])):
            return found
    return None


def _numbered(text: str) -> Found | None:
    """Read lines of which each has the number of its class, before its label or after it."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    readings = _readings(lines)
    repeating = [reading.pairs for reading in readings if _repeats(reading.pairs, lines)]
    complete = [each for each in readings if each.pairs not in repeating and _start(each.pairs) is not None]
    if complete:
        pairs, parted = _unambiguous(complete)
        found = _ordered(pairs)
        told = ("labels: the number in each line is its class's, and no part of the label",) * (parted == "space")
        return replace(found, remarks=(*told, *found.remarks))
    if not readings or not repeating:
        return _ordered(readings[0].pairs, AS_LIST) if readings else None
    pairs, found = repeating[0], _lines(text)
    if len({pair.name for pair in pairs}) == 1:
        return found  # "class 1", "class 10", "class 2": without its number none is a label
    if _start(pairs) is not None and pairs != sorted(pairs):
        raise NotReadError(
            f"its lines are numbered, in another order, and labels repeat; name them apart, or {AS_LIST}"
        )
    return replace(found, remarks=("labels: their numbers stay a part of them, since many are the same without",))


def _lines(text: str) -> Found:
    """Read one label a line; those in the middle that are blank stay, and those after the last are none."""
    names = text.rstrip().split("\n") if text.strip() else []
    filled = [name.strip() for name in names if name.strip()]
    told: tuple[str, ...] = ()
    for place, parted, pattern in NUMBERED:
        numbers = {int(match["number"]) for name in filled if (match := pattern.fullmatch(name))}
        if parted == "space" and len(filled) / 2 < len(numbers) < len(filled) >= max(numbers):
            told = (f"labels: {len(numbers)} of {len(filled)} lines {place} a number, which stays a part of them",)
    return Found(names, told, each="line")


RECOGNIZERS: Sequence[Callable[[str], Found | None]] = (_json, _label_map, _table, _numbered, _lines)


# What those have in common: numbers and the labels they go with.


def _is_index(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(INTEGER, value.strip()) is not None
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _start(pairs: Sequence[Pair]) -> int | None:
    """Return 0 if the numbers are 0 to n - 1, each once, and 1 if they are 1 to n; else None."""
    numbers = sorted(pair.number for pair in pairs)
    return next((start for start in (0, 1) if numbers == list(range(start, start + len(numbers)))), None)


def _ordered(pairs: Sequence[Pair], remedy: str = "") -> Found:
    """Return the names in the order of their numbers, which are 0 to n - 1, or 1 to n.

    Raises:
        NotReadError: a number is missing, or there twice.
    """
    start = _start(pairs)
    if start is None:
        counts = Counter(pair.number for pair in pairs)
        least = min(1, *counts)
        absent = (number for number in range(least, max(counts)) if number not in counts)
        missing, repeated = list(islice(absent, 6)), [number for number in sorted(counts) if counts[number] > 1]
        wrong = [f"index {_some(missing)} is missing"] if missing else []
        wrong += [f"index {_some(repeated)} is there more than once"] if repeated else []
        expected = f"expected each of {least} to {least + len(pairs) - 1} once: give each class its own"
        raise NotReadError("; ".join(filter(None, (" and ".join(wrong), expected, remedy))))
    told = (f"labels: their numbers are 1 to {len(pairs)}, so number 1 is class 0",) if start else ()
    return Found([pair.name for pair in sorted(pairs)], told)


def _readings(lines: Sequence[str]) -> list[Reading]:
    """Return in which ways each line has a number and a label, the surest first."""
    readings: list[Reading] = []
    in_front = False
    for place, parted, pattern in NUMBERED:
        matches = [match for line in lines if (match := pattern.fullmatch(line))]
        pairs = [Pair(int(match["number"]), match["name"] or "") for match in matches]
        if len(pairs) < len(lines) or not any(pair.name for pair in pairs):
            continue
        if place == "end in" and in_front and not all(_is_index(pair.name) for pair in pairs):
            continue  # "0 Class 1"
        if (place, parted) == ("end in", "space") and _start(pairs) is None and max(pairs).number > len(pairs):
            continue  # "Audi S4 2012"
        in_front |= place == "begin with"
        readings.append(Reading(pairs, parted))
    return readings


def _repeats(pairs: Sequence[Pair], lines: Sequence[str]) -> bool:
    """Return whether it is the numbers that tell labels apart, as in "2 of clubs", "3 of clubs"."""
    return len({pair.name for pair in pairs}) < DISTINCT * len(set(lines))


def _unambiguous(readings: Sequence[Reading]) -> Reading:
    """Return the surest reading.

    Raises:
        NotReadError: lines are of two numbers each, and either may be the index.
    """
    if not all(_is_index(pair.name) for pair in readings[0].pairs):
        return readings[0]
    first, *others = [each for each in readings if _start(each.pairs) == 0] or readings
    if any(sorted(other.pairs) != sorted(first.pairs) for other in others):
        raise NotReadError(f"its lines are two numbers each, and either may be the index; {FORMS}")
    return first


def _of_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Found | None:
    """Return the labels of a table; None if nothing in it is an index."""
    cells = [re.sub(r"[\W_]", "", heading.lower()) for heading in headings]
    indices = [cells.index(column) for column in INDEX_COLUMNS if column in cells]
    whole = [at for at in indices if all(at < len(row) and _is_index(row[at]) for row in rows)]
    named = [cells.index(column) for column in NAME_COLUMNS if column in cells]
    if not whole and not (SURE_INDICES.intersection(cells) and named):
        return None
    index = (whole or indices)[0]
    name = next((at for at in named or range(len(cells)) if at != index), None)
    either = index in whole and name in whole and cells[index] not in SURE_INDICES
    if not whole or name is None or either or (len(cells) > 2 and not named):
        raise NotReadError(f"a table of {_some(headings)}, but not of an index and a label a row; {TABLE}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(cells):
            raise NotReadError(
                f"row {number} has {len(row)} columns, its headings {len(cells)}; "
                'expected as many: put a label with commas in quotes, "…"'
            )
    return _ordered([Pair(int(row[index]), row[name]) for row in rows])


# What JSON and Python's lists and dicts hold.


def _parsed(text: str) -> object:
    """Return the value of JSON, or else of a Python literal; of neither JSON's error says what is wrong."""
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text, mode="eval")
                value: object = ast.literal_eval(tree)
        except (ValueError, SyntaxError, TypeError):
            raise error from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _once_each([(ast.literal_eval(key), None) for key in node.keys if key])
    if re.search(r"""(['"])\s+\1""", text):
        raise NotReadError("no comma between two of its labels; expected a list such as ['cat', 'dog']")
    return value


def _once_each(pairs: Sequence[tuple[object, object]]) -> dict[object, object]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise NotReadError(f"{_some(repeated)} more than once in it; expected each once: take the wrong one out")
    return dict(pairs)


def _of_value(value: object) -> Found:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        headings = list(dict.fromkeys(str(key) for each in value for key in each))
        if found := _of_rows(headings, [[str(each.get(key, "")) for key in headings] for each in value]):
            return found
    elif isinstance(value, list):
        return Found([_name(each) for each in value], each="string")
    elif isinstance(value, dict):
        return _ordered(_pairs(value))
    raise NotReadError(f"{_shown(value)} in it is no list of labels; {FORMS}")


def _pairs(value: Mapping[object, object]) -> list[Pair]:
    """Return the numbers and labels of a dict, whichever of them are its keys.

    Raises:
        NotReadError: neither are numbers, or both are, unquoted.
    """
    by_key, by_value = all(map(_is_index, value)), all(map(_is_index, value.values()))
    bare_key, bare_value = (any(isinstance(each, int) for each in side) for side in (value, value.values()))
    if by_key and by_value and bare_key and bare_value:
        raise NotReadError(f"its keys and its values are numbers, and either may be the index; {FORMS}")
    if by_key and not bare_value:
        return [Pair(int(str(index)), _name(name)) for index, name in value.items()]
    if by_value:
        return [Pair(int(str(index)), _name(name)) for name, index in value.items()]
    raise NotReadError(f"{_shown(next(iter(value.items())))} in it is no pair of an index and a label; {FORMS}")


def _name(value: object) -> str:
    """Return a label, which may be a number, or a list of identifiers and the label."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return next((str(each) for each in value if not IDENTIFIER.fullmatch(each)), str(value[0]))
    if isinstance(value, str) or _is_index(value):
        return str(value)
    raise NotReadError(f"{_shown(value)} in it is no label; {FORMS}")


def _unescaped(value: str) -> str:
    r"""Return what a string of a label map says, where ``\303\251`` is an é in UTF-8."""
    if value[:1] not in ("'", '"'):
        return value
    escape = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)
    data = escape.sub(lambda match: bytes([int(match[1], 8)]) if match[1][1:] else match[1], value[1:-1].encode())
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotReadError(f"{_shown(value)} is not UTF-8; expected {AN_ITEM}") from error


# What becomes of names, in whatever form they were.


def _clean(name: str) -> str:
    """Return a name without spaces and quotes around it, nor a comma after these."""
    name = name.strip()
    quoted = re.fullmatch(r"""(["'])((?:(?!\1).)*)\1,?""", name)
    return quoted[2].strip() if quoted else name


def _without_blanks(found: Found, classes: int) -> Found:
    """Return what was found without blank lines, if it has a label a class then.

    Raises:
        NotReadError: a class has no name.
    """
    blank = [index for index, name in enumerate(found.names) if not name]
    if not blank:
        return found
    if found.each != "line" or len(found.names) == classes:
        line = f"line {blank[0] + 1} is blank: " if found.each == "line" else ""
        raise NotReadError(f"{line}class {blank[0]} has no name; expected one a class: give it one")
    told = f"labels: blank lines were left out: {_some([index + 1 for index in blank])}"
    return replace(found, names=[name for name in found.names if name], remarks=(*found.remarks, told))


def _without_synsets(found: Found) -> Found:
    """Return each WordNet synset's first name, where all begin with its number; the numbers, if there is no more."""
    matches = [match for name in found.names if (match := SYNSET.fullmatch(name))]
    if not matches or len(matches) < len(found.names):
        return found
    if all(match["names"] for match in matches):
        return replace(found, names=[_clean(_clean(match["names"]).split(",")[0]) for match in matches])
    told = (
        f"labels: they are WordNet's numbers, such as {found.names[0]}; give a file with their names for readable ones"
    )
    return replace(found, remarks=(*found.remarks, told))


def _miscounted(found: Found, classes: int, binary: bool) -> str | None:
    """Return what is wrong with the number of labels, and perhaps why."""
    names, count = found.names, len(found.names)
    in_one = found.each == "line" and count == 1 and len(re.split(r"[,;|\t]", names[0])) == classes
    if count == classes or (binary and count == 1 and found.each in ("line", "string") and not in_one):
        return None
    hint = ""
    if in_one:
        hint = f": put each of {_shown(names[0])} on a line of its own"
    elif count == classes + 1 and (names[0].lower().strip("_:") in NO_CLASS or names[0][0] == "#"):
        hint = f": leave out the first, {names[0]!r}, if the model has no such class"
    elif binary:
        hint = ": give both, or the second's alone in a file with nothing else"
    elif count == classes - 1:
        hint = ": if the model has a class for the background, put its name where that class is, mostly first"
    what = f"{count} label{'' if count == 1 else 's'} for the model's {classes} classes"
    return f"{what}; expected one a {found.each or 'class'}, in the order of the classes{hint}"


def _check_names(found: Found) -> None:
    """Check that each label is a line by itself.

    Raises:
        NotReadError: one is empty, or has a control character.
    """
    for index, name in enumerate(found.names):
        if not name:
            raise NotReadError(f"class {index} has no name; expected one a class: give it one")
        if wrong := [char for char in name if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]:
            raise NotReadError(
                f"label {_shown(name)} of class {index} has the control character U+{ord(wrong[0]):04X}; "
                "expected plain text: take it out"
            )


def _some(values: Sequence[object]) -> str:
    return ", ".join([repr(value) for value in values[:5]] + ["…"] * (len(values) > 5))


def _shown(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"

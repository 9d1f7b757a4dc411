"""``--labels``: what is in a file, in whatever form, and never a label for the wrong class without a word."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevid.errors import EdgevidError, ModelError, UsageError
from edgevid_convert.labels import Labels, read_labels

CAT_DOG = "cat", "dog"
FROM_ONE = "labels: their numbers are 1 to 2, so number 1 is class 0"
LEFT_OUT = "labels: the number in each line is its class's, and no part of the label"
STAY = "labels: their numbers stay a part of them, since many are the same without"
ITEM = "item {{\n  id: {}\n  name: '{}'\n}}\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Labels]:
    def of(content: str | bytes, classes: int, binary: bool = False) -> Labels:
        path = tmp_path / "labels.any"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labels(path, classes, binary)

    return of


def folders(parent: Path, *names: str) -> Path:
    for name in names:
        (parent / name).mkdir(parents=True)
    return parent


@pytest.mark.parametrize(
    ("content", "names"),
    [
        # One a line.
        ("cat\ndog", CAT_DOG),
        ("cat\ndog\n\n  \n", CAT_DOG),
        ("\ufeffcat\r\ndog\r\n", CAT_DOG),
        ("cat\rdog\r", CAT_DOG),
        ("café\n犬\n".encode("utf-16"), ("café", "犬")),
        (b"\xfe\xff" + "café\r\n犬".encode("utf-16-be"), ("café", "犬")),
        ("  cat \n'dog'\n", CAT_DOG),
        ('"cat",\n"dog",\n', CAT_DOG),
        ("tench, Tinca tinca\ndon't know", ("tench, Tinca tinca", "don't know")),
        ("[unknown]\ncat", ("[unknown]", "cat")),
        ("cat\ncat", ("cat", "cat")),
        # Plain labels with numbers in them.
        ("\n".join("0123456789"), tuple("0123456789")),
        ("0\n1\n10\n2", ("0", "1", "10", "2")),
        ("3d printer\n7 of hearts\nace", ("3d printer", "7 of hearts", "ace")),
        ("class 1\nclass 10\nclass 2", ("class 1", "class 10", "class 2")),
        ("1 euro\n10 euro\n2 euro", ("1 euro", "10 euro", "2 euro")),
        ("Audi S4 2012\nAudi S4 2007", ("Audi S4 2012", "Audi S4 2007")),
        ("Windows 10\nmacOS 12", ("Windows 10", "macOS 12")),
        ("2.5 mm\n3.5 mm", ("2.5 mm", "3.5 mm")),
        # Numbered lines.
        ("0: cat\n1: dog", CAT_DOG),
        ("0,cat\n\n1,dog\n", CAT_DOG),
        ("0\tcat\n1\tdog", CAT_DOG),
        ("1;dog\n0;cat", CAT_DOG),
        ('0,"cat, tabby"\n1,"dog"', ("cat, tabby", "dog")),
        ("0, Class 1\n1, Class 2", ("Class 1", "Class 2")),
        (
            "\n".join(f"{index}, {index}th" for index in (10, 3, *range(3), *range(4, 10))),
            [f"{i}th" for i in range(11)],
        ),
        # Lines that end in their numbers.
        ("cat,0\ndog,1", CAT_DOG),
        ("dog: 1\ncat: 0", CAT_DOG),
        ("cat\t0\ndog\t1", CAT_DOG),
        ("2 of clubs,0\n3 of clubs,1", ("2 of clubs", "3 of clubs")),
        ("1 euro,1\n2 euro,0", ("2 euro", "1 euro")),
        ("0,0\n1,1\n10,2\n2,3", ("0", "1", "10", "2")),
        # JSON, and Python.
        ('["cat", "dog"]', CAT_DOG),
        ("[0, 1]", ("0", "1")),
        ('["1 cat", "0 dog"]', ("1 cat", "0 dog")),
        ('{"dog": 1, "cat": 0}', CAT_DOG),
        ('{"cat": "0", "dog": "1"}', CAT_DOG),
        ('\ufeff\r\n{"1": "dog", "0": "cat"}', CAT_DOG),
        ('{"0": 0, "1": 1, "10": 2, "2": 3}', ("0", "1", "10", "2")),
        ('{"0": "1", "1": "0"}', ("1", "0")),
        ('{"0": ["n01440764", "tench"], "1": ["n01443537", "great_white_shark"]}', ("tench", "great_white_shark")),
        ("{'cat': 0, 'dog': 1}\n", CAT_DOG),
        ("{0: 'cat, tabby',\n 1: \"dog's\",}", ("cat, tabby", "dog's")),
        ("class_names = ['cat', 'dog']", CAT_DOG),
        ('{"class_indices": {"dog": 1, "cat": 0}}', CAT_DOG),
        ('{"labels": ["cat", "dog"], "version": 1}', CAT_DOG),
        ('{"classes": ["cat", "dog"]}', CAT_DOG),
        ('{"class_names": ["cat", "dog"]}', CAT_DOG),
        ('{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}', CAT_DOG),
        ('{"labels": 0, "classes": 1}', ("labels", "classes")),
        ('[{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}]', CAT_DOG),
        # Tables with headings.
        ("index,name\n1,dog\n0,cat\n", CAT_DOG),
        ("id,label\n0,cat\n1,dog", CAT_DOG),
        ("class_id,class_name\n0,cat\n1,dog", CAT_DOG),
        ("label,index\ndog,1\ncat,0", CAT_DOG),
        ("label,name\n0,cat\n1,dog", CAT_DOG),
        ("ClassId,SignName\n0,cat\n1,dog", CAT_DOG),
        (",name\n0,cat\n1,dog", CAT_DOG),
        ("Class ID\tClass Name\n1\tdog\n0\tcat", CAT_DOG),
        ("id;name\r\n0;cat\r\n1;dog\r\n", CAT_DOG),
        ("id,label\n0,7\n1,3", ("7", "3")),
        (
            'index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/0ytgt,"Child speech, kid speaking"\n',
            ("Speech", "Child speech, kid speaking"),
        ),
        # WordNet's numbers.
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus", ("tench", "goldfish")),
        ("n01440764\ttench\nn01443537\tgoldfish", ("tench", "goldfish")),
        ("1,n01443537,goldfish\n0,n01440764,tench", ("tench", "goldfish")),
        # Label maps.
        (ITEM.format(1, "dog") + ITEM.format(0, "cat"), CAT_DOG),
        ("# two\nitem: { id: 0, name: '/m/01', display_name: \"cat\" } item { id: 1 display_name: 'dog' }", CAT_DOG),
        (r"item { id: 0 name: 'caf\303\251' } item { id: 1 name: 'dog\'s {}' }", ("café", "dog's {}")),
    ],
)
def test_it_is_told_by_the_content(read: Callable[..., Labels], content: str | bytes, names: Sequence[str]) -> None:
    assert read(content, len(names)) == Labels(tuple(names), ())


@pytest.mark.parametrize(
    ("content", "names", "remarks"),
    [
        ("0 cat\n1 dog\n", CAT_DOG, [LEFT_OUT]),
        ("1 dog\n0 cat", CAT_DOG, [LEFT_OUT]),
        ("0. cat\n1) dog", CAT_DOG, [LEFT_OUT]),
        ("0 Class 1\n1 Class 2", ("Class 1", "Class 2"), [LEFT_OUT]),
        ("0 1\n1 2\n2 3", ("1", "2", "3"), [LEFT_OUT]),
        ("0 ratio 16:9\n1 ratio 4:3", ("ratio 16:9", "ratio 4:3"), [LEFT_OUT]),
        ("dog 1\ncat 0", CAT_DOG, [LEFT_OUT]),
        ("2: dog\n1: cat", CAT_DOG, [FROM_ONE]),
        ("1 cat\n2 dog", CAT_DOG, [LEFT_OUT, FROM_ONE]),
        ('{"cat": 1, "dog": 2}', CAT_DOG, [FROM_ONE]),
        ("id,name\n1,cat\n2,dog", CAT_DOG, [FROM_ONE]),
        (ITEM.format(2, "dog") + ITEM.format(1, "cat"), CAT_DOG, [FROM_ONE]),
        ("2 of clubs\n3 of clubs\n2 of hearts", ("2 of clubs", "3 of clubs", "2 of hearts"), [STAY]),
        ("0 people\n1 person\n2 people", ("0 people", "1 person", "2 people"), [STAY]),
        ("0\n1\n2\n3 or more", ("0", "1", "2", "3 or more"), [STAY]),
        (
            "0 cat\n1 dog\nbird",
            ("0 cat", "1 dog", "bird"),
            ["labels: 2 of 3 lines begin with a number, which stays a part of them"],
        ),
        (
            "bird 0\ncat 1\ndog",
            ("bird 0", "cat 1", "dog"),
            ["labels: 2 of 3 lines end in a number, which stays a part of them"],
        ),
        ("cat\n\ndog\n", CAT_DOG, ["labels: blank lines were left out: 2"]),
        (
            "n01440764\nn01443537",
            ("n01440764", "n01443537"),
            ["labels: they are WordNet's numbers, such as n01440764; give a file with their names for readable ones"],
        ),
    ],
)
def test_what_is_no_matter_of_course_is_remarked(
    read: Callable[..., Labels], content: str, names: Sequence[str], remarks: Sequence[str]
) -> None:
    assert read(content, len(names)) == Labels(tuple(names), tuple(remarks))


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        # No text.
        (b"\x89PNG\r\n\x1a\n", 2, "not UTF-8 text; expected labels, one a line: save it as UTF-8"),
        (b"\xff\xfe\n", 2, "not UTF-8 text"),
        ("caf\xe9\ndog".encode("latin-1"), 2, "not UTF-8 text"),
        ("cat\ndog".encode("utf-16-le"), 2, "it has zero bytes"),
        (b"a\n" * (9 << 20), 2, "more than 16 MiB; expected a text file"),
        ("cat\tfelis\ndog", 2, r"label 'cat\tfelis' of class 0 has the control character U+0009; expected plain text"),
        ("cat\u2028dog\ncow", 2, "control character U+2028"),
        (r'["cat", "\ud800"]', 2, "control character U+D800"),
        # Numbers that are none of the classes'.
        ("0 cat\n2 dog\n3 cow", 3, "index 1 is missing; expected each of 0 to 2 once: give each class its own; if the"),
        ("0 cat\n1 dog\n1 cow", 3, "index 1 is there more than once; expected each of 0 to 2 once"),
        ("0 cat\n2 dog\n2 cow", 3, "index 1 is missing and index 2 is there more than once"),
        ("1 cat\n2 dog\n90 cow", 3, "index 3, 4, 5, 6, 7, … is missing; expected each of 1 to 3 once"),
        ("cat,0\ndog,2", 2, "index 1 is missing"),
        ("cat 0\ndog 2", 2, "index 1 is missing"),
        ("0 Class 1\n2 Class 2", 2, "index 1 is missing"),
        (
            "7 of hearts\n8 of clubs",
            2,
            'if the numbers belong to the labels, give those as a JSON list such as ["7 up"',
        ),
        ("16:9\n4:3", 2, "if the numbers belong to the labels"),
        ("0 cat\n1\n2 dog", 3, "class 1 has no name; expected one a class: give it one"),
        ("2 cat\n0 cat\n1 dog", 3, "its lines are numbered, in another order, and labels repeat; name them apart"),
        ("0,2\n1,0\n2,1", 3, "its lines are two numbers each, and either may be the index; expected a list"),
        ('{"cat": 0, "dog": 2}', 2, "index 1 is missing"),
        ("id,name\n0,cat\n0,dog", 2, "index 0 is there more than once"),
        (ITEM.format(1, "cat") + ITEM.format(3, "dog"), 2, "index 2 is missing; expected each of 1 to 2 once"),
        # JSON and Python.
        ('{"0": "cat",\n "1": "do', 2, "neither JSON (Unterminated string starting at: line 2 column 7 (char 19)) nor"),
        ("[" * 100_000, 2, "neither JSON ("),
        ("{'cat': zero}", 2, "neither JSON ("),
        ("['cat' 'dog']", 1, "no comma between two of its labels; expected a list such as ['cat', 'dog']"),
        ("{'cat', 'dog'}", 2, "in it is no list of labels; expected a list of labels, or an object such as"),
        ('{"0": "cat", "0": "cow", "1": "dog"}', 2, "'0' more than once in it; expected each once"),
        ("{0: 'cat', 0: 'cow', 1: 'dog'}", 2, "0 more than once in it; expected each once"),
        ("{0: 1, 1: 0}", 2, "its keys and its values are numbers, and either may be the index"),
        ('{"cat": "felis", "dog": "canis"}', 2, "('cat', 'felis') in it is no pair of an index and a label"),
        ('{"cat": 0.0, "dog": 1.0}', 2, "('cat', 0.0) in it is no pair of an index and a label"),
        ('{"cat": false, "dog": true}', 2, "('cat', False) in it is no pair of an index and a label"),
        ('{"layers": {"cat": 0, "dog": 1}}', 2, "in it is no pair of an index and a label"),
        ('["cat", null]', 2, "None in it is no label"),
        ('["cat", ""]', 2, "class 1 has no name"),
        ('[{"cat": 0}, {"dog": 1}]', 2, "[{'cat': 0}, {'dog': 1}] in it is no list of labels"),
        ('{"labels": ["cat", "dog"], "classes": ["dog", "cat"]}', 2, "labels, classes in it do not say the same"),
        # Tables.
        ("id,name\nzero,cat\none,dog", 2, "a table of 'id', 'name', but not of an index and a label a row; expected"),
        ("id,english,german\n0,cat,Katze\n1,dog,Hund", 2, "a table of 'id', 'english', 'german', but not of an"),
        ("label,class\n0,1\n1,0", 2, "a table of 'label', 'class', but not of an index and a label a row"),
        ("id,name\n0,cat, tabby\n1,dog", 2, "row 1 has 3 columns, its headings 2; expected as many: put a label with"),
        ("\tname\x0b\n,", 1, r"a table of '', 'name\x0b', but not of an index and a label a row"),
        ("n01440764 ''\nn01443537 goldfish", 2, "class 0 has no name; expected one a class: give it one"),
        # Label maps.
        (
            "item { name: 'cat' }",
            1,
            "item 1 of the label map lacks its id or name; expected item { id: 1 name: 'cat' }",
        ),
        ("item { id: 1 name: 'cat", 1, "is no item of a label map; expected only item { id: 1 name: 'cat' }"),
        (r"item { id: 1 name: '\377' }", 1, "is not UTF-8; expected item {"),
        # Blank lines.
        ("cat\n\ndog", 3, "line 2 is blank: class 1 has no name; expected one a class: give it one"),
        ("\ncat\n\ndog", 4, "line 1 is blank: class 0 has no name"),
    ],
)
def test_what_may_be_wrong_is_an_error(
    read: Callable[..., Labels], tmp_path: Path, content: str | bytes, classes: int, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        read(content, classes)
    assert str(error.value).startswith(f"--labels {tmp_path / 'labels.any'}: ")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        ("cat\ndog", 4, "2 labels for the model's 4 classes; expected one a line, in the order of the classes"),
        ("", 2, "0 labels for the model's 2 classes"),
        ("cat\n\ndog", 4, "2 labels for the model's 4 classes"),
        ('["cat"]', 4, "1 label for the model's 4 classes; expected one a string"),
        ("{}", 4, "0 labels for the model's 4 classes; expected one a class"),
        ("background\ncat\ndog", 2, "leave out the first, 'background', if the model has no such class"),
        ("??\ncat\ndog", 2, "leave out the first, '??', if the model has no such class"),
        ("0 Background\n1 cat\n2 dog", 2, "leave out the first, 'Background', if the model has no such class"),
        ("# animals\ncat\ndog", 2, "leave out the first, '# animals', if the model has no such class"),
        ("name\ncat\ndog", 2, "leave out the first, 'name', if the model has no such class"),
        ("cow\ncat\ndog", 2, "in the order of the classes$"),
        ("cat\ndog", 3, "if the model has a class for the background, put its name where that class is"),
        ("cat, dog, cow", 3, "put each of 'cat, dog, cow' on a line of its own"),
    ],
)
def test_another_number_of_labels_is_an_error(
    read: Callable[..., Labels], content: str, classes: int, message: str
) -> None:
    with pytest.raises(ModelError) as error:
        read(content, classes)
    assert message.rstrip("$") in str(error.value)
    assert not message.endswith("$") or str(error.value).endswith(message[:-1])


def test_without_a_file_they_are_numbered() -> None:
    assert read_labels(None, 3) == Labels(("class 0", "class 1", "class 2"), ())
    assert read_labels(None, 2, binary=True) == Labels(("class 0", "class 1"), ())


@pytest.mark.parametrize("content", ["dog", "dog\n\n", '["dog"]'])
def test_a_binary_model_may_have_one(read: Callable[..., Labels], content: str) -> None:
    labels = read(content, 2, binary=True)
    assert labels.names == ("not dog", "dog")
    assert labels.remarks == (
        "labels: one for two classes, so 'dog' is that of class 1, whose probability the sigmoid gives",
    )
    with pytest.raises(ModelError, match="1 label for the model's 2 classes"):
        read(content, 2)


def test_a_binary_model_may_have_two(read: Callable[..., Labels]) -> None:
    assert read("no dog\ndog", 2, binary=True) == Labels(("no dog", "dog"), ())
    assert read('{"dog": 1, "cat": 0}', 2, binary=True) == Labels(CAT_DOG, ())


@pytest.mark.parametrize("content", ["0 dog", "1 dog", '{"dog": 0}', "cat, dog", "cat\ncow\ndog"])
def test_one_that_says_its_class_is_not_taken_for_another(read: Callable[..., Labels], content: str) -> None:
    with pytest.raises(ModelError, match="for the model's 2 classes"):
        read(content, 2, binary=True)


def test_the_folders_of_a_data_set(tmp_path: Path) -> None:
    folders(tmp_path, "b", "a", "10", "2", "B")
    (tmp_path / "a" / "inner").mkdir()
    (tmp_path / "readme.txt").touch()
    assert read_labels(tmp_path, 5) == Labels(("10", "2", "B", "a", "b"), ())
    with pytest.raises(ModelError, match="5 labels for the model's 4 classes; expected one a sub-folder"):
        read_labels(tmp_path, 4)
    folders(tmp_path, ".ipynb_checkpoints")
    assert read_labels(tmp_path, 5).remarks == ("labels: hidden folders were left out: '.ipynb_checkpoints'",)


def test_folders_of_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sub-folders in it; expected a file of labels, or a folder with a sub-fol"):
        read_labels(tmp_path, 2)
    folders(tmp_path, "validation", "train")
    with pytest.raises(UsageError, match=r"the parts of a data set; expected a sub-folder a class: give .*/train$"):
        read_labels(tmp_path, 2)
    one = folders(tmp_path / "train", "dog").resolve()
    with pytest.raises(ModelError, match="1 label for the model's 2 classes"):
        read_labels(one, 2, binary=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--labels .*absent.txt: no such file or folder; expected"):
        read_labels(tmp_path / "absent.txt", 2)
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="it cannot be read"):
        read_labels(tmp_path / "file" / "below", 2)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([headings, *rows])
    return text.getvalue()


WRITERS: dict[str, Callable[[list[str]], str | bytes]] = {
    "lines": "\n".join,
    "quoted lines": lambda names: "".join(f'"{name}",\r\n' for name in names),
    "UTF-16": lambda names: "\r\n".join(names).encode("utf-16"),
    "0 name": lambda names: "\n".join(f"{index} {name}" for index, name in enumerate(names)),
    "1: name": lambda names: "\n".join(f"{index}: {name}" for index, name in enumerate(names, 1)),
    "name,0, reversed": lambda names: "\n".join(f"{name},{index}" for index, name in [*enumerate(names)][::-1]),
    "name 0": lambda names: "\n".join(f"{name} {index}" for index, name in enumerate(names)),
    "list": json.dumps,
    "Python's list": repr,
    "class_indices": lambda names: json.dumps({"class_indices": {name: index for index, name in enumerate(names)}}),
    "names by index": lambda names: json.dumps({str(index): name for index, name in enumerate(names)}, indent=1),
    "imagenet_class_index": lambda names: json.dumps(
        {str(index): [f"n{index:08}", name] for index, name in enumerate(names)}
    ),
    "Python's dict": lambda names: repr({name: index for index, name in enumerate(names)}),
    "objects": lambda names: json.dumps([{"id": index, "name": name} for index, name in enumerate(names)][::-1]),
    "table": lambda names: table(["index", "mid", "display_name"], [[i, "/m/0", n] for i, n in enumerate(names)]),
    "table with tabs": lambda names: table(["name", "id"], [[n, i] for i, n in enumerate(names)][::-1], "\t"),
    "label map": lambda names: "".join(
        f"item {{\n  id: {index}\n  name: {json.dumps(name, ensure_ascii=False)}\n}}\n"
        for index, name in enumerate(names, 1)
    ),
}
LETTERS = st.characters(categories=["L"])
INNER = st.characters(categories=["L", "M"], include_characters=" ,.-'/&()")
NAMES = st.builds("{}{}{}".format, LETTERS, st.text(INNER, max_size=12), LETTERS)


@pytest.mark.parametrize("form", WRITERS)
@settings(max_examples=50, deadline=None)
@given(names=st.lists(NAMES, min_size=2, max_size=15, unique=True))
def test_plain_labels_come_back_from_each_form(
    tmp_path_factory: pytest.TempPathFactory, form: str, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"labels as {form}"
    content = WRITERS[form](names)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_labels(path, len(names)).names == tuple(names)


@settings(max_examples=300, deadline=None)
@given(content=st.text(st.sampled_from("012 ,:\n\t{}[]\"'ab#"), max_size=40), classes=st.integers(1, 4))
def test_whatever_is_in_it_there_is_a_label_a_class_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: str, classes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels of any kind"
    path.write_text(content)
    try:
        names = read_labels(path, classes).names
    except EdgevidError as error:
        lines, count = [str(error)], 1
    else:
        lines, count = list(names), classes
    assert len(lines) == count
    assert all(line == line.strip() and len(line.splitlines()) == 1 for line in lines)

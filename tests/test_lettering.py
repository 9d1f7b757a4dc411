"""Labels in any script: drawn as they are written, or named with what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgevid import Prediction, fonts
from edgevid.arrays import Image
from edgevid.draw import annotate, undrawable
from tests.conftest import LABELS, Outcome

UNASSIGNED = "\u0378"  # no font has it
SHAPING = pytest.mark.needs_fribidi


@pytest.fixture(autouse=True)
def dejavu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have one font at least: that of Matplotlib, with Arabic, Hebrew and some emoji."""
    matplotlib = find_spec("matplotlib")
    assert matplotlib
    assert matplotlib.origin
    folder = tmp_path / "home" / "fonts"
    folder.mkdir(parents=True)
    shutil.copy(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setattr(fonts, "FOLDERS", {sys.platform: ("~/fonts",)})
    known = (fonts._files, fonts._font_with)
    for table in known:
        table.cache_clear()
    yield
    for table in known:
        table.cache_clear()


def drawn(label: str, width: int = 400) -> Image:
    """Return what is drawn of a label, without the bar around it and the score."""
    bar = annotate(np.zeros((400, width, 3), np.uint8), Prediction(0, 0.0, label, 0.61, label, 0.61))
    bar = bar[-40:, : width - 60, 0]
    columns = np.flatnonzero(bar.any(axis=0))
    return bar[:, columns[0] : columns[-1] + 1]


def like(one: Image, other: Image) -> bool:
    return one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 8


@SHAPING
def test_what_is_written_from_right_to_left_is_drawn_so() -> None:
    first, second, both = drawn("א"), drawn("ש"), drawn("אש")
    assert like(both[:, : second.shape[1]], second)
    assert like(both[:, -first.shape[1] :], first)


@SHAPING
def test_so_is_latin_among_it() -> None:
    arabic, latin = drawn("دراجة"), drawn("دراجة AB")
    assert like(latin[:, -arabic.shape[1] :], arabic), "what comes first is on the right"


@SHAPING
def test_letters_are_joined() -> None:
    assert drawn("بب").shape[1] < 1.8 * drawn("ب").shape[1]
    word = drawn("بببب")
    assert word.any(axis=0).all(), "no gap between them"


@SHAPING
@pytest.mark.parametrize("label", ["cat 😀", "x̂", "ქართული", "山 😀", "cat, دراجة"])
def test_letters_of_several_fonts_stand_side_by_side(label: str) -> None:
    assert undrawable([label]) is None
    assert not like(drawn(label), drawn("".join("?" if ord(letter) > 0x2FF else letter for letter in label)))


@SHAPING
def test_a_long_label_is_cut_before_the_score() -> None:
    image = np.zeros((144, 176, 3), np.uint8)
    long = annotate(image, Prediction(0, 0.0, "دراجة " * 20, 0.61, "", 0.61))
    short = annotate(image, Prediction(0, 0.0, "ب", 0.61, "", 0.61))
    np.testing.assert_array_equal(long[:, -34:], short[:, -34:])


@pytest.mark.parametrize("size", [(2, 2), (20, 20), (16, 300), (300, 16)])
def test_small_frames(size: tuple[int, int]) -> None:
    for label in ("دراجة", UNASSIGNED, "a", "\u200b"):
        undrawable([label])
        annotate(np.zeros((*size, 3), np.uint8), Prediction(0, 0.0, label, 0.61, label, 0.61))


@pytest.mark.parametrize(("composed", "apart"), [("é", "e\u0301"), ("ộ", "o\u0323\u0302")])
def test_an_accent_may_be_a_letter_of_its_own(composed: str, apart: str) -> None:
    np.testing.assert_array_equal(drawn(f"a{composed}b"), drawn(f"a{apart}b"))


def test_what_no_font_has_is_named() -> None:
    complaint = undrawable(["red", f"x{UNASSIGNED}", f"y{UNASSIGNED}"]) or ""
    assert "2 labels" in complaint
    assert repr(f"x{UNASSIGNED}") in complaint
    assert undrawable(LABELS) is None


def renamed(bundle: Path, folder: Path, label: str) -> Path:
    """Return a copy of a bundle with another name for its first class."""
    shutil.copytree(bundle, folder)
    (folder / "labels.txt").write_text("\n".join([label, *LABELS[1:]]) + "\n", encoding="utf-8")
    manifest = json.loads((folder / "edgevid.json").read_text(encoding="utf-8"))
    manifest["labels_sha256"] = hashlib.sha256((folder / "labels.txt").read_bytes()).hexdigest()
    (folder / "edgevid.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize("label", [UNASSIGNED, "red"])
@pytest.mark.parametrize("save", [True, False])
def test_a_run_says_once_what_it_cannot_draw(
    tmp_path: Path, bundle_path: Path, clip: Path, cli: Callable[..., Outcome], label: str, save: bool
) -> None:
    bundle = renamed(bundle_path, tmp_path / "named.edgevid", label)
    outputs = ["--save", tmp_path / "out.mp4"] if save else ["--predictions", tmp_path / "out.jsonl"]
    outcome = cli("run", bundle, "--source", clip, *outputs)
    assert outcome.status == 0
    assert outcome.err.count("cannot be drawn") == (save and label == UNASSIGNED)


def test_without_pillow_a_run_says_what_to_install(tmp_path: Path, bundle_path: Path, clip: Path) -> None:
    bundle = renamed(bundle_path, tmp_path / "named.edgevid", "पहाड़ी")
    code = "import sys; sys.modules['PIL'] = None; from edgevid.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "run", bundle, "--source", clip, "--save", tmp_path / "out.mp4"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, env={**os.environ})
    line = next(line for line in done.stderr.splitlines() if "cannot be drawn" in line)
    assert "पहाड़ी" in line
    assert 'pip install "edgevid[text]"' in line
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[0]

"""``edgevid tune``, as a user types it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgevid import Smoothing
from edgevid_bench.tuning.streams import Stream
from edgevid_bench.tuning.tradeoff import Point, cuts, front, knee, measure
from tests.conftest import Outcome, write_clip

Cli = Callable[..., Outcome]
SCENES = (("red", "blue"), ("green", "red"), ("blue", "green"))  # and what flickers in it
SCENE_FRAMES = 75


@pytest.fixture(scope="module")
def flickering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine seconds of three scenes, with a flicker of one frame in ten."""
    colors = [other if index % 10 == 7 else color for color, other in SCENES for index in range(SCENE_FRAMES)]
    return write_clip(tmp_path_factory.mktemp("tune") / "scenes.mp4", colors)


@pytest.fixture
def own_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "own.edgevid"))


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.csv"
    path.write_text("start,end,label\n0,3,red\n3,6,green\n6,9,blue\n")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_knee_becomes_the_bundles_default(cli: Cli, own_bundle: Path, flickering: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "tune.csv", tmp_path / "tune.png"
    outcome = cli("tune", own_bundle, "--clip", flickering, "--output", table, "--output", picture)
    assert outcome.status == 0
    rows = {(row["method"], row["parameter"]): row for row in rows_of(table)}
    raw = rows["mean", "window 1"]
    shown = cli("run", own_bundle, "--source", flickering)
    flips = re.search(r"raw (\d+) .*smoothed (\d+)", shown.out)
    assert flips
    assert float(raw["flips/min"]) == pytest.approx(60 * int(flips[1]) / 9, abs=0.1)
    assert float(raw["median s"]) == 0
    for method in ("mean", "vote"):
        assert float(rows[method, "window 1s"]["median s"]) == pytest.approx(0.5, abs=0.09), "half the window"
    assert float(rows["exponential", "half-life 0.5s"]["median s"]) == pytest.approx(0.5, abs=0.09)
    (chosen,) = (row for row in rows.values() if row["choice"] == "chosen")
    assert float(chosen["flips/min"]) < 0.2 * float(raw["flips/min"])
    how = f"{chosen['method']}, {chosen['parameter']}"
    assert f"now it is {how}" in outcome.out
    assert f"smoothing    {how}" in cli("inspect", own_bundle).out
    assert float(chosen["flips/min"]) == pytest.approx(60 * int(flips[2]) / 9, abs=0.1), "run has it as tuned"
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[1] > 1000
    assert (image.min(axis=2) < 200).mean() > 0.005, "something is drawn"


def test_with_the_truth_it_measures_delay_and_accuracy(
    cli: Cli, own_bundle: Path, flickering: Path, truth: Path, tmp_path: Path
) -> None:
    before = (own_bundle / "edgevid.json").read_bytes()
    table, picture = tmp_path / "tune.md", tmp_path / "tune.svg"
    options = ("--truth", truth, "--methods", "mean,vote", "--dry-run", "--output", table, "--output", picture)
    outcome = cli("tune", own_bundle, "--clip", flickering, *options)
    assert outcome.status == 0
    assert re.search(r"right on 9\d\.\d% of the labelled frames; without smoothing on 90\.", outcome.out)
    assert (own_bundle / "edgevid.json").read_bytes() == before
    assert "after a true label begins" in picture.read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.read_text().splitlines()]
    mean = next(line for line in lines if line[:2] == ["mean", "window 1s"])
    assert float(mean[3]) == pytest.approx(0.5, abs=0.09)
    assert float(mean[5]) == pytest.approx(1 - 2 * 0.5 / 9, abs=0.02), "half a second is wrong after each of two cuts"


def test_a_clip_of_one_true_label_is_cut_artificially(
    cli: Cli, own_bundle: Path, flickering: Path, truth: Path, tmp_path: Path
) -> None:
    truth.write_text("start,end,label\n0,9,red\n")
    picture = tmp_path / "tune.svg"
    options = ("--truth", truth, "--methods", "mean", "--dry-run", "--output", picture)
    outcome = cli("tune", own_bundle, "--clip", flickering, *options)
    assert "% of the labelled frames" in outcome.out
    assert "s after an artificial cut, half of them" in outcome.out
    assert "after an artificial cut" in picture.read_text()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_cut_changes_the_label_also_where_there_are_few(classes: int) -> None:
    scene = np.arange(1500) // 250 % classes
    rows = np.where(np.eye(classes)[scene] > 0, 0.9, 0.1 / (classes - 1)).astype(np.float32)
    stream = Stream("scenes", np.arange(1500) / 25, rows)
    assert measure(Smoothing(window="2s"), [stream], cuts([stream])).median_s == pytest.approx(1.0, abs=0.05)


def test_the_knee_lies_farthest_below_the_line() -> None:
    corner = Point(Smoothing(window=8), 10.0, 0.5, 0.5, 9)
    others = [Point(Smoothing(window=1), 100.0, 0, 0, 9), Point(Smoothing(window=4), 60.0, 0.2, 0.2, 9)]
    beaten = Point(Smoothing(window=9), 11.0, 0.6, 0.6, 9)
    slow = Point(Smoothing(window=64), 0.0, 1.0, 1.0, 9)
    best = front([slow, beaten, corner, *others])
    assert best == [*others, corner, slow]
    assert knee(best) is corner
    assert front([slow, corner], 0.7) == [corner]


def test_what_never_flips_says_nothing_of_smoothing(cli: Cli, own_bundle: Path, tmp_path: Path) -> None:
    steady = write_clip(tmp_path / "steady.mp4", ["red"] * 50)
    before = (own_bundle / "edgevid.json").read_bytes()
    assert "the label never changes, even without smoothing" in cli("tune", own_bundle, "--clip", steady).error
    assert (own_bundle / "edgevid.json").read_bytes() == before


def test_several_clips_and_their_truth(
    cli: Cli, own_bundle: Path, flickering: Path, clip: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text(f"\ufeffclip,start,end,label\n{clip.name},0,0.6,red\nscenes.mp4,0,3,red\nscenes.mp4,3,6,green\n")
    clips = ("--clip", flickering, "--clip", clip)
    assert cli("tune", own_bundle, *clips, "--truth", truth, "--methods", "mean", "--dry-run").status == 0
    truth.write_text("clip,start,end,label\nscenes.mp4,0,3,red\n,3,6,green\n")
    assert "line 3: clip '' is none of those" in cli("tune", own_bundle, *clips, "--truth", truth).error
    truth.write_text("clip,start,end,label\nscenes.mp4,0,3,red\n")
    assert f"nothing about {clip}" in cli("tune", own_bundle, *clips, "--truth", truth).error


def test_what_bench_measured_holds_after_a_tuning(cli: Cli, own_bundle: Path, flickering: Path) -> None:
    from edgevid import Bundle
    from edgevid.measured import recall, remember

    remember(Bundle(own_bundle), ("cpu",), ())
    cli("tune", own_bundle, "--clip", flickering, "--methods", "mean")
    assert Bundle(own_bundle).manifest.smoothing.window != 8
    assert recall(Bundle(own_bundle)) is not None


def test_a_signed_bundle_is_not_changed(cli: Cli, own_bundle: Path, flickering: Path) -> None:
    (own_bundle / "edgevid.json.minisig").write_text("signature")
    assert "its signature would not fit any more" in cli("tune", own_bundle, "--clip", flickering).error


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("start,end\n0,1\n", "no column label; expected a first line start,end,label"),
        ("start,end,label\n0,1,rad\n", "line 2: the model has no label 'rad'; did you mean 'red'?"),
        ("start,end,label\n0,1,red\n2,1,red\n", "line 3: from 2 to 1 s: expected an end after the start"),
        ("start,end,label\n0,x,red\n", "line 2: start '0', end 'x': expected seconds"),
        ("start,end,label\n0,2,red\n1,3,blue\n", "line 3: 1 to 3 s is labelled already"),
        ("clip,start,end,label\nother.mp4,0,2,red\n", "clip 'other.mp4' is none of those given"),
        ("start,end,label\n", "nothing about"),
        ("start,end,label\n0,3,red, dark\n", "line 2: more cells than columns; put a label with a comma in quotes"),
        ("start,end,label\n100,200,red\n", "none of its lines is about a frame of"),
        (
            "start,end,label\n0,3,red\n3,9,grey\n",
            "--max-delay 2s: nine true labels of ten take 5.96 s to be shown, at best",
        ),
    ],
)
def test_a_truth_that_cannot_be_meant(
    cli: Cli, own_bundle: Path, flickering: Path, truth: Path, rows: str, message: str
) -> None:
    truth.write_text(rows)
    assert message in cli("tune", own_bundle, "--clip", flickering, "--truth", truth).error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clip", "absent.mp4"), "absent.mp4"),
        (("--clip", "CLIP", "--methods", "mean,median"), "--methods mean,median: 'median' is none of mean, "),
        (("--clip", "CLIP", "--max-delay", "long"), "--max-delay long: expected a time"),
        (("--clip", "CLIP", "--output", "tune.gif"), "expected a name ending in .png or .svg"),
        (("--clip", "CLIP", "--truth", "absent.csv"), "--truth absent.csv: it cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, own_bundle: Path, flickering: Path, options: tuple[Any, ...], message: str
) -> None:
    arguments = [flickering if option == "CLIP" else option for option in options]
    outcome = cli("tune", own_bundle, *arguments)
    assert outcome.status in (1, 2)
    assert message in outcome.error


def test_sigmoids_have_no_single_label(cli: Cli, own_bundle: Path, flickering: Path) -> None:
    manifest = json.loads((own_bundle / "edgevid.json").read_text())
    manifest["output"]["activation"] = "sigmoid"
    (own_bundle / "edgevid.json").write_text(json.dumps(manifest))
    assert "tune is for one label a frame" in cli("tune", own_bundle, "--clip", flickering).error


def test_of_labelled_clips_only_what_is_right_counts() -> None:
    right = Point(Smoothing(window=8), 10.0, 0.5, 0.5, 9, accuracy=0.9)
    nearly = Point(Smoothing(window=4), 20.0, 0.2, 0.2, 9, accuracy=0.89)
    wrong = Point(Smoothing(window=64), 0.0, 0.4, 0.4, 9, accuracy=0.5)
    too_late = Point(Smoothing(window=99), 0.0, 9.0, 9.0, 9, accuracy=1.0)
    assert front([right, nearly, wrong, too_late], 2.0) == [nearly, right]

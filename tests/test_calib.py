"""``--calib``: which clips and pictures it finds, how they are shared out, and when they are too few as a proof."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

from edgevid.arrays import Image
from edgevid.bundle import Bundle
from edgevid.cli.inspect import parity_caption
from edgevid.errors import EdgevidError, SourceError, UsageError
from edgevid.manifest import Accuracy, InputSpec, Manifest, OutputSpec, Preprocessing
from edgevid.preprocess import Preprocessor
from edgevid_convert.calib_sources import find_calib, source_names
from edgevid_convert.evaluation import sample_labelled
from edgevid_convert.frames import FrameSet, sample_frames, sample_windows
from edgevid_convert.gate import ENOUGH_FRAMES, gated, unproven
from edgevid_convert.parity import compare
from edgevid_convert.proof import float_preprocessor
from tests.conftest import LABELS, SIZE, Outcome, picture, write_clip

Cli = Callable[..., Outcome]
NORMALIZED = ("--mean", 127.5, "--std", 127.5)


@pytest.fixture
def preprocessor() -> Preprocessor:
    """Into pictures of the model's size, RGB."""
    spec = InputSpec(height=SIZE, width=SIZE, channels=3, color="rgb")
    return float_preprocessor(spec, Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)))


def write(path: Path, shown: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), shown)
    return path


def grey(level: int) -> Image:
    return np.full((SIZE, SIZE, 3), level, np.uint8)


def sampled(preprocessor: Preprocessor, *sources: Path | str, most: int = 120) -> FrameSet:
    return sample_frames([str(source) for source in sources], preprocessor, most)


def images_of(frames: FrameSet) -> dict[str, list[Image]]:
    return {
        "calibration": frames.calibration,
        "search": [image for clip in frames.search for image in clip.frames],
        "held out": [image for clip in frames.held_out for image in clip.frames],
    }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of videos and pictures, nested, with other files and hidden ones, as the current one."""
    for name in ("a.mp4", "deep/er/b.MKV", "deep/.trash/c.mp4", ".d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("img10.png", "img2.png", "deep/e.jpg", "deep/er/f.JPEG", ".hidden/g.png", "notes/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "clips", "sets"),
    [
        (["."], ["a.mp4", "deep/er/b.MKV"], [["deep/e.jpg", "deep/er/f.JPEG", "img2.png", "img10.png"]]),
        (["deep"], ["deep/er/b.MKV"], [["deep/e.jpg", "deep/er/f.JPEG"]]),
        (["a.mp4", "img2.png"], ["a.mp4"], [["img2.png"]]),
        (["img10.png", "deep/e.jpg"], [], [["img10.png", "deep/e.jpg"]]),
        (["*.png"], [], [["img2.png", "img10.png"]]),
        (["**/*.mp4"], ["a.mp4"], []),
        (["d*p"], ["deep/er/b.MKV"], [["deep/e.jpg", "deep/er/f.JPEG"]]),
        (["deep/**/*.[jM]*"], ["deep/er/b.MKV"], [["deep/e.jpg"]]),
        (["img2.png", "*.png", "a.mp4", "./a.mp4", "."], ["a.mp4", "deep/er/b.MKV"], None),
        (["notes/notes.txt"], ["notes/notes.txt"], []),  # a file that is named is opened, whatever it is called
    ],
)
def test_sources_are_files_folders_and_patterns(
    tree: Path, names: list[str], clips: list[str], sets: list[list[str]] | None
) -> None:
    found = find_calib(names)
    assert [str(source.files[0]) for source in found if not source.stills] == clips
    stills = [[str(file) for file in source.files] for source in found if source.stills]
    if sets is None:  # no picture twice
        assert sorted(file for files in stills for file in files) == [
            "deep/e.jpg",
            "deep/er/f.JPEG",
            "img10.png",
            "img2.png",
        ]
    else:
        assert stills == sets


def test_links_lead_to_each_file_once_and_animations_are_videos(tree: Path) -> None:
    (tree / "deep/up").symlink_to("..")
    (tree / "deep/again.mp4").symlink_to("../a.mp4")
    (tree / "folder.png").mkdir()
    stills = [Pillow.new("RGB", (8, 8), color) for color in ("red", "blue")]
    stills[0].save(tree / "deep/still.webp")
    stills[0].save(tree / "deep/moving.webp", save_all=True, append_images=stills[1:])
    for name in (".", "deep/up"):
        found = find_calib([name])
        videos = sorted(str(source.files[0].resolve().relative_to(tree)) for source in found if not source.stills)
        assert videos == ["a.mp4", "deep/er/b.MKV", "deep/moving.webp"]
        (pictures,) = [source.files for source in found if source.stills]
        assert len(pictures) == 5
        assert "still.webp" in {file.name for file in pictures}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.mp4", "--calib absent.mp4: no such file or folder; expected a video, a picture, a folder of them, or"),
        ("*.avi", r"--calib \*.avi: nothing has such a name, found .*2 × .png.*; expected a video"),
        ("absent/*.png", r"--calib absent/\*.png: no such folder as absent; expected a video"),
        ("empty", "--calib empty: no videos and no images in it, found nothing; expected a video"),
        ("notes", "--calib notes: no videos and no images in it, found 1 × .txt; expected a video"),
        ("n[o]tes", r"--calib n\[o\]tes: no videos and no images in these folders, found 1 × folder; expected"),
        ("rtsp://user:secret@host/live", r"--calib 'rtsp://\S*host/live': .*; record a stream first"),
        ("-", "--calib '-': expected a video"),
        ("", "--calib '': expected a video"),
    ],
)
def test_what_leads_nowhere_is_one_line(tree: Path, name: str, message: str) -> None:
    with pytest.raises(EdgevidError, match=message) as error:
        find_calib([name])
    assert isinstance(error.value, SourceError | UsageError)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_sources_have_short_names(tree: Path) -> None:
    names = ["deep/er", "/home/me/pics/**/*.png", "*.png", "sample:bikes", str(tree / "deep" / "*")]
    assert source_names(names) == ("er", "pics/**/*.png", f"{tree.name}/*.png", "sample:bikes", "deep/*")
    assert source_names(["."]) == (tree.name,)
    assert source_names([f"{index}.png" for index in range(99)])[-2:] == ("9.png", "89 more")


def test_pictures_are_judged_one_by_one(tmp_path: Path, preprocessor: Preprocessor, clip: Path) -> None:
    for index in range(40):
        write(tmp_path / f"{index}.png", picture(LABELS[index // 10], seed=index))
    frames = sampled(preprocessor, tmp_path, clip)
    assert [each.spacing for each in frames.held_out] == [2.0, math.inf]
    judged = frames.held_out[1].frames
    assert (len(judged), len(frames.search[1].frames)) == (20, 10)
    generator = np.random.default_rng(0)
    reference, candidate = (generator.dirichlet([1, 1, 1], len(judged)).astype(np.float32) for _ in range(2))
    parity = compare([reference], [candidate], [frames.held_out[1].spacing], 64, "held-out")
    assert parity.smoothed_agreement == parity.top1_agreement < 1


def test_names_of_pictures_change_nothing(tmp_path: Path, preprocessor: Preprocessor) -> None:
    shuffled = np.random.default_rng(1).permutation(30)
    for index in range(30):
        source = write(tmp_path / "sorted" / f"{index}.png", picture(LABELS[index % 4], seed=index))
        target = tmp_path / "shuffled" / f"{index % 3}" / f"{shuffled[index]}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    one, other = (images_of(sampled(preprocessor, tmp_path / name)) for name in ("sorted", "shuffled"))
    for group, images in one.items():
        assert np.array_equal(images, other[group]), group


@pytest.mark.parametrize("class_of", [lambda index: index % 4, lambda index: index // 100], ids=["in turn", "sorted"])
@pytest.mark.parametrize("most", [120, 20], ids=["all", "some"])
def test_every_class_calibrates_and_judges(
    tmp_path: Path, preprocessor: Preprocessor, class_of: Callable[[int], int], most: int
) -> None:
    for index in range(400):
        write(tmp_path / f"{index}.bmp", grey(60 * class_of(index) + index % 40))
    frames = sampled(preprocessor, tmp_path, most=most)
    assert frames.held_out_count == (200 if most == 120 else 40)
    assert len(frames.calibration) <= most
    for images in images_of(frames).values():
        counts = np.bincount([int(image[0, 0, 0]) // 60 for image in images])
        assert len(counts) == 4
        assert counts.min() > 0.3 * counts.mean()


def test_what_short_clips_leave_goes_to_the_pictures(tmp_path: Path, preprocessor: Preprocessor) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, ["red"] * 10)
    for index in range(300):
        write(tmp_path / "many" / f"{index}.bmp", grey(index % 256))
    for index in range(8):
        write(tmp_path / "few" / f"{index}.bmp", grey(20 * index))
    frames = sampled(preprocessor, tmp_path / "a.mp4", tmp_path / "many", tmp_path / "few", tmp_path / "b.mp4", most=40)
    assert [len(each.frames) for each in frames.held_out] == [5, 5, 4, (160 - 28) // 2]


def test_one_picture_beside_a_video_counts(tmp_path: Path, preprocessor: Preprocessor) -> None:
    write_clip(tmp_path / "a.mp4", ["red"] * 9)
    write(tmp_path / "one.png", picture("blue"))
    frames = sampled(preprocessor, tmp_path)
    assert [(len(each.frames), each.spacing) for each in frames.held_out] == [(4, 2.25), (1, math.inf)]
    alone = sampled(preprocessor, tmp_path / "a.mp4")
    assert np.array_equal(alone.held_out[0].frames, frames.held_out[0].frames)


def test_one_frame_is_not_enough_and_two_are(tmp_path: Path, preprocessor: Preprocessor) -> None:
    files = [write(tmp_path / f"{index}.png", picture("blue", seed=index)) for index in range(2)]
    with pytest.raises(UsageError, match=r"0.png: only 1 frame; expected 2 or more, to calibrate and to judge"):
        sampled(preprocessor, files[0])
    frames = sampled(preprocessor, *files)
    assert (len(frames.calibration), frames.held_out_count, frames.search) == (1, 1, [])


def test_a_broken_picture_is_named(tmp_path: Path, preprocessor: Preprocessor) -> None:
    write(tmp_path / "good.png", picture("blue"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"--calib .*broken.png: it cannot be decoded as an image; is the file com"):
        sampled(preprocessor, tmp_path)


@pytest.mark.parametrize(
    ("levels", "distinct", "remarks"),
    [
        (
            [0] * 20,
            1,
            ["every frame is black all over", "all 10 frames to judge by are alike, and int8 is proven by 8"],
        ),
        ([90] * 20, 1, ["every frame is of one colour all over", "all 10 frames to judge by are alike"]),
        ([50, 200], 1, ["every frame is of one colour", "only 1 frame to judge by, and int8 is proven by 8 or more"]),
        ([*range(0, 240, 40)] * 4, None, ["of one colour", "of 12 frames to judge by only "]),
        ([*range(0, 240, 8)], 15, ["every frame is of one colour"]),
    ],
    ids=["black", "grey", "two", "few", "greys"],
)
def test_how_varied_the_frames_are_is_said(
    tmp_path: Path, preprocessor: Preprocessor, levels: list[int], distinct: int | None, remarks: list[str]
) -> None:
    for index, level in enumerate(levels):
        write(tmp_path / f"{index}.png", grey(level))
    frames = sampled(preprocessor, tmp_path)
    if distinct is not None:
        assert frames.distinct_held_out == distinct
    said = frames.remarks()
    assert len(said) == len(remarks)
    for line, expected in zip(said, remarks, strict=True):
        assert line.startswith("--calib: ")
        assert expected in line


def test_of_varied_frames_nothing_is_said(preprocessor: Preprocessor, clip: Path) -> None:
    assert sampled(preprocessor, clip).remarks() == ()
    assert FrameSet().remarks() == ()
    assert FrameSet().distinct_held_out == 0


def test_a_long_list_of_few_distinct_frames_is_said(tmp_path: Path, preprocessor: Preprocessor) -> None:
    scenes = [picture(LABELS[index % 4], seed=index) for index in range(10)]
    for index in range(400):
        write(tmp_path / f"{index}.bmp", scenes[index % 10])
    frames = sampled(preprocessor, tmp_path)
    assert frames.distinct_held_out == 10
    (line,) = frames.remarks()
    assert line.startswith("--calib: of 200 frames to judge by only 10 differ from one another; add videos or")


def test_a_small_thing_that_moves_makes_distinct_frames(tmp_path: Path, preprocessor: Preprocessor) -> None:
    for index in range(20):
        shown = grey(100)
        shown[1 + index : 4 + index, 10:13] = 160  # on average a picture differs from the next by 0.4 levels
        write(tmp_path / f"{index}.png", shown)
    frames = sampled(preprocessor, tmp_path)
    assert frames.distinct_held_out == 10
    assert len(frames.calibration) == 1  # for the ranges of numbers they are all the same


def test_few_frames_to_calibrate_on_are_judged_by_enough(preprocessor: Preprocessor, clip: Path) -> None:
    frames = sampled(preprocessor, clip, most=1)
    assert len(frames.calibration) == 1
    assert frames.distinct_held_out >= ENOUGH_FRAMES


def test_windows_are_of_videos_and_distinct_ones_are_counted(
    tmp_path: Path, preprocessor: Preprocessor, clip: Path
) -> None:
    write(tmp_path / "one.png", picture("blue"))
    with pytest.raises(UsageError, match=r"one.png: a picture, and the model takes 3 frames at a time; give videos"):
        sample_windows([str(clip), str(tmp_path / "one.png")], preprocessor, 3, True, 20)
    frames = sample_windows([str(clip)], preprocessor, 3, False, 1)
    assert (len(frames.calibration), frames.held_out_count, frames.distinct_held_out) == (2, 10, 10)
    assert frames.remarks() == ()
    frames = sample_windows([str(clip)], preprocessor, 10, False, 1)
    assert (len(frames.calibration), frames.held_out_count, frames.distinct_held_out) == (2, 3, 3)
    (line,) = frames.remarks()
    assert line.startswith("--calib: only 3 windows to judge by, and int8 is proven by 8 or more")
    short = write_clip(tmp_path / "short.mp4", ["red"] * 2)
    with pytest.raises(UsageError, match=r"short.mp4: fewer frames than the 3 that the model takes at a time"):
        sample_windows([str(short)], preprocessor, 3, True, 20)


def judged_by(manifest: Manifest, distinct: int | None, **changes: object) -> Manifest:
    assert manifest.calibration is not None
    calibration = msgspec.structs.replace(manifest.calibration, distinct_held_out=distinct)
    return msgspec.structs.replace(manifest, calibration=calibration, **changes)


def test_a_few_frames_prove_no_quantized_variant(bundle: Bundle) -> None:
    for distinct, rejected in ((2, True), (ENOUGH_FRAMES - 1, True), (ENOUGH_FRAMES, False), (None, False)):
        manifest = judged_by(bundle.manifest, distinct)
        for variant in (gated(manifest, each) for each in manifest.variants):
            assert unproven(variant) == (rejected and "int8" in variant.precision), variant.id
            assert (variant.rejected is None) == (not unproven(variant))
    few = gated(judged_by(bundle.manifest, 1), bundle.variant("tflite-int8"))
    assert few.rejected == (
        "is not proven: only 1 distinct frame to judge by; expected 8 or more, add more varied --calib"
    )
    opened = judged_by(bundle.manifest, 1, max_drop=1.0)
    assert gated(opened, bundle.variant("tflite-int8")).rejected is None
    assert "(2 distinct) of the calibration sources" in parity_caption(judged_by(bundle.manifest, 2))


def test_a_few_labelled_frames_prove_no_quantized_variant(bundle: Bundle) -> None:
    for frames, proven in ((ENOUGH_FRAMES - 1, False), (ENOUGH_FRAMES, True)):
        accuracy = Accuracy(frames=frames, accuracy=1.0, smoothed_accuracy=1.0)
        manifest = judged_by(bundle.manifest, 1, keras_accuracy=accuracy)
        for variant in manifest.variants:
            found = gated(manifest, msgspec.structs.replace(variant, accuracy=accuracy))
            assert (found.rejected is None) == (proven or "int8" not in variant.precision)
            if found.rejected:
                assert "only 7 labelled frames to judge by; expected 8 or more, add some to --eval" in found.rejected


@pytest.mark.parametrize("calib", ["red/*.png", "red", "red/walk/0.png", "**/*.png"])
def test_who_judges_has_not_calibrated(
    tmp_path: Path, preprocessor: Preprocessor, monkeypatch: pytest.MonkeyPatch, calib: str
) -> None:
    write(tmp_path / "red" / "a.png", picture("red"))
    write(tmp_path / "red" / "walk" / "0.png", picture("red"))
    write(tmp_path / "other" / "b.png", picture("red"))
    monkeypatch.chdir(tmp_path)
    output = OutputSpec(classes=4, activation="softmax")
    (tmp_path / "test.csv").write_text("clip,label\nred/a.png,red\nred/walk,red\n")
    with pytest.raises(UsageError, match=r"red/(a.png|walk) is in --calib .* too; judge by others"):
        sample_labelled(Path("test.csv"), LABELS, output, preprocessor, 10, [calib])
    assert len(sample_labelled(Path("test.csv"), LABELS, output, preprocessor, 10, ["other"])) == 2


@pytest.mark.usefixtures("quiet_keras")
def test_twenty_black_pictures_prove_nothing(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    for index in range(20):
        write(tmp_path / "black" / f"{index}.png", grey(0))
    output = tmp_path / "o.edgevid"
    options = (*NORMALIZED, "--formats", "tflite", "--precision", "fp32,int8")
    outcome = cli("convert", model_file, "-o", output, "--calib", tmp_path / "black", *options)
    assert outcome.status == 3
    assert "tflite-int8 is not proven: only 1 distinct frame to judge by; expected 8 or more" in outcome.error
    assert "--calib: every frame is black all over" in outcome.err
    assert "on 10 held-out frames (1 distinct) of the calibration sources" in outcome.out
    made = Bundle(output)
    assert made.variant("tflite-fp32").rejected is None
    assert made.variant("tflite-int8").search is None  # no other file could pass, so none is searched for
    assert made.manifest.calibration is not None
    assert made.manifest.calibration.distinct_held_out == 1


@pytest.mark.usefixtures("quiet_keras")
def test_a_pattern_of_pictures_converts(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    for index in range(24):
        write(tmp_path / "pics" / LABELS[index // 6] / f"{index}.png", picture(LABELS[index // 6], seed=index))
    output = tmp_path / "o.edgevid"
    options = (*NORMALIZED, "--formats", "tflite", "--precision", "int8")
    outcome = cli("convert", model_file, "-o", output, "--calib", tmp_path / "pics" / "**" / "*.png", *options)
    assert outcome.status == 0, outcome.err
    calibration = Bundle(output).manifest.calibration
    assert calibration is not None
    assert calibration.sources == ("pics/**/*.png",)
    assert (calibration.held_out, calibration.distinct_held_out, calibration.searched) == (12, 12, 6)

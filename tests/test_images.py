"""Images and animations: what folders have of them, and each read the same by name, in a folder, by a pattern."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image as Pillow
from PIL import ImageOps

from edgevid.arrays import Image
from edgevid.errors import SourceError
from edgevid.events import Event
from edgevid.sources import open_source
from tests.conftest import Outcome, read_jsonl, write_clip

Cli = Callable[..., Outcome]
# Four fields, so that it shows how an image is turned and mirrored; RGB.
FIELDS = ((200, 30, 60), (30, 200, 60), (30, 60, 200), (220, 220, 40))
COLORS = ("red", "lime", "blue", "red")


def quartered(height: int = 48, width: int = 64) -> Image:
    """Return an image of four fields, RGB."""
    picture = np.empty((height, width, 3), np.uint8)
    rows, columns = slice(None, height // 2), slice(None, width // 2)
    below, right = slice(height // 2, None), slice(width // 2, None)
    places = ((rows, columns), (rows, right), (below, columns), (below, right))
    for (row, column), color in zip(places, FIELDS, strict=True):
        picture[row, column] = color
    return picture


def pictures(name: str | Path, tell: Callable[[Event], None] = lambda event: None) -> list[Image]:
    with open_source(name, tell=tell) as source:
        return [frame.image for frame in source]


def animated(path: Path, **options: Any) -> Path:
    """Write four pictures of 200 ms each."""
    first, *others = (Pillow.new("RGB", (64, 48), color) for color in COLORS)
    first.save(path, save_all=True, append_images=others, **{"duration": 200, **options})
    return path


def exif(orientation: int) -> Pillow.Exif:
    tags = Pillow.Exif()
    tags[0x112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [("jpg", {"quality": 95}), ("png", {}), ("webp", {}), ("tif", {}), ("avif", {})]
)
def test_an_image_is_upright_by_name_in_a_folder_and_by_a_pattern(
    tmp_path: Path, suffix: str, options: dict[str, Any], orientation: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(quartered()).save(path, exif=exif(orientation), **options)
    upright = ImageOps.exif_transpose(Pillow.open(path)).convert("RGB")
    for name in (path, tmp_path, tmp_path / "*"):
        (found,) = pictures(name)
        assert found.shape == (*upright.size[::-1], 3)
        assert np.abs(found[..., ::-1].astype(int) - np.asarray(upright)).mean() < 3


def as_jpeg_in_tiff(path: Path) -> None:
    Pillow.fromarray(quartered()).save(path, compression="jpeg", quality=95)


def by_opencv(scale: float, dtype: type) -> Callable[[Path], object]:
    return lambda path: cv2.imwrite(str(path), (quartered()[..., ::-1].astype(float) * scale).astype(dtype))


def by_pillow(mode: str = "RGB", **options: Any) -> Callable[[Path], object]:
    return lambda path: Pillow.fromarray(quartered()).convert(mode).save(path, **options)


def by_palette(path: Path) -> None:
    Pillow.fromarray(quartered()).quantize(8).save(path)


def with_alpha(path: Path) -> None:
    picture = Pillow.fromarray(quartered()).convert("RGBA")
    picture.putalpha(Pillow.fromarray(np.linspace(0, 255, 48 * 64).astype(np.uint8).reshape(48, 64)))
    picture.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("progressive.jpg", by_pillow(progressive=True, quality=95)),
        ("cmyk.jpg", by_pillow("CMYK", quality=95)),
        ("a.jfif", by_pillow(format="jpeg", quality=95)),
        ("a.jpe", by_pillow(format="jpeg", quality=95)),
        ("no-suffix", by_pillow(format="jpeg", quality=95)),
        ("palette.png", by_palette),
        ("palette.gif", by_palette),
        ("alpha.png", with_alpha),
        ("alpha.webp", with_alpha),
        ("jpeg.tif", as_jpeg_in_tiff),
        ("lzw.tiff", by_pillow(compression="tiff_lzw")),
        ("cmyk.tif", by_pillow("CMYK")),
        ("deep.png", by_opencv(257, np.uint16)),
        ("deep.tif", by_opencv(257, np.uint16)),
        ("deep.ppm", by_opencv(257, np.uint16)),
        ("deep.jp2", by_opencv(257, np.uint16)),
        ("floats.tif", by_opencv(1 / 255, np.float32)),
        ("floats.hdr", by_opencv(1 / 255, np.float32)),
        ("a.bmp", by_pillow()),
        ("a.dib", by_pillow(format="bmp")),
        ("a.ppm", by_pillow()),
        ("a.jp2", by_pillow()),
        ("a.avif", by_pillow(quality=95)),
        ("a.mpo", by_pillow(quality=95)),
        ("a.ras", by_opencv(1, np.uint8)),
    ],
)
def test_every_kind_of_image_is_read_the_same_however_it_is_named(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    write(path)
    (by_name,) = pictures(path)
    assert np.abs(by_name[..., ::-1].astype(int) - quartered()).mean() < 5
    if path.suffix:
        for place in (tmp_path, tmp_path / f"*{path.suffix}"):
            assert np.array_equal(pictures(place)[0], by_name)


@pytest.mark.parametrize(
    ("name", "mode"), [("grey.png", "L"), ("grey.jpg", "L"), ("both.png", "LA"), ("bits.pbm", "1")]
)
def test_grey_images(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / name
    grey = Pillow.fromarray(quartered()).convert(mode)
    grey.save(path)
    (found,) = pictures(path)
    assert np.abs(found.astype(int) - np.asarray(grey.convert("RGB"))).mean() < 2
    assert np.array_equal(pictures(tmp_path)[0], found)


@pytest.mark.parametrize("suffix", ["gif", "apng", "webp", "avif"])
def test_an_animation_that_is_named_is_all_its_pictures_at_their_times(tmp_path: Path, suffix: str) -> None:
    path = animated(tmp_path / f"a.{suffix}", **({"format": "png"} if suffix == "apng" else {}))
    unnamed = Path(shutil.copyfile(path, tmp_path / "unnamed"))
    for name in (path, unnamed, tmp_path / f"*.{suffix}"):
        with open_source(name) as source:
            assert source.rate == 5
            frames = list(source)
        assert [round(frame.time, 3) for frame in frames] == [0, 0.2, 0.4, 0.6]
        assert [frame.index for frame in frames] == [0, 1, 2, 3]
        assert [int(frame.image[9, 9].argmax()) for frame in frames] == [2, 1, 0, 2]


def test_a_long_animation_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevid.sources.images.CHUNK_BYTES", 3 * 64 * 48 * 3)
    path = animated(tmp_path / "a.gif", duration=[100, 200, 300, 400])
    with open_source(path) as source:
        assert [round(frame.time, 3) for frame in source] == [0, 0.1, 0.3, 0.6]
        assert source.broken == 0


def test_an_animation_of_sixteen_bits_of_grey(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.png"), "w", format="apng") as container:
        stream = container.add_stream("apng", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16be"
        for level in (0x4000, 0x80FF):
            deep = np.full((48, 64), level, np.uint16)
            container.mux(stream.encode(VideoFrame.from_ndarray(deep, format="gray16be")))
        container.mux(stream.encode(None))
    assert [picture[9, 9].tolist() for picture in pictures(tmp_path / "a.png")] == [[0x40] * 3, [0x80] * 3]


def test_an_animation_among_images_is_its_first_picture_and_that_is_told(tmp_path: Path) -> None:
    animated(tmp_path / "1.gif")
    Pillow.new("RGB", (64, 48), "blue").save(tmp_path / "0.png")
    told: list[Event] = []
    assert [int(picture[9, 9].argmax()) for picture in pictures(tmp_path, told.append)] == [0, 2]
    assert [(event.kind, event.text) for event in told] == [
        ("skipped", f"{tmp_path / '1.gif'}: 4 pictures, the first is taken")
    ]


def test_the_pages_of_a_tiff_are_no_film(tmp_path: Path) -> None:
    told: list[Event] = []
    assert len(pictures(animated(tmp_path / "a.tif"), told.append)) == 1
    assert ["4 pictures, the first is taken" in event.text for event in told] == [True]


def test_jpegs_in_a_row_are_a_video_and_those_of_one_sight_are_an_image(tmp_path: Path) -> None:
    video, several = tmp_path / "unnamed", tmp_path / "unnamed-too"
    for color in COLORS:
        Pillow.new("RGB", (64, 48), color).save(tmp_path / "one.jpg")
        with video.open("ab") as file:
            file.write((tmp_path / "one.jpg").read_bytes())
    assert len(pictures(video)) == 4
    assert len(pictures(animated(several, format="mpo"))) == 1


def test_a_large_jpeg_is_read_by_its_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    assert pictures(tmp_path / "a.jpg")[0].shape == noise.shape


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a.webp", "a.avif", "a.png"])
def test_an_image_that_is_cut_short_is_one_line(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = animated(tmp_path / name) if name != "a.jpg" else tmp_path / name
    if name == "a.jpg":
        by_pillow()(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SourceError, match=name) as error:
        pictures(path)
    assert "\n" not in str(error.value)
    assert "OpenCV" not in capfd.readouterr().err


# What is taken of folders.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one in a folder that is called like one, and much that is none."""
    found = tmp_path / "d"
    for name, color in (("0.jpg", "red"), ("1.JPG", "lime"), ("old.jpg/2.jpg", "blue"), (".thumbs/1.jpg", "white")):
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", (64, 64), color).save(found / name)
    (found / "._0.jpg").write_bytes(b"\0\5\x16\7" + bytes(90))
    os.mkfifo(found / "pipe.jpg")
    (found / "gone.jpg").symlink_to("nowhere")
    (found / "photo.heic").write_bytes(b"of a telephone")
    return found


def test_what_is_hidden_and_what_is_no_file_is_left_out(cli: Cli, bundle_path: Path, folder: Path) -> None:
    outcome = cli("run", bundle_path, "--source", folder, "--window", 1, "--predictions", "-")
    assert outcome.status == 0
    assert [line["frame"] for line in read_jsonl(outcome.out) if "frame" in line] == [0, 1, 2]
    assert "broken" not in outcome.err
    assert f"{folder}: left out are images of kinds that are not read (1 × .heic); convert them" in outcome.err
    outcome = cli("classify", folder, "--bundle", bundle_path, "--output", "-")
    clips = {line["clip"]: line["frames"] for line in read_jsonl(outcome.out)}
    assert clips == {str(folder): 2, str(folder / "old.jpg"): 1}
    assert "1 × .heic" in outcome.err


def test_a_folder_of_nothing_that_is_read_says_so(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").touch()
    outcome = cli("run", bundle_path, "--source", tmp_path)
    assert outcome.status == 1
    assert "no images in it; expected .jpg or .png files" in outcome.error
    assert "1 × .heic" in outcome.error


def test_every_suffix_of_images_is_taken_by_run_and_by_classify(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    for suffix in ("avif", "bmp", "gif", "jfif", "jp2", "jpe", "pgm", "png", "tif", "webp"):
        form = {"jfif": "jpeg", "jpe": "jpeg", "pgm": "ppm"}.get(suffix)
        by_pillow("L" if suffix == "pgm" else "RGB", **({"format": form} if form else {}))(tmp_path / f"a.{suffix}")
    outcome = cli("run", bundle_path, "--source", tmp_path, "--predictions", "-")
    assert len(read_jsonl(outcome.out)) == 10
    outcome = cli("classify", tmp_path, "--bundle", bundle_path, "--output", "-")
    assert [(line["frames"], line["broken"]) for line in read_jsonl(outcome.out)] == [(10, 0)]


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip, and two links that lead back: who follows them for ever has 2^40 ways to go."""
    monkeypatch.chdir(tmp_path)
    inside = Path("l/s")
    inside.mkdir(parents=True)
    write_clip(Path("l/a.mp4"), ["red"] * 5, crf="30")
    (inside / "up").symlink_to("..")
    (inside / "again").symlink_to("../s")
    (inside / "b.mp4").symlink_to("../a.mp4")
    return Path("l")


@pytest.mark.parametrize("pattern", ["l/**/*.mp4", "l/**", "**/*.mp4", "**/s/**/*.mp4", "l"])
def test_links_that_lead_back_change_nothing(cli: Cli, bundle_path: Path, ring: Path, pattern: str) -> None:
    outcome = cli("classify", pattern, "--bundle", bundle_path, "--output", "-")
    assert [line["frames"] for line in read_jsonl(outcome.out)] == [5]
    if pattern != "l":
        outcome = cli("run", bundle_path, "--source", pattern, "--predictions", "-")
        assert len(read_jsonl(outcome.out)) == 5


def test_folders_behind_links_are_searched(cli: Cli, bundle_path: Path, ring: Path) -> None:
    Path("other").mkdir()
    (Path("other") / "link").symlink_to(ring.resolve())
    for name in ("other", "other/**/*.mp4"):
        outcome = cli("classify", name, "--bundle", bundle_path, "--output", "-")
        assert [line["clip"] for line in read_jsonl(outcome.out)] == ["other/link/a.mp4"]

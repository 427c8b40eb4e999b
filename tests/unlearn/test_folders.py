"""Folders as people have them: system files, other image formats, other names and places of the splits."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from synth.basics.errors import UserError
from tests.memory import allow
from unlearn.data import LabelledImages, load_images
from unlearn.data_sets.reading.pixels import in_channels

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (8, 8), "red")).save(path, **options)  # type: ignore[arg-type]
    return path


def loaded(folder: Path, split: str = "test", shape: tuple[int, int, int] = (3, 8, 8)) -> tuple[LabelledImages, str]:
    """The images and the line about them."""
    lines: list[str] = []
    data = load_images(str(folder), split, shape=shape, say=lines.append)
    assert len(lines) == 1
    return data, lines[0]


def pixels(folder: Path, image: Image.Image, name: str = "a.png", channels: int = 3, **options: object) -> list[int]:
    """The upper left pixel of the image as it is read."""
    save(folder / "test" / "cat" / name, image, **options)
    side = min(image.size)
    return loaded(folder, shape=(channels, side, side))[0].images[0, :, 0, 0].tolist()


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"])
@pytest.mark.parametrize("holds_an_image", [True, False])
def test_a_hidden_folder_is_no_class(tmp_path: Path, name: str, holds_an_image: bool) -> None:
    for split in ("train", "test"):
        save(tmp_path / split / "cat" / "a.png")
        save(tmp_path / split / "dog" / "a.png")
    for place in (tmp_path / "test", tmp_path, tmp_path / "test" / "cat"):
        (place / name).mkdir()
        if holds_an_image:
            save(place / name / "a.png")
    data, line = loaded(tmp_path)
    assert (data.class_names, len(data)) == (("cat", "dog"), 2)
    assert "2 images of 2 classes" in line
    assert "skipped 1 hidden" in line  # the one inside a class


def test_system_files_and_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    cat = tmp_path / "test" / "cat"
    save(cat / "a.png")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "b.heic", "c.HEIC", "notes.txt", "README"):
        (cat / name).write_bytes(b"no image")
    data, line = loaded(tmp_path)
    assert len(data) == 1
    assert (
        line == f"read 1 image of 1 class from {tmp_path}/test; skipped 2 .heic, 1 .txt, 4 hidden, 1 without an ending"
    )


def test_a_folder_with_nothing_readable_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "cat" / "b.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"no folders of classes with images \(left out: \.heic\): name a folder"):
        load_images(str(tmp_path), "test")


def test_a_split_in_place_of_its_data_set_names_the_folder_above(tmp_path: Path) -> None:
    save(tmp_path / "val" / "cat" / "a.png")
    cure = f"name the folder above it, {tmp_path}, that has train/CLASS/"
    with pytest.raises(UserError, match=re.escape(cure)):
        load_images(str(tmp_path / "val"), "test")


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jfif", "a.jpe", "a.gif", "a.webp", "a.bmp", "a.tif", "a.ppm"])
def test_every_usual_format_is_read(tmp_path: Path, name: str) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(name[2:])
    found = pixels(tmp_path, Image.new("RGB", (8, 8), "red"), name, format=kind)
    assert np.abs(np.array(found) - RED).max() <= 2


def test_the_first_frame_of_a_moving_gif_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    save(tmp_path / "test" / "cat" / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    data, line = loaded(tmp_path)
    assert data.images[0, :, 0, 0].tolist() == list(BLUE)
    assert "(1 first frame of GIF)" in line


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, dtype=np.uint16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, name: str, channels: int) -> None:
    assert pixels(tmp_path, grey16(32768), name, channels) == [128] * channels
    assert pixels(tmp_path, grey16(65535), name, channels) == [255] * channels


def test_pixels_of_floats_are_from_0_to_1_or_refused(tmp_path: Path) -> None:
    assert pixels(tmp_path, Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), "a.tif") == [128] * 3
    for value in (200.0, -1.0, np.nan):
        with pytest.raises(UserError, match="floating-point pixels, which must be from 0 to 1"):
            pixels(tmp_path, Image.fromarray(np.full((8, 8), value, dtype=np.float32)), "a.tif")
    with pytest.raises(UserError, match="32-bit pixels, whose white is unknown"):
        pixels(tmp_path, Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)), "a.tif")


def half(mode: str, colour: object, clear: object) -> Image.Image:
    """An image whose left half is transparent."""
    image = Image.new(mode, (8, 8), colour)  # type: ignore[arg-type]
    image.paste(clear, (0, 0, 4, 8))  # type: ignore[call-overload]
    return image


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (half("RGBA", (*RED, 255), (0, 0, 0, 0)), {}),
        (half("LA", (9, 255), (0, 0)), {}),
        (half("RGB", RED, (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (half("P", 1, 0), {"transparency": 0}),
        (half("L", 9, 0), {"transparency": 0}),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, image: Image.Image, options: dict[str, object]) -> None:
    assert pixels(tmp_path, image, **options) == list(WHITE)
    assert "(1 transparent, on white)" in loaded(tmp_path)[1]


def test_opaque_images_keep_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    for image in (colours, colours.convert("RGBA"), colours.convert("P"), colours.convert("L"), colours.convert("1")):
        save(tmp_path / "test" / "cat" / "a.png", image)
        found, line = loaded(tmp_path, shape=(3, 10, 10))
        expected = np.asarray(image.convert("RGB"))[1:11]
        assert np.array_equal(found.images[0].permute(1, 2, 0).numpy(), expected)
        assert "(" not in line
    grey = save(tmp_path / "test" / "cat" / "a.png", colours.convert("L"))
    alone = loaded(tmp_path, shape=(1, 10, 10))[0].images[0, 0]
    assert np.array_equal(alone.numpy(), np.asarray(Image.open(grey))[1:11])


def test_every_orientation_is_turned_upright_and_a_damaged_one_is_none() -> None:
    colours = Image.effect_noise((6, 4), 90).convert("RGB")
    for number in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = number
        colours.save(file, "PNG", exif=exif)
        image = Image.open(file)
        turned = in_channels(image, 3, Counter())
        assert turned.tobytes() == ImageOps.exif_transpose(image).tobytes()
    file = io.BytesIO()
    colours.save(file, "PNG", exif=b"Exif\0\0no TIFF at all")
    notes: Counter[str] = Counter()
    assert in_channels(Image.open(file), 3, notes).tobytes() == colours.tobytes()
    assert notes == Counter()


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8), "red")
    image.paste(BLUE, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("a.png", "a.tif", "a.webp"):
        save(tmp_path / "test" / "cat" / name, image, exif=exif)
    data, line = loaded(tmp_path, shape=(3, 8, 16))
    assert [image[:, 0, 0].argmax().item() for image in data.images] == [0, 0, 0]
    assert re.search(r"\([23] turned as EXIF says\)", line)  # newer Pillows turn a TIFF themselves


@pytest.mark.parametrize("marked", [True, False])
def test_a_cmyk_jpeg_has_its_own_colours(tmp_path: Path, marked: bool) -> None:
    """Adobe's programs write CMYK inverted and mark it. Pillow takes every CMYK JPEG for inverted."""
    buffer = io.BytesIO()
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    if not marked:
        ink = Image.eval(ink, lambda value: 255 - value)  # what a file without the mark holds, as Pillow writes it
    ink.save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    path = tmp_path / "test" / "cat" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(data if marked else data[:start] + data[start + 2 + length :])
    assert np.abs(loaded(tmp_path)[0].images[0, :, 0, 0].numpy().astype(int) - RED).max() <= 3


@pytest.mark.parametrize("name", ["test", "Test", "testing", "val", "valid", "validation"])
def test_the_test_images_may_be_called_by_other_names(tmp_path: Path, name: str) -> None:
    save(tmp_path / "train" / "cat" / "a.png")
    save(tmp_path / name / "cat" / "a.png", Image.new("RGB", (8, 8), "blue"))
    data, line = loaded(tmp_path)
    assert data.images[0, :, 0, 0].tolist() == list(BLUE)
    assert line == f"read 1 image of 1 class from {tmp_path / name}"


def test_test_comes_before_val_unless_it_has_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "val" / "cat" / "a.png")
    save(tmp_path / "test" / "1.png")  # images without labels, as of a contest
    assert loaded(tmp_path)[1].endswith("/val")
    save(tmp_path / "test" / "cat" / "a.png")
    assert loaded(tmp_path)[1].endswith("/test")


@pytest.mark.parametrize(
    "layout", ["{split}/{name}", "photos/{split}/{name}", "{name}/{split}", "{split}/{name}/deep/er"]
)
def test_splits_are_found_where_people_put_them(tmp_path: Path, layout: str) -> None:
    for split, colour in (("train", "red"), ("val", "blue")):
        for name in ("cat", "dog"):
            save(tmp_path / layout.format(split=split, name=name) / "a.png", Image.new("RGB", (8, 8), colour))
    (tmp_path / "__MACOSX").mkdir()
    for split, colour in (("train", RED), ("test", BLUE)):
        data, _ = loaded(tmp_path, split)
        assert (data.class_names, data.images[0, :, 0, 0].tolist()) == (("cat", "dog"), list(colour))


def test_a_link_back_to_the_folder_ends(tmp_path: Path) -> None:
    save(tmp_path / "test" / "cat" / "a.png")
    (tmp_path / "test" / "cat" / "again").symlink_to(tmp_path / "test" / "cat", target_is_directory=True)
    assert len(loaded(tmp_path)[0]) <= 2


def test_images_are_scaled_to_the_shape_that_the_network_takes(tmp_path: Path) -> None:
    save(tmp_path / "test" / "cat" / "a.png", Image.new("RGB", (40, 20), "red"))
    for shape in ((3, 16, 16), (1, 10, 10), (3, 8, 24)):
        assert loaded(tmp_path, shape=shape)[0].images.shape == (1, *shape)
    with pytest.raises(UserError, match="grey or colour images, but the checkpoint takes 4 channels"):
        load_images(str(tmp_path), "test", shape=(4, 8, 8))


def test_images_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "test" / "cat" / "a.png")
    allow(10, monkeypatch)
    with pytest.raises(UserError, match=r"1 image in .* would take .* of free memory"):
        load_images(str(tmp_path), "test")


def test_the_order_of_images_is_that_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for number, name in enumerate(["b/z.png", "b/a/1.png", "b/a.png", "b/a-/2.png", "a/10.png", "a/9.png", "B/x.png"]):
        save(tmp_path / "train" / name, Image.new("RGB", (32, 32), (number, 0, 0)))
    found = ImageFolder(str(tmp_path / "train"))
    data = load_images(str(tmp_path), "train")
    assert data.images[:, 0, 0, 0].tolist() == [image.getpixel((0, 0))[0] for image, _ in found]
    assert torch.equal(data.labels, torch.tensor(found.targets))
    assert data.class_names == tuple(found.classes)

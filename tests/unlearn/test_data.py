from pathlib import Path

import pytest
import torch
from PIL import Image

from synth.basics.errors import UsageError, UserError
from tests.runs import digits_card
from unlearn.data import LabelledImages, check_data, load_images, normalisation


def test_digits_have_fixed_disjoint_splits_of_every_class() -> None:
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert (len(train), len(test)) == (1347, 450)
    assert train.images.shape[1:] == (1, 28, 28)
    assert train.images.dtype == torch.uint8
    assert test.labels.unique().tolist() == list(range(10))
    assert torch.equal(load_images("digits", "test").images, test.images)


def test_without_leaves_out_exactly_the_given_classes() -> None:
    data = load_images("digits", "train")
    kept = data.without((3, 8))
    assert kept.labels.unique().tolist() == [0, 1, 2, 4, 5, 6, 7, 9]
    assert len(kept) == len(data) - int(((data.labels == 3) | (data.labels == 8)).sum())


def test_an_image_folder_is_read_and_resized(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, colour in (("cat", "red"), ("dog", "blue")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (20, 10), colour).save(tmp_path / split / name / "a.png")
    data = load_images(str(tmp_path), "train", shape=(3, 16, 16))
    assert data.class_names == ("cat", "dog")
    assert data.images.shape == (2, 3, 16, 16)
    assert data.images[0, :, 8, 8].tolist() == [255, 0, 0]


def pets(class_names: tuple[str, ...]) -> LabelledImages:
    """One image of each class."""
    count = len(class_names)
    return LabelledImages(torch.zeros(count, 1, 28, 28, dtype=torch.uint8), torch.arange(count), class_names, True)


def labels_for(ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    card = digits_card(class_names=ours)
    return check_data(card, pets(theirs), Path("pets.safetensors"), "pets/").labels.tolist()


def test_labels_follow_the_order_of_the_checkpoints_classes() -> None:
    assert labels_for(("cat", "dog", "bird"), ("bird", "cat", "dog")) == [2, 0, 1]
    assert labels_for(("cat", "dog", "bird"), ("cat", "dog", "bird")) == [0, 1, 2]
    assert labels_for(("0", "2", "10"), ("0", "10", "2")) == [0, 2, 1]  # a folder's order


def test_numbers_as_names_are_positions_among_the_other_sides_classes() -> None:
    assert labels_for(("0", "1", "2"), ("bird", "cat", "dog")) == [0, 1, 2]
    assert labels_for(("zero", "one", "two"), ("0", "1", "2")) == [0, 1, 2]
    eleven = tuple("abcdefghijk")
    as_folders = tuple(sorted(map(str, range(11))))
    assert labels_for(eleven, as_folders) == [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(UsageError, match="has no class '3'"):
        labels_for(("cat", "dog", "bird"), ("1", "2", "3"))


def test_data_with_other_classes_is_refused_with_the_name_of_one() -> None:
    with pytest.raises(
        UsageError,
        match=r"pets\.safetensors has no class 'hound', which pets/ has: name the data .* --classes cat,hound if",
    ):
        labels_for(("cat", "dog"), ("cat", "hound"))
    with pytest.raises(UsageError, match="has no class '3'"):
        labels_for(("0", "1", "2"), ("1", "2", "3"))


def test_data_may_lack_the_classes_that_were_to_be_forgotten() -> None:
    card = digits_card(class_names=("cat", "dog", "bird"))
    rest = check_data(card, pets(("bird", "cat")), Path("pets.safetensors"), "pets/", gone=(1,))
    assert (rest.labels.tolist(), rest.class_names) == ([2, 0], card.class_names)
    for gone in ((), (0,)):
        with pytest.raises(
            UsageError, match=r"of 2 classes: name .* empty folder for each class whose images are gone"
        ):
            check_data(card, pets(("bird", "cat")), Path("pets.safetensors"), "pets/", gone)


def test_a_class_whose_images_are_gone_may_be_an_empty_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "dog").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "dog" / "a.png")
    data = load_images(str(tmp_path), "train")
    assert (data.class_names, data.labels.tolist()) == (("cat", "dog"), [1])


def test_a_class_in_only_one_split_is_refused(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "a.png")
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"train has a folder 'cat' and .*test has none: give both"):
            load_images(str(tmp_path), split)


def test_missing_data_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folders of classes with images: name a folder"):
        load_images(str(tmp_path), "train")
    with pytest.raises(UsageError, match=r"unknown data 'imagenet': choose cifar10, .* or the path of a folder"):
        load_images("imagenet", "train")


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", b"no image"), ("huge.ppm", b"P6 100000 100000 255\n"), ("b.ppm", b"P6 x\n")]
)
def test_an_error_names_the_broken_image(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*: save it again, or remove it from the folder"):
        load_images(str(tmp_path), "train")


def test_normalisation_is_per_channel_in_unit_range() -> None:
    images = torch.stack([torch.zeros(2, 4, 4), torch.full((2, 4, 4), 255)]).to(torch.uint8)
    mean, std = normalisation(images)
    assert mean == (0.5, 0.5)
    assert std == pytest.approx((0.508, 0.508), abs=1e-3)

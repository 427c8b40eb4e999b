"""`synth card`: a README.md for the Hugging Face Hub, which leaves the run as it is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from synth.basics.errors import UsageError
from synth.run.dataset_card import CARD, MARK, dataset_card
from synth.run.publish import open_run
from synth.shards.index import INDEX, PART, Index, read_index
from synth.shards.store import Folder, open_store
from tests.runs import digests
from tests.synth.conftest import Run


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def header_of(text: str) -> dict[str, object]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_the_card_states_what_the_images_are_and_what_they_hold(run: Run, copy: Path) -> None:
    assert run("card", copy) == (0, f"wrote {copy}/README.md\n", "")
    text, index = (copy / CARD).read_text(), read_index(Folder(copy))
    for words in (
        "These images are synthetic.",
        "They still hold what the classifier knows of every class below.",
        f"sha256 {index.card.teacher_sha256}",
        f"| recognised | {index.judged[0] / 24:.0%} of 24 changed copies of the images, by the classifier |",
        "| method | deepinversion |",
        "| random seed | 0 |",
        "10 images per class. The classifier has 10 classes",
        "- 9: 9\n",
        '    "steps": 30',
        "shard-{000000..000003}.tar",
        "| views | 2 views of each image, as recipes |",
        "`png`, the image;",
    ):
        assert words in text
    header = header_of(text)
    assert header["size_categories"] == ["n<1K"]
    assert header["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "shard-*.tar"}]}]


def test_the_card_disturbs_no_other_command(run: Run, copy: Path) -> None:
    status = run("status", copy)
    run("card", copy)
    assert run("verify", copy)[0] == 0
    assert run("status", copy) == status
    wanted = read_index(Folder(copy)).card
    assert open_run(Folder(copy), wanted, resume=True, overwrite=False).complete
    assert (copy / CARD).exists()
    open_run(Folder(copy), wanted, resume=False, overwrite=True)
    assert set(digests(copy)) == {PART}  # the card described the shards that were replaced


def test_a_readme_of_the_users_own_is_never_replaced_or_removed(run: Run, copy: Path) -> None:
    for name in (CARD, "other.md"):
        (copy.parent / name).write_text("mine")
    (copy / CARD).write_text("mine")
    for options in ([], ["-o", copy.parent / CARD], ["-o", copy.parent / "other.md"]):
        code, out, err = run("card", copy, *options)
        assert (code, out) == (2, "")
        assert err.endswith("was not written by 'synth card': name another file with -o\n")
    with pytest.raises(UsageError, match=r"already holds other files \(README.md"):
        open_run(Folder(copy), read_index(Folder(copy)).card, resume=False, overwrite=True)
    assert (copy / CARD).read_text() == "mine"


def test_the_card_goes_to_a_file_and_is_written_again(
    run: Run, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_OUT", "a run's place")
    monkeypatch.chdir(tmp_path)
    before = digests(tiny_run)
    for _ in range(2):
        assert run("card", tiny_run, "-o", "card.md") == (0, "wrote card.md\n", "")
    assert MARK in (tmp_path / "card.md").read_text()
    assert digests(tiny_run) == before


def test_the_card_goes_into_object_storage(run: Run, copy: Path) -> None:
    store = open_store("memory://card-of-a-run")
    for name in Folder(copy).names():
        store.write(name, (copy / name).read_bytes())
    assert run("card", "memory://card-of-a-run")[:2] == (0, "wrote memory://card-of-a-run/README.md\n")
    assert MARK.encode() in store.read(CARD, 2**20)


def test_a_run_that_is_not_complete_gets_no_card(run: Run, copy: Path) -> None:
    (copy / INDEX).rename(copy / PART)
    index = read_index(Folder(copy))
    Folder(copy).write(PART, dataclasses.replace(index, entries={}, complete=False).to_bytes())
    code, _, err = run("card", copy)
    assert code == 1
    assert "is not complete: finish it with the run's own 'synth generate' options and --resume" in err


def test_names_of_classes_stay_text(tiny_run: Path) -> None:
    index = read_index(Folder(tiny_run))
    names = ("a: b --- license: mit", "[x](y)", "<b>", "`c`", "# d", *"56789")
    card = dataclasses.replace(index.card, class_names=names, architecture='own: "net"')
    text = dataset_card(Index(card, index.entries, complete=True))
    assert str(header_of(text)["pretty_name"]).endswith('own: "net"')
    assert "license" not in header_of(text)
    for line in ("- 1: \\[x\\]\\(y\\)", "- 2: \\<b\\>", "- 3: \\`c\\`", "- 4: \\# d"):
        assert line in text


def test_the_library_datasets_reads_the_run_with_its_card(run: Run, copy: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    run("card", copy)
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    by_files = datasets.load_dataset("webdataset", data_files=str(copy / "shard-*.tar"), **options)
    by_card = datasets.load_dataset(str(copy), **options)
    assert by_files["__key__"] == by_card["__key__"]
    assert len(by_card) == 100
    assert [by_card[row]["cls"] for row in range(4)] == [0, 1, 2, 3]
    assert by_card[0]["png"].size == (28, 28)

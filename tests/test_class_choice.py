"""Classes by name or number: what is meant, and what is refused because it may mean two things."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.basics.errors import UsageError
from synth.checkpoint.class_choice import as_options, choose_classes, class_words
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.commands.main import main as synth
from synth.shards.plan import Plan
from tests.runs import digits_card, make_run, recipe_for
from unlearn.commands.main import main as unlearn

PETS = ("cat", "dog", "tabby, cat", "great dane", "10")
SORTED = ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")  # as folders 0 to 11 stand in a listing
AGES = ("0-9", "10-19", "20-29", *(str(n) for n in range(30, 41)))


@pytest.mark.parametrize(
    ("names", "asked", "numbers"),
    [
        (PETS, ["cat"], (0,)),
        (PETS, ["dog,cat"], (0, 1)),
        (PETS, ["dog", "great dane"], (1, 3)),
        (PETS, ["tabby, cat"], (2,)),
        (PETS, ['"tabby, cat",dog'], (1, 2)),
        (PETS, ["1-3"], (1, 2, 3)),
        (PETS, [" 1 , cat "], (0, 1)),
        (PETS, ["10"], (4,)),  # there is no class number 10
        (PETS, [4, "dog"], (1, 4)),  # a number from a file is a position
        (SORTED, ["name:2"], (4,)),
        (SORTED, ["index:2"], (2,)),
        (SORTED, ["index:2-4,name:9"], (2, 3, 4, 11)),
        (SORTED, ["name:2-4"], (4, 5, 6)),
        (SORTED, ["0-11"], tuple(range(12))),  # all classes, whatever is meant
        (SORTED, ["1"], (1,)),
        (SORTED, [2], (2,)),
        (AGES, ["10-19"], (1,)),
        (AGES, ["name:0-9"], (0,)),
        (AGES, ["30-40"], tuple(range(3, 14))),
        (tuple("0123456789"), ["3,8"], (3, 8)),
    ],
)
def test_a_text_stands_for_the_classes_that_a_person_means(
    names: tuple[str, ...], asked: list[int | str], numbers: tuple[int, ...]
) -> None:
    assert choose_classes(asked, names) == numbers


@pytest.mark.parametrize(
    ("names", "text", "words"),
    [
        (SORTED, "2", "class '2' may be class 2, '10', or class 4, '2': write index:2 or name:2"),
        (SORTED, "0,1,2", "class '2' may be class 2, '10', or class 4, '2'"),
        (SORTED, "1-3", "may be classes 1, 2 '10', 3 '11', or classes 1, 4 '2', 5 '3': write index:1-3 or name:1-3"),
        (AGES, "0-9", "may be classes 0 '0-9', 1 '10-19', .*, or class 0, '0-9': write index:0-9 or name:0-9"),
        (("a", "b", "a,b"), "a,b", "'a,b' is one class, and also a list of others: write name:a,b"),
        (("crane", "cat", "crane"), "crane", r"classes 0, 2 are all called 'crane': choose by number, such as index:0"),
        (PETS, "7", r"class 7 is out of range: the teacher has 5 classes \(0-4\)"),
        (PETS, "index:10", "class 10 is out of range"),
        (PETS, "3-1", "'3-1' is no range: write the smaller number first"),
        (PETS, "Cta", "the teacher has no class 'Cta': the nearest names are 'cat'"),
        (PETS, "dane", "has no class 'dane': the nearest names are 'great dane'"),
        (PETS, "name:3", "has no class '3': write a number or a name of 'cat', 'dog', 'tabby, cat'"),
        (PETS, "", "has no class ''"),
        (PETS, "cat,,dog", "has no class ''"),
    ],
)
def test_a_text_that_stands_for_no_class_or_for_two_is_refused_in_one_line(
    names: tuple[str, ...], text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        choose_classes([text], names)
    assert "\n" not in str(refused.value)


def test_classes_are_shown_by_number_and_name() -> None:
    assert class_words([2], SORTED) == "class 2, '10'"
    assert class_words([0], SORTED) == "class 0"
    assert class_words([3, 0], PETS) == "classes 0 'cat', 3 'great dane'"
    assert class_words(range(12), SORTED).endswith("9 '7' and 2 more")
    for names in (PETS, SORTED):  # what a cure names is read as the same class
        for number in range(len(names)):
            option = as_options("--without", [number], names).removeprefix("--without ").strip("'")
            assert choose_classes([option], names) == (number,)


def answered(command: object, *arguments: object, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(map(str, arguments)), env=environment)  # type: ignore[arg-type]
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def numbered_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained teacher whose classes are named as folders 0 to 11 are sorted, and a run of it."""
    folder = tmp_path_factory.mktemp("sorted")
    teacher = Classifier.untrained(digits_card(class_names=SORTED), 0).freeze()
    save_checkpoint(teacher, folder / "t.safetensors")
    make_run(folder / "shards", recipe_for(teacher), Plan(classes=tuple(range(12)), per_class=2, shard_size=24))
    return folder


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("2", "class '2' may be class 2, '10', or class 4, '2': write index:2 or name:2"),
        ("name:2", "forgets class 4, '2'"),
        ("index:2", "forgets class 2, '10'"),
    ],
)
def test_a_number_that_is_another_classs_name_is_refused_until_it_is_clear(
    numbered_folders: Path, tmp_path: Path, spelling: str, words: str
) -> None:
    given = ["--shards", numbered_folders / "shards", "--out", tmp_path / "run", "--steps", 1, "--gate", 1]
    code, said = answered(unlearn, "distill", *given, "--forget", spelling)
    assert words in said
    assert (code, (tmp_path / "run").exists()) == ((2, False) if spelling == "2" else (0, True)), said


def test_every_command_that_takes_classes_takes_names(numbered_folders: Path, tmp_path: Path) -> None:
    teacher, shards = numbered_folders / "t.safetensors", numbered_folders / "shards"
    made = tmp_path / "made"
    generate = ["--teacher", teacher, "--per-class", 1, "--steps", 1, "--address", "none", "--out", made]
    assert "generates class 4, '2'" in answered(synth, "generate", *generate, "--classes", "name:2")[1]
    assert "may be class 2" in answered(synth, "preview", shards, "--classes", "2", "-o", tmp_path / "grid.png")[1]
    code, said = answered(synth, "preview", made, "--classes", "index:3", "-o", tmp_path / "grid.png")
    assert (code, "the run has no images of class 3, '11': it has those of class 4, '2'" in said) == (2, True)
    assert answered(synth, "preview", made, "--classes", "name:2", "-o", tmp_path / "grid.png")[0] == 0
    for command in (["audit", "s", "--teacher", teacher], ["edit", "--kind", "masked-logit", "--teacher", teacher]):
        student = tmp_path / "edited" / "student.safetensors"
        given = [student if part == "s" else part for part in command]
        if command[0] == "audit":
            save_checkpoint(Classifier.untrained(digits_card(class_names=SORTED), 1), student)
        code, said = answered(unlearn, *given, "--forget", "2", "--out", tmp_path / command[0])
        assert (code, "write index:2 or name:2" in said) == (2, True), said


def test_names_come_from_the_environment_with_their_spaces(numbered_folders: Path, tmp_path: Path) -> None:
    given = ["edit", "--kind", "masked-logit", "--teacher", numbered_folders / "t.safetensors", "--out", tmp_path / "r"]
    code, said = answered(unlearn, *given, UNLEARN_FORGET="name:3, name:10")
    assert (code, "forgets classes 2 '10', 5 '3'" in said) == (0, True), said

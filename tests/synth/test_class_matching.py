"""The classes that two networks have in common."""

import pytest

from synth.basics.errors import UsageError
from synth.checkpoint.class_matching import matching_classes

ANIMALS = ("cat", "dog", "tree frog", "crane", "crane")


@pytest.mark.parametrize(
    ("theirs", "numbers"),
    [
        (ANIMALS, {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
        (("dog", "cat"), {0: 1, 1: 0}),
        (("Tree_Frog", "CAT", "ship"), {0: 1, 2: 0}),
        (("crane", "dog"), {1: 1}),  # either of the run's cranes could be meant
    ],
)
def test_classes_are_matched_by_name(theirs: tuple[str, ...], numbers: dict[int, int]) -> None:
    assert matching_classes(ANIMALS, theirs, "other") == numbers


def test_digits_are_names() -> None:
    assert matching_classes(("0", "1", "2"), ("2", "1"), "other") == {1: 1, 2: 0}


def test_equal_indices_match_whatever_the_names() -> None:
    assert matching_classes(("cat", "dog"), ("0", "1"), "other", equal_indices=True) == {0: 0, 1: 1}
    with pytest.raises(UsageError, match="the run has 2 and other 3: leave the option out"):
        matching_classes(("cat", "dog"), ("0", "1", "2"), "other", equal_indices=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (("cat", "dog"), ("0", "1"), "other has only numbers for class names.*give --equal-indices"),
        (("0", "1"), ("cat", "dog"), "the run has only numbers for class names.*give --equal-indices"),
        (("0", "1"), ("0", "1", "2"), "both have only numbers for class names.*import both networks again"),
        (("cat", "dog"), ("ship", "truck"), "no class in common with the run: its classes are 'ship', 'truck', and"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused_with_the_cure(
    ours: tuple[str, ...], theirs: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        matching_classes(ours, theirs, "other")

from dataclasses import replace
from pathlib import Path

import pytest

from synth.errors import UsageError
from synth.teacher import Classifier
from tests.runs import digits_card
from unlearn.audit.subjects import check_alike

NAMED = digits_card(class_names=tuple("abcdefghij"))


def model(**changes: object) -> Classifier:
    return Classifier.untrained(replace(NAMED, **changes), 0)  # type: ignore[arg-type]


def test_a_class_has_to_be_the_same_one_in_every_model() -> None:
    for names in ("jihgfedcba", "klmnopqrst"):
        with pytest.raises(UsageError, match="b has other classes than a, or has them in another order"):
            check_alike(model(), model(class_names=tuple(names)), Path("a"), Path("b"))
    check_alike(model(), model(), Path("a"), Path("b"))
    check_alike(model(), model(class_names=tuple("0123456789")), Path("a"), Path("b"))  # numbers stand for any names

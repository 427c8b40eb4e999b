from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from tests.runs import digits_card
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, RANDOM, RETRAINED
from unlearn.auditing.subjects import check_alike, gather

NAMED = digits_card(class_names=tuple("abcdefghij"))


def model(**changes: object) -> Classifier:
    return Classifier.untrained(replace(NAMED, **changes), 0)  # type: ignore[arg-type]


def test_every_model_needs_the_same_classes_in_the_same_order() -> None:
    for names in ("jihgfedcba", "klmnopqrst"):
        with pytest.raises(UsageError, match="b has other classes than a, or has them in another order"):
            check_alike(model(), model(class_names=tuple(names)), Path("a"), Path("b"))
    check_alike(model(), model(), Path("a"), Path("b"))
    check_alike(model(), model(class_names=tuple("0123456789")), Path("a"), Path("b"))  # numbers stand for any names


def test_a_network_that_cannot_be_masked_is_audited_without_a_masked_logit(tmp_path: Path) -> None:
    card = digits_card(
        architecture="squeezenet1_1", width=1.0, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    for seed, path in enumerate((teacher, student)):
        save_checkpoint(Classifier.untrained(card, seed), path)
    (lineup,), missing, _ = gather(
        students=[student],
        teacher=teacher,
        references=[],
        asked=(0,),
        trusted_architecture=None,
        device="cpu",
        seed=0,
        random_models=1,
    )
    assert list(lineup) == [ORIGINAL, MODEL, RANDOM]
    assert [line.name for line in missing] == [MASKED, RETRAINED]
    assert "can't be masked in its last layer" in missing[0].why
    (original,), (random,) = lineup[ORIGINAL], lineup[RANDOM]  # of the same seed
    weights = zip(original.net.parameters(), random.net.parameters(), strict=True)
    assert not any(torch.equal(one, other) for one, other in weights if one.std() > 0)

import dataclasses
import math
import typing
from typing import Any

import pytest

from synth.basics.settings import types_of
from tests.catalogue import METHOD_SETTINGS, SYNTHESIS_SETTINGS
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.methods.distill_settings import DistillSettings
from unlearn.settings import (
    LoopSettings,
)
from unlearn.training import TrainSettings

ALL = (
    *SYNTHESIS_SETTINGS.values(),
    *METHOD_SETTINGS.values(),
    AuditSettings,
    DistillSettings,
    LoopSettings,
    TrainSettings,
)
NUMBERS = [
    pytest.param(owner, field, id=f"{owner.__name__}.{field.name}")
    for owner in ALL
    for field in dataclasses.fields(owner)
    if {int, float}
    & {typing.get_type_hints(owner)[field.name], *typing.get_args(typing.get_type_hints(owner)[field.name])}
]


@pytest.mark.parametrize(("owner", "field"), NUMBERS)
def test_every_number_has_a_range_and_is_held_to_it(owner: Any, field: dataclasses.Field[Any]) -> None:
    limits = field.metadata
    lowest = limits["at_least"] if "at_least" in limits else limits["above"]
    outside = [lowest - 1, math.nan]
    outside += [lowest] if "above" in limits else []
    outside += [limits["at_most"] + 1] if "at_most" in limits else []
    outside += [limits["below"]] if "below" in limits else []
    for value in outside:
        with pytest.raises(ValueError, match=rf"^{field.name.replace('_', ' ')} must be .*, not {value}$"):
            owner(**{field.name: value})


@pytest.mark.parametrize(("owner", "field"), NUMBERS)
def test_every_count_has_a_maximum(owner: Any, field: dataclasses.Field[Any]) -> None:
    """Settings also come from the files of others: no count may ask for years or for all memory."""
    kinds = types_of(owner)[field.name]
    if int in kinds:
        highest = next(field.metadata[name] for name in ("most", "at_most", "below") if name in field.metadata)
        with pytest.raises(ValueError, match=f"^{field.name.replace('_', ' ')} must be "):
            owner(**{field.name: highest + 1})
    for value in ("3", True, [3], {}, 2.5 if int in kinds else "nan"):
        with pytest.raises(ValueError, match=f"^{field.name.replace('_', ' ')} must be a .*number.*, not "):
            owner(**{field.name: value})


@pytest.mark.parametrize("owner", ALL, ids=lambda owner: owner.__name__)
def test_text_and_switches_are_held_to_their_types(owner: Any) -> None:
    for name, kinds in types_of(owner).items():
        odd = {str: (5, None, "a\0b", "a" * 10**6, "\x1b[2J"), bool: ("yes", 1, None)}
        for value in next((odd[kind] for kind in odd if kind in kinds and type(None) not in kinds), ()):
            with pytest.raises(ValueError, match=f"^{name.replace('_', ' ')} must be ") as caught:
                owner(**{name: value})
            assert len(str(caught.value)) < 250
            assert str(caught.value).isprintable()


@pytest.mark.parametrize("owner", ALL, ids=lambda owner: owner.__name__)
def test_every_choice_is_held_to(owner: Any) -> None:
    for field in dataclasses.fields(owner):
        if "choices" in field.metadata:
            with pytest.raises(ValueError, match=f"^{field.name.replace('_', ' ')} must be one of .*, not other$"):
                owner(**{field.name: "other"})


def test_a_range_is_told_in_words() -> None:
    for settings, words in (
        ({"gate": 0.0}, "gate must be above 0 and at most 1, not 0.0"),
        ({"shift": 65}, "shift must be within 0 and 64, not 65"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"steps": 0}, "steps must be 1 or more, not 0"),
        ({"lr": math.inf}, "lr must be a finite number, not inf"),
    ):
        with pytest.raises(ValueError, match=f"^{words}$"):
            DistillSettings(**settings)  # type: ignore[arg-type]

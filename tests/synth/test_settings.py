import dataclasses

import pytest

from synth import methods
from synth.methods.deepinversion_settings import DeepInversionSettings
from tests.catalogue import SYNTHESIS_PRESETS, SYNTHESIS_SETTINGS


@pytest.mark.parametrize("settings", [cls() for cls in SYNTHESIS_SETTINGS.values()] + list(SYNTHESIS_PRESETS.values()))
def test_defaults_and_presets_are_within_their_own_ranges(settings: object) -> None:
    dataclasses.replace(settings)  # type: ignore[type-var]  # checks them once more
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        assert field.metadata["help"]
        assert field.kw_only
        assert getattr(settings, field.name) in field.metadata.get("choices", [getattr(settings, field.name)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.steps = 5  # type: ignore[attr-defined]


def test_every_method_has_settings_and_the_common_call() -> None:
    for name in methods.METHODS.names():
        assert callable(methods.find(name).synthesise)
        assert callable(methods.find(name).check)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"steps": 5, "coarse_steps": 6},
        {"coarse_steps": -1},
        {"jitter": -1},
        {"jitter": 1000},
        {"warmup": -1},
        {"ce": -1.0},
        {"bn": float("nan")},
        {"first_bn": -1.0},
        {"tv_l1": -1.0},
        {"tv_l2": -1.0},
        {"l2": -1.0},
        {"bn_loss": "odd"},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(changes: dict[str, object]) -> None:
    name = list(changes)[-1].replace("_", "[_ ]")
    with pytest.raises(ValueError, match=name):
        DeepInversionSettings(**changes)  # type: ignore[arg-type]

"""Whatever torchvision network can be trained can be imported and read again."""

from pathlib import Path

import pytest
import torch
from torchvision import models

from synth.checkpoint.building import AUXILIARY_HEADS, build_torchvision
from synth.checkpoint.classifier import expected_state
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.without_memory import WithoutMemory
from tests.imports import card, imported
from unlearn.data import LabelledImages
from unlearn.training import TrainSettings, train_classifier

# The smallest network of each kind, and the side in pixels that it accepts.
KINDS = {
    **{"alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32, "efficientnet_v2_s": 32},
    **{"googlenet": 32, "inception_v3": 75, "maxvit_t": 224, "mnasnet0_5": 32, "mobilenet_v2": 32},
    **{"mobilenet_v3_small": 32, "regnet_x_400mf": 32, "regnet_y_400mf": 32, "resnet18": 32, "resnext50_32x4d": 32},
    **{"shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "swin_t": 32, "swin_v2_t": 32, "vgg11": 32, "vgg11_bn": 32},
    **{"vit_b_32": 32, "wide_resnet50_2": 32},
}
ALL = models.list_models(module=models)
QUICK = ("mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1")


def family(name: str) -> str:
    return name.split("_")[0].rstrip("0123456789")


def options(name: str) -> dict[str, str]:
    side = KINDS.get(name) or next(KINDS[kind] for kind in KINDS if family(kind) == family(name))
    return {"architecture": name, "input_shape": f"3,{side},{side}", "classes": "3", "mean": "0.5", "std": "0.25"}


def test_the_kinds_cover_every_network() -> None:
    assert {family(name) for name in ALL} == {family(name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_the_weights_of_a_network_are_known_without_memory(name: str) -> None:
    state = expected_state(card(options(name)))
    big = [key for key, value in state.items() if not value.is_meta and value.numel() > 10_000]
    assert state
    assert not [key for key in big if "relative" not in key]  # tables that a network computes


def check(name: str, folder: Path) -> None:
    """Import random weights of the network, as torch.save writes them, and read the checkpoint again."""
    facts = card(options(name))
    torch.manual_seed(0)
    with torch.no_grad():
        net = build_torchvision(name, 3, 3, facts.input_shape[1:]).eval()  # type: ignore[arg-type]
    model, said = imported(net.state_dict(), folder, options(name))
    x = torch.rand(2, *facts.input_shape)
    torch.testing.assert_close(model(x), net((x - 0.5) / 0.25))
    assert "removed" not in said


@pytest.mark.parametrize("name", QUICK)
def test_a_network_of_torchvision_is_imported_and_read(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ALL if name not in QUICK])
def test_every_network_of_torchvision_is_imported_and_read(name: str, tmp_path: Path) -> None:
    with WithoutMemory():
        weights = sum(p.numel() for p in build_torchvision(name, 3, 3, (224, 224)).parameters())
    if weights > 350e6:
        pytest.skip(f"{weights / 1e6:.0f} million weights need more than 6 GB here")
    check(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_is_trained_and_read(name: str, tmp_path: Path) -> None:
    from synth.checkpoint.file import save_checkpoint

    shape = card(options(name)).input_shape
    images = torch.randint(0, 256, (6, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = LabelledImages(images, torch.tensor([0, 1, 2] * 2), ("a", "b", "c"), True)
    model = train_classifier(data, name, TrainSettings(epochs=1, batch_size=3, lr=1e-4))
    save_checkpoint(model, tmp_path / "teacher.safetensors")
    x = torch.rand(2, *shape)
    assert torch.equal(load_checkpoint(tmp_path / "teacher.safetensors")(x), model(x))


def test_auxiliary_heads_are_known_for_the_networks_that_have_them() -> None:
    assert {name for name in ALL if "inception" in name or "googlenet" in name} == set(AUXILIARY_HEADS)

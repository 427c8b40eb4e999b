"""The user's own code saves a trained network, and loads what comes back: the same logits, for every kind of file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from synth.shards.plan import Plan
from tests.imports import SMALL, Body, imported
from tests.runs import make_run, recipe_for
from unlearn.exporting.export import ExportRequest, export

OWN = "tests.unlearn.test_round_trip"
PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
WEIGHTS = "OWN_WEIGHTS"  # the environment variable that names the file of `builder`


class Net(nn.Module):
    """A small classifier as users write them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.fc = Body(3), nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


class LitNet(nn.Module):
    """What Lightning saves: the network, and the loss beside it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.model = net

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def builder() -> nn.Module:
    """A function that loads its weights itself."""
    net = Net(4)
    net.load_state_dict(torch.load(os.environ[WEIGHTS]))
    return net


def shufflenet(num_classes: int) -> nn.Module:
    from torchvision.models import shufflenet_v2_x0_5

    return shufflenet_v2_x0_5(num_classes=num_classes)


def timm_network(num_classes: int) -> nn.Module:
    return pytest.importorskip("timm").create_model("test_resnet", num_classes=num_classes)


def transformers_network(num_classes: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    labels = {number: f"class {number}" for number in range(num_classes)}
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels
    )
    return transformers.ResNetForImageClassification(config)


@dataclass(frozen=True)
class Kind:
    """One way to save a network and to load it again.

    `save` writes the file of a trained network. `load` loads a file into an untrained network of the same kind, and
    returns what the user then calls.
    """

    save: Callable[[nn.Module, Path], object]
    load: Callable[[nn.Module, Path], nn.Module]
    net: Callable[[int], nn.Module] = Net
    architecture: str = f"{OWN}:Net"
    facts: Mapping[str, str] = field(default_factory=lambda: SMALL)
    file: str = "model.pt"
    like: bool = True  # export with --like


def filled(net: nn.Module, state: Mapping[str, Any], strict: bool = True) -> nn.Module:
    net.load_state_dict(state, strict=strict)
    return net


def entry(name: str, **beside: Any) -> Kind:
    """The state dict under a name, with other values beside it."""
    return Kind(
        lambda net, path: torch.save({**beside, name: net.state_dict()}, path),
        lambda net, path: filled(net, torch.load(path)[name]),
    )


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Kind:
    """The state dict of a module around the network."""
    return Kind(
        lambda net, path: torch.save(wrap(net).state_dict(), path),
        lambda net, path: filled(wrap(net), torch.load(path)),
    )


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # type: ignore[return-value]  # other backends compile for a minute


def save_without_counters(net: nn.Module, path: Path) -> None:
    torch.save({key: value for key, value in net.state_dict().items() if "num_batches" not in key}, path)


def with_counts(net: nn.Module) -> nn.Module:
    """The network after thop counted its operations."""
    for module in net.modules():
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
    return net


def save_with_average(net: nn.Module, path: Path) -> None:
    average = {key: value * 0.9 for key, value in net.state_dict().items()}
    torch.save({"model": net.state_dict(), "model_ema": average}, path)


def load_average(net: nn.Module, path: Path) -> nn.Module:
    return filled(net, torch.load(path)["model_ema"])


def save_lightning(net: nn.Module, path: Path) -> None:
    torch.save(
        {"epoch": 3, "state_dict": LitNet(net).state_dict(), "optimizer_states": [], "hyper_parameters": {"lr": 0.1}},
        path,
    )


def plain(architecture: str, net: Callable[[int], nn.Module], **facts: str) -> Kind:
    return Kind(save_plain, load_plain, net, architecture, {**SMALL, **facts})


def save_plain(net: nn.Module, path: Path) -> None:
    torch.save(net.state_dict(), path)


def load_plain(net: nn.Module, path: Path) -> nn.Module:
    return filled(net, torch.load(path))


def load_parts(net: nn.Module, path: Path) -> nn.Module:
    for part, state in torch.load(path).items():
        filled(getattr(net, part), state)
    return net


def load_safetensors(net: nn.Module, path: Path) -> nn.Module:
    load_model(net, path)
    return net


KINDS: dict[str, Kind] = {
    "plain state dict": Kind(save_plain, load_plain),
    "`state_dict`": entry("state_dict", epoch=3),
    "`model_state_dict`": entry("model_state_dict", optimizer_state_dict={"state": {}, "param_groups": []}, loss=0.1),
    "`net`": entry("net", acc=93.1, epoch=199),
    "Lightning": Kind(save_lightning, lambda net, path: filled(LitNet(net), torch.load(path)["state_dict"])),
    "DataParallel, DDP": wrapped(nn.DataParallel),
    "torch.compile": wrapped(compiled),  # type: ignore[arg-type, return-value]
    "torch.compile in DDP": wrapped(lambda net: nn.DataParallel(compiled(net))),  # type: ignore[arg-type]
    "EMA beside the weights": Kind(save_with_average, load_average),
    "SWA": wrapped(AveragedModel),
    "half precision": Kind(
        lambda net, path: torch.save(net.half().state_dict(), path),
        lambda net, path: filled(net.half(), torch.load(path)),
    ),
    "no counters": Kind(save_without_counters, lambda net, path: filled(net, torch.load(path), strict=False)),
    "thop": wrapped(with_counts),
    "two parts": Kind(
        lambda net, path: torch.save({"body": net.body.state_dict(), "fc": net.fc.state_dict()}, path),  # type: ignore[operator, union-attr]
        load_parts,
    ),
    "safetensors": Kind(save_model, load_safetensors, file="model.safetensors"),
    "whole pickled network": Kind(torch.save, load_plain, like=False),
    "own function that loads": Kind(save_plain, load_plain, architecture=f"{OWN}:builder", like=False),
    "torchvision": plain("shufflenet_v2_x0_5", shufflenet, input_shape="3,32,32"),
    "timm": plain("timm:test_resnet", timm_network, input_shape="3,32,32"),
    "transformers": Kind(
        lambda net, path: net.save_pretrained(path),  # type: ignore[operator]
        lambda net, path: type(net).from_pretrained(path),  # type: ignore[attr-defined]
        transformers_network,
        "",
        {"input_shape": "3,32,32", "mean": "0.5", "std": "0.25"},
        "folder",
        like=False,
    ),
}


def trained(net: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """The network with running statistics of its own."""
    torch.manual_seed(seed)
    net.train()
    with torch.no_grad():
        net(torch.rand(8, *shape))
    return net.eval()


def logits(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out = net.float().eval()(x)
    return out if isinstance(out, Tensor) else out.logits


@pytest.mark.parametrize("name", KINDS)
def test_the_users_own_code_loads_what_comes_back(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS[name]
    torch.manual_seed(0)
    shape = tuple(map(int, kind.facts["input_shape"].split(",")))
    net, original = trained(kind.net(4), shape, seed=1), tmp_path / kind.file
    kind.save(net, original)
    monkeypatch.setenv(WEIGHTS, str(original))
    facts = {**kind.facts, "architecture": kind.architecture} if kind.architecture else kind.facts
    if kind.file == "folder":
        teacher, _ = imported(None, tmp_path, facts, weights=f"transformers:{original}")
    else:
        teacher, _ = imported(None if kind.architecture.endswith("builder") else original, tmp_path, facts)

    recipe = dataclasses.replace(recipe_for(teacher), trusted_architecture=teacher.card.architecture)
    _, index = make_run(tmp_path / "run", recipe, Plan(classes=(0, 1, 2, 3), per_class=2, shard_size=8))
    assert index.samples == 8

    out = tmp_path / ("exported" if kind.file == "folder" else f"exported{original.suffix}")
    export(
        ExportRequest(
            student=tmp_path / "teacher.safetensors",
            out=out,
            like=original if kind.like else None,
            trusted_architecture=teacher.card.architecture,
        ),
        lambda line: None,
    )
    torch.manual_seed(2)
    fresh = kind.net(4)
    x = torch.randn(4, *shape)
    assert not torch.allclose(logits(fresh, x), logits(net, x), atol=1e-2)
    torch.testing.assert_close(logits(kind.load(fresh, out), x), logits(net, x), rtol=0, atol=1e-5)


def test_the_manual_has_a_row_for_each_kind() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert [row for row in rows if row in KINDS] == list(KINDS)

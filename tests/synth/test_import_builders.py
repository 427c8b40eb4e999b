"""A user's own network with any of the usual signatures, and one that loads its own weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from synth.basics.errors import UsageError
from synth.checkpoint.building import build
from synth.checkpoint.classifier import Classifier
from tests.imports import SMALL, card, imported

SIGNATURES = """
from torch import nn
def head(channels, classes): return nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, classes))
def a(num_classes): return head(3, num_classes)
def b(classes): return head(3, classes)
def c(n_classes=10): return head(3, n_classes)
def d(): return head(3, 4)
def e(pretrained=True, progress=True, **kwargs):
    assert not pretrained
    return head(3, kwargs["num_classes"])
def f(in_channels, num_classes): return head(in_channels, num_classes)
def g(classes, channels): return head(channels, classes)
def h(x, y): return head(x, y)
def i(k): return head(3, k)
def j(*, num_labels, in_chans=3): return head(in_chans, num_labels)
def k(nc, num_classes, depth=2): return head(nc, num_classes)
def l(channels=64, num_classes=10):
    assert channels == 64
    return head(3, num_classes)
def m(*sizes): return head(*sizes)
class N(nn.Sequential):
    def __init__(self, num_classes=1000, width=2): super().__init__(nn.Flatten(), nn.Linear(768, num_classes))
class O:
    @classmethod
    def make(cls, n_class): return head(3, n_class)
p = head(3, 4)
def needs(config): raise TypeError("config is no number")
def many(block, layers, num_classes=10): pass
def only(*, config): pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "signatures_of_users.py").write_text(SIGNATURES)
    monkeypatch.syspath_prepend(tmp_path)
    return "signatures_of_users"


@pytest.mark.parametrize("function", [*"abcdefghijklm", "N", "O.make", "p"])
def test_a_builder_of_any_usual_signature_is_called(own: str, function: str) -> None:
    assert build(f"{own}:{function}", 3, 4, 16)(torch.rand(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "needs",
            r"called with \(4\), failed: config is no number: correct it, or write .*def net",
        ),
        (
            "many",
            r"takes \(block, layers, num_classes\), of which only .* known here: write a function",
        ),
        ("only", r"takes \(config\), .* save it in mynet\.py, and name it --arch mynet:net"),
    ],
)
def test_a_builder_with_other_parameters_is_told_the_line_to_write(own: str, function: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(f"{own}:{function}", 3, 4, 16)


BUILT = 0


def loads_itself() -> nn.Module:
    """A builder that loads trained weights, and counts how often."""
    global BUILT
    BUILT += 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    net.load_state_dict({"1.weight": torch.arange(3072.0).view(4, 768) / 3072, "1.bias": torch.zeros(4)})
    return net


def test_a_builder_that_loads_its_own_weights_is_built_once(tmp_path: Path) -> None:
    global BUILT
    options = {**SMALL, "architecture": "tests.synth.test_import_builders:loads_itself"}
    BUILT = 0
    model, said = imported(None, tmp_path, options)
    assert BUILT == 2  # once by the import, and once when the checkpoint is read
    assert torch.equal(model.net[1].weight, loads_itself()[1].weight)  # type: ignore[index]
    assert "the weights are those that tests.synth.test_import_builders:loads_itself loads itself" in said
    BUILT = 0
    changed = {"1.weight": torch.ones(4, 768), "1.bias": torch.ones(4)}
    model, _ = imported(changed, tmp_path, options)
    assert BUILT == 2
    assert torch.equal(model.net[1].bias, torch.ones(4))  # type: ignore[index]


def test_a_new_network_never_starts_from_weights_that_its_builder_loads() -> None:
    facts = card({**SMALL, "architecture": "tests.synth.test_import_builders:loads_itself"})
    with pytest.raises(UsageError, match=r"builds the same weights with every seed, so it loads trained weights"):
        Classifier.untrained(facts, 0)


def test_there_is_nothing_to_import_without_a_file_or_a_builder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing to import: name a file of weights"):
        imported(None, tmp_path, {**SMALL, "architecture": "resnet18"})
    with pytest.raises(UsageError, match="--arch is missing"):
        imported({"a": torch.zeros(1)}, tmp_path, SMALL)

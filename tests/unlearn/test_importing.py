import os
import re
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.building import build
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.importing import import_state_dict, parse_card_options

CARD = parse_card_options("lenet5", 1.0, "1,28,28", "10", "0.13", "0.31")


def test_a_plain_state_dict_becomes_a_checkpoint(tmp_path: Path) -> None:
    net = build("lenet5", 1, 10, 28)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "model.pt")
    digest = import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "teacher.safetensors")
    model = load_checkpoint(tmp_path / "teacher.safetensors")
    assert model.digest == digest
    assert all(torch.equal(v, model.net.state_dict()[k]) for k, v in net.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Evil()}, "model.pt")
    with pytest.raises(UserError, match="more than weights"):
        import_state_dict(Path("model.pt"), CARD, Path("teacher.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02junk", bytes(range(100))])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt"):
        import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "out")


@pytest.mark.parametrize("content", [{0: torch.zeros(2)}, {"state_dict": {0: torch.zeros(2)}}, {}, [1], {"a": 1}])
def test_what_is_no_state_dict_is_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path, value: float) -> None:
    state = build("lenet5", 1, 10, 28).state_dict()
    state["classifier.bias"][3] = value
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"NaN or infinite weights in classifier\.bias: the training run diverged"):
        import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_named(tmp_path: Path) -> None:
    torch.save(build("resnet20", 1, 10, 28).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="does not fit lenet5: it has no weights"):
        import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_shape": "1,28"}, "--input-shape '1,28' is not a shape: write it like 3,32,32"),
        ({"input_shape": "1x28x28"}, "--input-shape '1x28x28' is not a list of numbers"),
        ({"std": "x"}, "--std 'x' is not a list of numbers"),
        ({"classes": "1"}, "do not fit together"),
        ({"mean": "0.1,0.2"}, "do not fit together"),
        ({"classes": "cat,dog,cat"}, "has a name twice"),
        ({"mean": "33.3", "std": "78.6"}, "are not for images in [0, 1]: divide them by 255"),
    ],
)
def test_malformed_options_are_usage_errors(changes: dict[str, str], words: str) -> None:
    options = {"input_shape": "1,28,28", "classes": "10", "mean": "0.1", "std": "0.3", **changes}
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_card_options("lenet5", 1.0, **options)


def test_auxiliary_heads_are_left_behind(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    net = googlenet(num_classes=2, aux_logits=True, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    card = parse_card_options("googlenet", 1.0, "3,32,32", "2", "0,0,0", "1,1,1")
    import_state_dict(tmp_path / "model.pt", card, tmp_path / "teacher.safetensors")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_checkpoint(tmp_path / "teacher.safetensors")(x), net.eval()(x))


def test_an_input_shape_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    torch.save(build("tests.runs:for_32", 1, 10, 28).state_dict(), tmp_path / "model.pt")
    card = parse_card_options("tests.runs:for_32", 1.0, "1,28,28", "10", "0.13", "0.31")
    with pytest.raises(UsageError, match=r"does not accept images \[1, 28, 28\] .*: give the --input-shape"):
        import_state_dict(tmp_path / "model.pt", card, tmp_path / "out")
    assert not (tmp_path / "out").exists()

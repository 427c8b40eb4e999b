import os
from pathlib import Path

import pytest
import torch

from synth.errors import UsageError, UserError
from synth.models import build
from synth.teacher import load_checkpoint
from unlearn.importing import import_state_dict, parse_card_options

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


def test_another_architecture_is_named(tmp_path: Path) -> None:
    torch.save(build("resnet20", 1, 10, 28).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="is no lenet5: it lacks"):
        import_state_dict(tmp_path / "model.pt", CARD, tmp_path / "out")


@pytest.mark.parametrize(
    "bad", [("1,28", "10", "0.1", "0.3"), ("1,28,28", "1", "0.1", "0.3"), ("1,28,28", "10", "0.1", "x")]
)
def test_malformed_options_are_usage_errors(bad: tuple[str, str, str, str]) -> None:
    shape, classes, mean, std = bad
    with pytest.raises(UsageError, match="malformed"):
        parse_card_options("lenet5", 1.0, shape, classes, mean, std)

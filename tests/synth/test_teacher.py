import dataclasses
import errno
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import nn

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.card import CARD_VERSION
from synth.checkpoint.classifier import Classifier, check_forward, predict, to_uint8, to_unit
from synth.checkpoint.file import CARD_KEY, checkpoint_bytes, load_checkpoint, parse_checkpoint, save_checkpoint
from tests.runs import digits_card

Raw = dict[str, Any]


def with_bias(model: Classifier, bias: torch.Tensor) -> bytes:
    """The model's checkpoint with another bias at its end."""
    tensors = {**model.net.state_dict(), "classifier.bias": bias}
    return save_tensors(tensors, metadata={CARD_KEY: model.card.to_json()})


def refused(data: bytes, trusted: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        parse_checkpoint(data, "the checkpoint", trusted)
    return str(caught.value)


def header_of(data: bytes) -> tuple[Raw, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def sealed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def with_card(data: bytes, **changes: object) -> bytes:
    """The checkpoint with its card changed, truthful in everything else."""
    header, body = header_of(data)
    card = {**json.loads(header["__metadata__"]["model_card"]), **changes}
    header["__metadata__"]["model_card"] = json.dumps(card)
    return sealed(json.dumps(header).encode(), body)


@pytest.fixture(scope="module")
def data(tiny_teacher_path: Path) -> bytes:
    return tiny_teacher_path.read_bytes()


def test_a_checkpoint_survives_the_round_trip(tiny_teacher: Classifier, tmp_path: Path) -> None:
    digest = save_checkpoint(tiny_teacher, tmp_path / "new" / "t.safetensors")
    back = load_checkpoint(tmp_path / "new" / "t.safetensors")
    assert back.card == tiny_teacher.card
    assert back.digest == digest == hashlib.sha256((tmp_path / "new" / "t.safetensors").read_bytes()).hexdigest()
    for name, value in tiny_teacher.state_dict().items():
        assert torch.equal(value, back.state_dict()[name])
    x = torch.rand(4, 1, 28, 28)
    assert torch.equal(back(x), tiny_teacher(x))
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())


def test_saving_twice_gives_the_same_bytes_and_leaves_no_other_file(tiny_teacher: Classifier, tmp_path: Path) -> None:
    for name in ("a", "b", "b"):
        save_checkpoint(tiny_teacher, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == checkpoint_bytes(tiny_teacher)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_an_untrained_network_depends_on_its_seed_only() -> None:
    before = torch.get_rng_state()
    first, same, other = (checkpoint_bytes(Classifier.untrained(digits_card(), seed)) for seed in (1, 1, 2))
    assert first == same != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_classifier_normalises_its_images_itself() -> None:
    card = digits_card(mean=(0.25,), std=(0.5,))
    x = torch.rand(3, 1, 28, 28)
    net = nn.Flatten()
    torch.testing.assert_close(Classifier(net, card)(x), net((x - 0.25) / 0.5))


def test_predictions_are_the_same_for_any_batch_size_and_for_uint8_images(tiny_teacher: Classifier) -> None:
    images = torch.randint(0, 256, (23, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = predict(tiny_teacher, images)
    torch.testing.assert_close(predict(tiny_teacher, images, batch_size=4), whole)
    torch.testing.assert_close(predict(tiny_teacher, images.float() / 255), whole)
    assert whole.shape == (23, 10)


def test_pixels_are_rounded_not_truncated_and_survive_the_round_trip() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(every)), every)
    assert to_uint8(torch.tensor([0.999, -1.0, 2.0])).tolist() == [255, 0, 255]


def test_a_missing_checkpoint_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*nope\.safetensors.*unlearn train .*unlearn import"):
        load_checkpoint(tmp_path / "nope.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint or run folder .*nope: make a run with 'unlearn distill --out"):
        load_checkpoint(tmp_path / "nope")
    with pytest.raises(UserError, match="is a folder: name the checkpoint in it"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_one_line(tiny_teacher: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder: choose another folder"):
        save_checkpoint(tiny_teacher, tmp_path / "file" / "t.safetensors")


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tiny_teacher: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UserError, match=r"t\.safetensors: the disk is full: free some space and try again"):
        save_checkpoint(tiny_teacher, path)
    assert {left.name: left.read_bytes() for left in tmp_path.iterdir()} == {"t.safetensors": b"old"}


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_checkpoint_is_refused_and_its_code_not_run(tmp_path: Path, zipped: bool) -> None:
    torch.save({"weights": Payload(tmp_path / "owned")}, tmp_path / "t.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"is a pickled PyTorch file, which can run code when loaded.*unlearn import"):
        load_checkpoint(tmp_path / "t.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x4B50])  # their bytes are also those of a pickle or a zip archive
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    card = digits_card(architecture="tests.runs:bare", width=1.0, class_names=("0", "1"))
    for padding in range(max(0, length - 1000), length):
        noted = dataclasses.replace(card, training={"note": "x" * padding})
        data = checkpoint_bytes(Classifier(net, noted))
        if int.from_bytes(data[:8], "little") == length:
            break
    assert int.from_bytes(data[:8], "little") == length
    assert parse_checkpoint(data, "t", "tests.runs:bare").card == noted


def test_a_truncated_checkpoint_is_refused(data: bytes) -> None:
    for length in (0, 1, 7, 8, 9, 500, len(data) // 2, len(data) - 1):
        message = refused(data[:length])
        assert message.startswith("the checkpoint is ")
        assert "copy it again from its source" in message


def test_random_bytes_are_refused() -> None:
    choose = random.Random(0)
    for length in (10, 100, 5000):
        refused(choose.randbytes(length))
        refused(sealed(choose.randbytes(length)))


def test_a_damaged_checkpoint_loads_or_is_refused_and_nothing_else(data: bytes) -> None:
    choose, accepted = random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(choose.choice((1, 1, 20))):
            end = len(data) if choose.random() < 0.3 else int.from_bytes(data[:8], "little")
            damaged[choose.randrange(end)] ^= 1 << choose.randrange(8)
        try:
            parse_checkpoint(bytes(damaged), "the checkpoint")
            accepted += 1
        except UserError:
            pass
    assert 0 < accepted < 150


def test_a_safetensors_file_without_a_card_says_how_to_import_it(data: bytes) -> None:
    header, body = header_of(data)
    for metadata in ({}, {"model_card_": "x"}, {"format": "pt"}):
        header["__metadata__"] = metadata
        assert "has no model card: make it a checkpoint with 'unlearn import" in refused(
            sealed(json.dumps(header).encode(), body)
        )
    del header["__metadata__"]
    assert "has no model card" in refused(sealed(json.dumps(header).encode(), body))


@pytest.mark.parametrize("header", [b"", b"x", b"[]", b"null", b'"a"', b"\xff", b"[" * 200_000, b'{"__metadata__": 1}'])
def test_a_header_without_a_card_is_refused(header: bytes) -> None:
    assert "has no model card" in refused(sealed(header))


def test_a_card_of_a_newer_version_says_to_update(data: bytes) -> None:
    message = refused(with_card(data, version=CARD_VERSION + 1))
    assert f"version {CARD_VERSION + 1} is newer than {CARD_VERSION}: update this package" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"width": float("inf")},
        {"width": float("nan")},
        {"width": 0},
        {"width": 17},
        {"width": 10**400},
        {"width": "x"},
        {"width": None},
        {"version": None},
        {"version": "1"},
        {"input_shape": [1, 28]},
        {"input_shape": [0, 28, 28]},
        {"input_shape": [1, 28, 28, 28]},
        {"input_shape": [1, 28, 5000]},
        {"input_shape": [1, 10**9, 10**9]},
        {"input_shape": [1, float("inf"), float("inf")]},
        {"input_shape": None},
        {"class_names": ["one"]},
        {"class_names": [1, 2]},
        {"class_names": ["a"] * 100_001},
        {"class_names": ["\x1b[2J", "b"]},
        {"class_names": ["x" * 201, "b"]},
        {"class_names": 5},
        {"mean": []},
        {"mean": [0.5, 0.5]},
        {"mean": [float("nan")]},
        {"mean": [10**400]},
        {"std": [0]},
        {"std": [-1]},
        {"std": [float("inf")]},
        {"std": "x"},
        {"training": [1]},
        {"training": None},
        {"architecture": "\x1b[2Jlenet5"},
        {"architecture": "a" * 1000},
    ],
    ids=str,
)
def test_a_card_with_absurd_values_is_refused_as_broken(data: bytes, changes: Raw) -> None:
    message = refused(with_card(data, **changes))
    assert message.startswith("the checkpoint has a broken model card: ")
    assert len(message) < 300


def test_a_card_that_is_not_an_object_or_too_deep_is_refused_as_broken(data: bytes) -> None:
    header, body = header_of(data)
    for text in ("", "5", "[]", "{}", "[" * 100_000, '{"version": 1, "training": ' + "[" * 100_000):
        header["__metadata__"]["model_card"] = text
        assert "has a broken model card" in refused(sealed(json.dumps(header).encode(), body))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0.25}, "does not fit lenet5 of this width and number of classes: features.0.weight has shape"),
        ({"class_names": ["a", "b"]}, "classifier.weight has shape [10, 42] where [2, 42] is expected"),
        ({"architecture": "allcnn", "input_shape": [1, 32, 32]}, "does not fit allcnn: it has no weights"),
        ({"architecture": "no-such-net", "width": 1.0}, "unknown architecture 'no-such-net'"),
        ({"width": 16}, "does not fit lenet5 of this width"),
    ],
)
def test_a_card_that_lies_about_its_weights_is_refused(data: bytes, changes: Raw, words: str) -> None:
    assert words in refused(with_card(data, **changes))


def test_unknown_or_missing_weights_are_named(tiny_teacher: Classifier) -> None:
    extra = Classifier(nn.Sequential(), tiny_teacher.card)
    extra.net.register_buffer("surprise", torch.zeros(1))
    assert "it has no weights features.0.weight" in refused(checkpoint_bytes(extra))
    teacher = parse_checkpoint(checkpoint_bytes(tiny_teacher), "t")
    teacher.net.register_buffer("surprise", torch.zeros(1))
    assert "it has the unknown weights surprise" in refused(checkpoint_bytes(teacher))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_refused(tiny_teacher_path: Path, value: float) -> None:
    teacher = load_checkpoint(tiny_teacher_path)
    with torch.no_grad():
        teacher.net.classifier.weight[3, 5] = value  # type: ignore[index, union-attr]
    assert "holds NaN or infinite weights in classifier.weight" in refused(checkpoint_bytes(teacher))


def test_a_number_type_that_torch_does_not_have_is_refused(data: bytes) -> None:
    header, _ = header_of(data)
    odd = {"__metadata__": header["__metadata__"], "a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}
    refused(sealed(json.dumps(odd).encode(), b"\0\0"))


MODULE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
import torch
def net(in_channels, num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * 28 * 28, num_classes))
"""


def test_a_checkpoint_chooses_no_code_unless_the_user_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    card = digits_card(architecture="their_net:net", width=1.0)
    data = checkpoint_bytes(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), card))
    for trusted in (None, "their_net:other", "torch.nn:Linear"):
        message = refused(data, trusted)
        assert "asks to run the code their_net:net: if you trust this code, give --arch their_net:net" in message
    assert not (tmp_path / "ran").exists()
    loaded = parse_checkpoint(data, "t", "their_net:net")
    assert (tmp_path / "ran").exists()
    assert loaded(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_card_keeps_the_facts_of_the_training(tiny_teacher: Classifier) -> None:
    card = dataclasses.replace(tiny_teacher.card, training={"data": "digits", "seed": 1})
    data = checkpoint_bytes(Classifier(tiny_teacher.net, card))
    assert parse_checkpoint(data, "t").card.training == {"data": "digits", "seed": 1}


def test_tied_weights_survive_the_round_trip() -> None:
    model = Classifier.untrained(digits_card(architecture="tests.runs:Tied", width=1.0), 0).freeze()
    loaded = parse_checkpoint(checkpoint_bytes(model), "t", "tests.runs:Tied")
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_is_checked_and_changes_nothing(training: bool) -> None:
    model = Classifier.untrained(digits_card(), 0).train(training)
    model.net.features[1].eval()  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    check_forward(model, "do something")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_a_network_with_other_outputs_is_refused() -> None:
    model = Classifier(nn.Flatten(), digits_card())
    with pytest.raises(
        UsageError, match=r"lenet5 returns \[2, 784\] for 2 images .*, not logits \[2, 10\]: choose another"
    ):
        check_forward(model, "choose another")
    model.net = nn.Sequential(nn.Flatten(), nn.LSTM(784, 10))
    with pytest.raises(UsageError, match="lenet5 returns tuple for 2 images"):
        check_forward(model, "choose another")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int8, torch.bool])
def test_weights_of_another_dtype_family_are_refused(tiny_teacher: Classifier, dtype: torch.dtype) -> None:
    data = with_bias(tiny_teacher, torch.zeros(10).to(dtype))
    kind = str(dtype).removeprefix("torch.")
    assert f"holds classifier.bias as {kind}, not as float32: save it again as float32" in refused(data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_size_are_loaded(tiny_teacher: Classifier, dtype: torch.dtype) -> None:
    tensors = {k: v.to(dtype) if v.is_floating_point() else v.int() for k, v in tiny_teacher.net.state_dict().items()}
    data = save_tensors(tensors, metadata={CARD_KEY: tiny_teacher.card.to_json()})
    assert parse_checkpoint(data, "t").net.classifier.bias.dtype == torch.float32  # type: ignore[union-attr]


def test_a_float_too_large_for_the_network_is_refused(tiny_teacher: Classifier) -> None:
    data = with_bias(tiny_teacher, torch.full((10,), 1e300, dtype=torch.float64))
    assert "holds NaN or infinite weights in classifier.bias" in refused(data)

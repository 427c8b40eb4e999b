"""A state dict in any of the wrappers that people have becomes a checkpoint with the same weights."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.building import build
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.importing.card_options import Facts, card_for, facts_from_options
from synth.checkpoint.importing.class_names import names_from_option
from tests.imports import LENET5, SMALL, DropPath, HasModule, card, imported, lenet5_state, same_weights
from unlearn.commands.main import main

State = dict[str, Tensor]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


# The wrapper, and what the import says about it.
WRAPPERS: dict[str, tuple[Callable[[State], Any], str]] = {
    "plain": (lambda s: s, "model.pt: 30 tensors"),
    "state_dict": (lambda s: {"state_dict": s, "epoch": 3}, "entry 'state_dict', 30 tensors"),
    "model_state_dict": (lambda s: {"epoch": 1, "model_state_dict": s, "loss": 0.1}, "entry 'model_state_dict'"),
    "model": (lambda s: {"model": s, "args": {"lr": 0.1}}, "entry 'model'"),
    "net": (lambda s: {"net": s, "acc": 93.1}, "entry 'net'"),
    "network": (lambda s: {"network": s}, "entry 'network'"),
    "weights": (lambda s: {"weights": s}, "entry 'weights'"),
    "nested": (lambda s: {"checkpoint": {"model": s}}, "entry 'checkpoint.model'"),
    "epoch beside": (lambda s: {**s, "epoch": 7}, "model.pt: 30 tensors"),
    "optimiser": (lambda s: {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "model": s}, "entry 'model'"),
    "data parallel": (lambda s: prefixed("module.", s), "prefix 'module.' removed"),
    "compiled": (lambda s: prefixed("_orig_mod.", s), "prefix '_orig_mod.' removed"),
    "compiled, then parallel": (lambda s: prefixed("module._orig_mod.", s), "prefix 'module._orig_mod.' removed"),
    "parallel, then compiled": (
        lambda s: {"model": prefixed("_orig_mod.module.", s)},
        "entry 'model', prefix '_orig_mod.module.' removed",
    ),
    "lightning": (
        lambda s: {
            "state_dict": prefixed("model.", s) | {"loss.weight": torch.ones(10)},
            "hyper_parameters": {"lr": 1},
        },
        "prefix 'model.' removed, 30 tensors\nleft out, as the network has no such weights: loss.weight",
    ),
    "lightning, compiled": (lambda s: {"state_dict": prefixed("net._orig_mod.", s)}, "prefix 'net._orig_mod.' removed"),
    "a name of their own": (lambda s: prefixed("my_classifier.", s), "prefix 'my_classifier.' removed"),
    "wrapper inside": (
        lambda s: {key.replace("features.", "features.module."): value for key, value in s.items()},
        "'module' inside keys removed",
    ),
    "two parts": (
        lambda s: {
            part: {key.removeprefix(f"{part}."): value for key, value in s.items() if key.startswith(part)}
            for part in ("features", "classifier")
        },
        "30 tensors",
    ),
    "thop": (
        lambda s: s | {"total_ops": torch.zeros(1).double(), "features.0.total_params": torch.zeros(1).double()},
        "left out, as the network has no such weights: features.0.total_params, total_ops",
    ),
    "averaged": (lambda s: {"n_averaged": torch.tensor(5), **prefixed("module.", s)}, "30 tensors"),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_weights_are_found_in_any_usual_wrapper(tmp_path: Path, kind: str) -> None:
    wrap, words = WRAPPERS[kind]
    state = lenet5_state()
    model, said = imported(wrap(state), tmp_path)
    assert same_weights(model, state)
    assert words in said


def test_missing_counters_are_filled_in_and_recorded(tmp_path: Path) -> None:
    state = {key: value for key, value in lenet5_state().items() if "num_batches" not in key}
    model, _ = imported(state, tmp_path)
    assert same_weights(model, state)
    assert model.net.features[1].num_batches_tracked.item() == 0  # type: ignore[index, union-attr]
    assert len(model.card.origin["filled"]) == 4


def test_half_precision_is_read_with_its_counters(tmp_path: Path) -> None:
    state = lenet5_state()
    half = {key: value.half() for key, value in state.items()}
    half["features.1.num_batches_tracked"] = torch.tensor(float("inf")).half()  # 16 bits hold no more than 65504
    model, _ = imported(half, tmp_path)
    assert torch.equal(model.net.state_dict()["classifier.weight"], half["classifier.weight"].float())
    assert model.net.state_dict()["features.5.num_batches_tracked"].dtype == torch.long
    assert (model.card.origin["dtype"], len(model.card.origin["dtypes"])) == ("float16", 4)


@pytest.mark.parametrize(
    "entries", [("state_dict_ema", "state_dict"), ("model", "model_ema"), ("ema", "net"), ("net", "ema.module")]
)
def test_averaged_weights_are_named_and_taken_only_if_chosen(tmp_path: Path, entries: tuple[str, str]) -> None:
    average, plain = sorted(entries, key=lambda name: "ema" not in name)
    content: dict[str, Any] = {}
    for name in entries:
        state = lenet5_state()
        state["classifier.bias"] += name == average
        first, _, second = name.partition(".")
        content[first] = {second: state} if second else state
    bias = lenet5_state()["classifier.bias"]
    model, said = imported(content, tmp_path)
    assert torch.equal(model.net.classifier.bias, bias)  # type: ignore[union-attr]
    assert f"the file also has the weights {average}: take them with --entry" in said
    model, said = imported(content, tmp_path, entry=average)
    assert torch.equal(model.net.classifier.bias, bias + 1)  # type: ignore[union-attr]
    assert model.card.origin["entry"] == average
    with pytest.raises(UsageError, match=f"has no entry 'x': it has {plain}, {average}"):
        imported(content, tmp_path, entry="x")


def test_two_networks_in_one_entry_are_named_and_chosen_by_prefix(tmp_path: Path) -> None:
    state, other = lenet5_state(), {key: value + 1 for key, value in lenet5_state().items()}
    content = {"state_dict": prefixed("teacher.", other) | prefixed("model.", state)}
    model, said = imported(content, tmp_path)
    assert same_weights(model, state)
    assert "the file also has the weights teacher.: take them with --prefix" in said
    assert same_weights(imported(content, tmp_path, prefix="teacher")[0], other)


def test_a_prefix_that_no_key_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no key that begins with 'nope': leave out --prefix"):
        imported(lenet5_state(), tmp_path, prefix="nope")


def test_a_network_with_a_part_called_module_keeps_it(tmp_path: Path) -> None:
    state = HasModule(3, 4).state_dict()
    options = {**SMALL, "architecture": "tests.imports:HasModule"}
    for content in (state, prefixed("module.", dict(state)), {"model": prefixed("_orig_mod.", dict(state))}):
        assert same_weights(imported(content, tmp_path, options)[0], state)


def test_a_network_in_a_wrapper_of_the_users_reads_the_inner_weights(tmp_path: Path) -> None:
    options = {**SMALL, "architecture": "tests.imports:DropPath"}
    inner = nn.Sequential(HasModule(3, 4).module, nn.Linear(16, 4)).state_dict()
    model, _ = imported(inner, tmp_path, options)
    assert same_weights(model, prefixed("net.", dict(inner)))
    assert model.card.origin["renamed"]["net.1.bias"] == "1.bias"


def test_the_origin_records_what_an_export_needs(tmp_path: Path) -> None:
    state = lenet5_state() | {"total_ops": torch.zeros(1).double()}
    state["classifier.bias"] = state["classifier.bias"].half()
    model, _ = imported({"model": prefixed("module.", state)}, tmp_path)
    origin = dict(model.card.origin)
    assert len(origin.pop("sha256")) == 64
    assert origin == {
        "file": "model.pt",
        "entry": "model",
        "prefix": "module.",
        "renamed": {},
        "dtype": "float32",
        "dtypes": {"module.classifier.bias": "float16"},
        "dropped": ["module.total_ops"],
        "filled": [],
        "builder": "lenet5",
    }


@pytest.mark.parametrize("content", [{0: torch.zeros(2)}, {"state_dict": {0: torch.zeros(2)}}, {}, [1], {"a": 1}])
def test_what_is_no_state_dict_is_one_line(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="holds no state dict"):
        imported(content, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path, value: float) -> None:
    state = lenet5_state()
    state["classifier.bias"][3] = value
    with pytest.raises(UserError, match=r"NaN or infinite weights in classifier\.bias: the training run diverged"):
        imported(state, tmp_path)
    assert not (tmp_path / "teacher.safetensors").exists()


def test_a_refusal_lists_keys_that_are_there_beside_those_that_are_missing(tmp_path: Path) -> None:
    words = r"does not fit lenet5: it has no weights features\.0\.weight, .* more; it has features\..* more instead"
    with pytest.raises(UserError, match=words):
        imported(build("resnet20", 1, 10, 28).state_dict(), tmp_path)
    with pytest.raises(UserError, match=r"classifier\.weight has shape \[10, 84\] where \[9, 84\] is expected"):
        imported(lenet5_state(), tmp_path, {**LENET5, "classes": "9"})
    with pytest.raises(UserError, match=r"has the unknown weights classifier\.scale"):
        imported(lenet5_state() | {"classifier.scale": torch.ones(1)}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_shape": "1,28"}, "--input-shape '1,28' is not a shape: write it like 3,32,32"),
        ({"input_shape": "1x28x28"}, "--input-shape '1x28x28' is not a list of numbers"),
        ({"std": "x"}, "--std 'x' is not a list of numbers"),
        ({"classes": "1"}, "a network with one output decides between two classes: name both"),
        ({"mean": "0.1,0.2"}, "do not fit together"),
        ({"classes": "cat,dog,cat"}, "has a name twice"),
        ({"mean": "33.3", "std": "78.6"}, "are not for images in [0, 1]: divide them by 255"),
    ],
)
def test_malformed_options_are_usage_errors(changes: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        card({**LENET5, **changes})


@pytest.mark.parametrize("option", ["input_shape", "classes", "mean", "std"])
def test_a_fact_that_is_not_known_is_asked_for(tmp_path: Path, option: str) -> None:
    name = option.replace("_", "-")
    with pytest.raises(UsageError, match=f"--{name} is missing: --{name} takes "):
        imported(lenet5_state(), tmp_path, {name: value for name, value in LENET5.items() if name != option})


def test_one_mean_stands_for_all_channels() -> None:
    facts = card({**SMALL, "architecture": "resnet18"})
    assert (facts.mean, facts.std) == ((0.5,) * 3, (0.25,) * 3)


def test_images_may_be_rectangular(tmp_path: Path) -> None:
    options = {**SMALL, "architecture": "allcnn", "input_shape": "3,12,20"}
    model, _ = imported(build("allcnn", 3, 4, 12).state_dict(), tmp_path, options)
    assert model.card.input_shape == (3, 12, 20)
    assert model(torch.rand(2, 3, 12, 20)).shape == (2, 4)


def test_auxiliary_heads_are_left_behind(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    net = googlenet(num_classes=2, aux_logits=True, init_weights=False)
    options = {**SMALL, "architecture": "googlenet", "input_shape": "3,32,32", "classes": "2", "mean": "0", "std": "1"}
    model, said = imported(net.state_dict(), tmp_path, options)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), net.eval()(x))
    assert "left out, as the network has no such weights: aux1." in said
    assert "published googlenet" in said
    assert "import it with --mean 0.5 --std 0.5" in said
    assert "import it with" not in imported(net.state_dict(), tmp_path, {**options, "mean": "0.5", "std": "0.5"})[1]


def test_an_input_shape_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    options = {**LENET5, "architecture": "tests.runs:for_32"}
    with pytest.raises(UsageError, match=r"does not accept images \[1, 28, 28\] .*: give the --input-shape"):
        imported(build("tests.runs:for_32", 1, 10, 28).state_dict(), tmp_path, options)
    assert not (tmp_path / "teacher.safetensors").exists()


def test_a_constructor_that_reads_numbers_out_of_tensors_is_read(tmp_path: Path) -> None:
    state = DropPath(3, 4).state_dict()
    assert same_weights(imported(state, tmp_path, {**SMALL, "architecture": "tests.imports:DropPath"})[0], state)


@pytest.mark.parametrize("classes", ["option", "file"])
def test_the_command_line_imports_and_says_what_it_took(tmp_path: Path, classes: str) -> None:
    torch.save({"model": prefixed("module.", lenet5_state())}, tmp_path / "model.pt")
    (tmp_path / "names.txt").write_text("".join(f"digit {n}, written\n" for n in range(10)))
    facts = ["--arch=lenet5", "--input-shape=1,28,28", "--mean=0.1", "--std=0.3", f"--out={tmp_path / 't.safetensors'}"]
    names = ["--classes=10"] if classes == "option" else ["--classes-file", str(tmp_path / "names.txt")]
    done = CliRunner().invoke(main, ["import", str(tmp_path / "model.pt"), *facts, *names])
    assert done.exit_code == 0, done.output
    assert "entry 'model', prefix 'module.' removed, 30 tensors" in done.output
    card = load_checkpoint(tmp_path / "t.safetensors").card
    assert card.class_names[3] == ("3" if classes == "option" else "digit 3, written")


def test_the_help_shows_the_signatures_and_the_sources() -> None:
    text = " ".join(CliRunner().invoke(main, ["import", "--help"]).output.split())
    for words in ("(num_classes)", "(in_channels, num_classes)", "torchvision:NAME", "transformers:FOLDER", "--entry"):
        assert words in text


@pytest.mark.parametrize(("classes", "why"), [("3000000000", "is more than 1,000,000"), ("9" * 5000, "is more than")])
def test_more_classes_than_any_network_has_are_refused(classes: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        names_from_option(classes)


def test_a_digit_of_another_kind_is_a_name() -> None:
    assert names_from_option("²,1") == ("²", "1")
    assert names_from_option("²") == ("²",)


def test_both_ways_to_name_classes_exclude_each_other(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["import", "m.pt", "--classes=2", "--classes-file=x", "--out", str(tmp_path / "t")])
    assert done.exit_code == 2
    assert "--classes and --classes-file exclude each other: give one of them" in done.output


def test_all_missing_facts_are_named_at_once() -> None:
    with pytest.raises(
        UsageError,
        match=r"^--input-shape, --mean, --std are missing: --input-shape takes .*; --mean takes .*; --std takes",
    ):
        card_for("lenet5", 1.0, Facts(class_names=("cat", "dog")))
    with pytest.raises(UsageError, match=r"^--std is missing: --std takes one per channel"):
        card_for("lenet5", 1.0, Facts(class_names=("a", "b"), input_shape=(1, 28, 28), mean=(0.5,)))


def test_a_shape_with_the_channels_last_is_corrected() -> None:
    with pytest.raises(UsageError, match=r"--input-shape 64,48,3 has the channels last: give 3,64,48"):
        facts_from_options("64,48,3", None, None, None)


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the weights are of 10 classes, and --classes has 9$"):
        imported(lenet5_state(), tmp_path, {**LENET5, "classes": "9"})

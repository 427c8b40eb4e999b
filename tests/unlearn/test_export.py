"""`unlearn export`: the user's own code loads a student where it loaded the original."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tests.imports
from synth.basics.errors import UsageError, UserError
from synth.basics.markdown import escaped
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.run.lock import locked
from synth.shards.store import Folder
from tests.imports import SMALL, Body, imported, lenet5_state, same_weights
from tests.synth.test_importing import WRAPPERS, prefixed
from unlearn.commands.main import main
from unlearn.exporting.export import WAY_ON, ExportRequest, export
from unlearn.exporting.model_card import model_card
from unlearn.exporting.programs import onnx_program, output_names


def student_of(original: Classifier, path: Path) -> Classifier:
    """A student of the original's architecture: other weights, saved under the path."""
    student = load_student(original)
    save_checkpoint(student, path)
    return load_checkpoint(path, original.card.architecture)


def load_student(original: Classifier) -> Classifier:
    training = {"method": "distill", "forget": [2], "seed": 0, "teacher_sha256": original.digest}
    student = Classifier(original.net, dataclasses.replace(original.card, training=training, origin={}))
    with torch.no_grad():
        for value in student.net.state_dict().values():
            value.mul_(2)
    return student


def exported(content: object, folder: Path, **options: Any) -> tuple[Any, Classifier, list[str]]:
    """What torch loads from the export of a student like the file that holds this content; the student; the lines."""
    original, _ = imported(content, folder)
    student = student_of(original, folder / "student.safetensors")
    lines: list[str] = []
    request = ExportRequest(
        student=folder / "student.safetensors", like=folder / "model.pt", out=folder / "new.pt", **options
    )
    export(request, lines.append)
    return torch.load(folder / "new.pt"), student, lines


def tensors_in(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from tensors_in(value, f"{name}.{key}")


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_student_goes_into_the_form_of_the_original(tmp_path: Path, kind: str) -> None:
    wrap, _ = WRAPPERS[kind]
    content, student, _ = exported(wrap(lenet5_state()), tmp_path)
    wanted = dict(tensors_in(wrap(dict(student.net.state_dict()))))
    got = dict(tensors_in(content))
    assert {name for name, value in wanted.items() if value.numel() > 10} == {
        name for name, value in got.items() if value.numel() > 10
    }
    assert all(torch.equal(value, wanted[name]) and value.dtype == wanted[name].dtype for name, value in got.items())


def test_nothing_else_of_the_original_remains_but_numbers_and_text(tmp_path: Path) -> None:
    state = lenet5_state()
    content = {
        "epoch": 7,
        "best": torch.tensor(0.93),
        "config": {"lr": 0.1, "milestones": [3, 5]},
        "model": state,
        "model_ema": {key: value * 0.9 for key, value in state.items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(6, 1, 5, 5)}}, "param_groups": []},
        "prototypes": torch.ones(10, 84),
        "history": [torch.ones(3)],
    }
    got, student, lines = exported(content, tmp_path)
    assert set(got) == {"epoch", "best", "config", "model", "model_ema"}
    assert (got["epoch"], got["config"]) == (7, content["config"])
    assert all(torch.equal(got["model_ema"][key], value) for key, value in student.net.state_dict().items())
    assert any("left out" in line and "optimizer" in line and "prototypes" in line for line in lines)


def test_what_the_user_asks_for_is_kept(tmp_path: Path) -> None:
    content = {"state_dict": prefixed("model.", lenet5_state()) | {"loss.weight": torch.ones(10)}}
    got, _, _ = exported(content, tmp_path, keep=("loss",))
    assert torch.equal(got["state_dict"]["loss.weight"], torch.ones(10))
    with pytest.raises(UsageError, match=r"--keep lost: .* has no such entry"):
        exported(content, tmp_path, keep=("lost",), overwrite=True)


def test_number_types_and_missing_counters_stay(tmp_path: Path) -> None:
    state = {
        key: value.half() if value.is_floating_point() else value.to(torch.float16)
        for key, value in lenet5_state().items()
        if not key.startswith("features.1.num_batches")
    }
    got, student, _ = exported(state, tmp_path)
    assert {key: value.dtype for key, value in got.items()} == {key: value.dtype for key, value in state.items()}
    assert all(torch.equal(got[key], student.net.state_dict()[key].half()) for key in state)


def test_a_weight_too_large_for_the_number_type_is_refused(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in lenet5_state().items()}
    state["classifier.bias"] = torch.full_like(state["classifier.bias"], 60000)  # the student's are twice as large
    with pytest.raises(UserError, match=r"classifier\.bias is torch\.float16, which cannot hold"):
        exported(state, tmp_path)


def test_the_versions_of_layers_stay_in_the_state_dict(tmp_path: Path) -> None:
    state = OrderedDict(lenet5_state())
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    got, _, _ = exported(state, tmp_path)
    assert isinstance(got, OrderedDict)
    assert got._metadata == {"": {"version": 2}}  # type: ignore[attr-defined]


def test_auxiliary_heads_are_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"lenet5": ("aux.",)}
    for module in (
        "synth.checkpoint.importing.import_checkpoint",
        "unlearn.exporting.like",
    ):
        monkeypatch.setattr(f"{module}.AUXILIARY_HEADS", heads)
    got, _, lines = exported(prefixed("module.", lenet5_state() | {"aux.fc.weight": torch.ones(10, 4)}), tmp_path)
    assert got["module.aux.fc.weight"].eq(0).all()
    assert any("aux.fc.weight" in line and "zero" in line for line in lines)


def test_safetensors_goes_into_safetensors(tmp_path: Path) -> None:
    save_file(prefixed("model.", lenet5_state()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    original, _ = imported(tmp_path / "model.safetensors", tmp_path)
    student = student_of(original, tmp_path / "student.safetensors")
    out = tmp_path / "new.safetensors"
    lines: list[str] = []
    export(
        ExportRequest(student=tmp_path / "student.safetensors", like=tmp_path / "model.safetensors", out=out),
        lines.append,
    )
    got = load_file(out)
    assert all(torch.equal(got[f"model.{key}"], value) for key, value in student.net.state_dict().items())


class Whole(nn.Sequential):
    pass


def test_a_whole_pickled_network_gets_the_way_on(tmp_path: Path) -> None:
    net = Whole(Body(3), nn.Linear(16, 4))
    options = {"architecture": "tests.unlearn.test_export:whole", **SMALL}
    original, _ = imported(net, tmp_path, options)
    student_of(original, tmp_path / "student.safetensors")
    request = ExportRequest(
        student=tmp_path / "student.safetensors",
        like=tmp_path / "model.pt",
        out=tmp_path / "new.pt",
        trusted_architecture=original.card.architecture,
    )
    with pytest.raises(UsageError, match="holds a whole pickled network, and only weights are written"):
        export(request, print)
    export(dataclasses.replace(request, like=None), lambda line: None)
    net.load_state_dict(torch.load(tmp_path / "new.pt"))


def whole(num_classes: int) -> nn.Module:
    return Whole(Body(3), nn.Linear(16, num_classes))


def test_the_file_of_another_network_is_refused_by_its_weights(tmp_path: Path) -> None:
    imported(lenet5_state(), tmp_path)
    torch.save({"state_dict": whole(4).state_dict()}, tmp_path / "other.pt")
    request = ExportRequest(
        student=tmp_path / "teacher.safetensors", like=tmp_path / "other.pt", out=tmp_path / "new.pt"
    )
    with pytest.raises(
        UserError, match=r"other\.pt \(entry 'state_dict'\) does not fit the student's lenet5: it has no"
    ):
        export(request, print)


@pytest.fixture
def student(tmp_path: Path) -> Classifier:
    original, _ = imported(lenet5_state(), tmp_path)
    return student_of(original, tmp_path / "student.safetensors")


@pytest.mark.parametrize("name", ["new.pt", "new.PTH", "new.safetensors", "new.pt2", "new.onnx"])
def test_each_form_gives_the_same_logits(tmp_path: Path, student: Classifier, name: str) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxscript")
    export(ExportRequest(student=tmp_path / "student.safetensors", out=tmp_path / name), lambda line: None)
    x = torch.randn(3, 1, 28, 28)
    expected = student.net(x)
    if name.endswith("onnx"):
        from onnx.reference import ReferenceEvaluator

        (logits,) = ReferenceEvaluator(str(tmp_path / name)).run(None, {"images": x.numpy()})
        assert torch.allclose(torch.tensor(logits), expected, atol=1e-4)
    elif name.endswith("pt2"):
        assert torch.equal(torch.export.load(tmp_path / name).module()(x), expected)
    else:
        state = load_file(tmp_path / name) if name.endswith("safetensors") else torch.load(tmp_path / name)
        assert same_weights(student, state)
        assert len(state) == len(student.net.state_dict())


def test_a_folder_for_the_hub_has_weights_configuration_and_a_card(tmp_path: Path, student: Classifier) -> None:
    lines: list[str] = []
    export(ExportRequest(student=tmp_path / "student.safetensors", out=tmp_path / "hub"), lines.append)
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert "forget 2" in card
    assert "No audit is attached" in card
    assert "makes no claim" in lines[-1]
    use = card[card.index("    from safetensors") : card.index("\n\nImages are scaled")]
    names: dict[str, Any] = {}
    exec(
        use.replace("    ", "").replace('"model.safetensors"', repr(str(tmp_path / "hub" / "model.safetensors"))), names
    )
    assert same_weights(student, names["model"].state_dict())


def test_of_two_exports_into_one_folder_the_second_is_refused(tmp_path: Path, student: Classifier) -> None:
    request = ExportRequest(student=tmp_path / "student.safetensors", out=tmp_path / "hub", overwrite=True)
    with (
        locked(Folder(tmp_path / "hub"), WAY_ON, lambda line: None),
        pytest.raises(UserError, match=r"'unlearn export' \(process \d+ on .*\) is working on .*hub: wait for it"),
    ):
        export(request, lambda line: None)
    export(request, lambda line: None)
    assert not any(path.name.startswith(".") for path in (tmp_path / "hub").iterdir())


def test_the_card_carries_the_conclusion_of_the_students_audit(tmp_path: Path, audited: Path) -> None:
    record = json.loads((audited / "audit.json").read_text())
    model = Path(record["models"]["student"]["path"])
    export(ExportRequest(student=model, out=tmp_path / "hub", audit=audited), lambda line: None)
    assert escaped(record["verdict"]["sentence"]) in (tmp_path / "hub" / "README.md").read_text()
    teacher = Path(record["models"]["teacher"]["path"])
    with pytest.raises(UsageError, match="is the audit of another model"):
        export(ExportRequest(student=teacher, out=tmp_path / "other", audit=audited), print)


def test_the_card_carries_the_conclusion_of_an_audit_of_points(tmp_path: Path, points_audited: Path) -> None:
    record = json.loads((points_audited / "audit.json").read_text())
    model = Path(record["models"]["student"]["path"])
    export(ExportRequest(student=model, out=tmp_path / "hub", audit=points_audited), lambda line: None)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert escaped(record["verdict"]["sentence"]) in card
    assert "## What is left of the forgotten images" in card
    assert "What is left of 20 points?" in card
    assert "masked" not in card


def test_timm_loads_the_folder(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet10t", num_classes=4)
    options = {"architecture": "timm:resnet10t", **SMALL, "input_shape": "3,32,32", "classes": "ant,bee,cat,dog"}
    original, _ = imported(net.state_dict(), tmp_path, options)
    student = student_of(original, tmp_path / "student.safetensors")
    export(ExportRequest(student=tmp_path / "student.safetensors", out=tmp_path / "hub"), lambda line: None)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), student.net(x))
    assert list(loaded.pretrained_cfg["mean"]) == [0.5, 0.5, 0.5]


def test_transformers_loads_the_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    labels = dict(enumerate(["ant", "bee", "cat"]))
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "theirs")
    sizes = {"input_shape": "3,32,32", "mean": "0.5", "std": "0.5"}
    original, _ = imported(None, tmp_path, sizes, weights=f"transformers:{tmp_path / 'theirs'}")
    student = student_of(original, tmp_path / "student.safetensors")
    export(ExportRequest(student=tmp_path / "student.safetensors", out=tmp_path / "hub"), lambda line: None)
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "hub").eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x).logits, student.logits(x))
    assert loaded.config.id2label == labels
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hub")
    assert list(processor.image_mean) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "hub", "--like", "model.pt"], "--like writes weights: name a .pt, "),
        (["--out", "new.pt", "--keep", "loss"], "--keep has no effect without --like"),
        (["--out", "new.pt", "--audit", "."], "--audit has no effect on a file"),
        (["--out", "model.pt", "--like", "model.pt", "--overwrite"], "is the original itself"),
        (["--out", "teacher.safetensors"], "exists already"),
        (["--out", "student.safetensors", "--overwrite"], "is the student itself"),
        (["--out", "new.onxx"], "there is no form .onxx: name a file ending in .safetensors, .pt2, .onnx, "),
        (["--out", "new.safetensors", "--like", "model.pt"], "is a torch.save file, and --like keeps its form"),
        (["--out", "new.pt", "--like", "model.safetensors"], "is a safetensors file, and --like keeps its form"),
        (["--out", "student.txt/hub"], "it is a file, not a folder"),
        (["--out", "new.pt", "--like", "other.pt"], "; --like needs the file that the original was imported from"),
        (["--out", "new.pt", "--like", "absent.pt"], "; --like needs the file that the original was imported from"),
    ],
)
def test_a_wrong_request_is_one_line(
    tmp_path: Path, student: Classifier, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("student.txt").write_text("a file")
    save_file(lenet5_state(), "model.safetensors")
    torch.save(whole(4).state_dict(), "other.pt")
    before = Path("student.safetensors").read_bytes()
    done = CliRunner().invoke(main, ["export", "student.safetensors", *options])
    failed = {"student.txt/hub", "other.pt", "absent.pt"} & set(options)
    assert done.exit_code == (1 if failed else 2)
    assert Path("student.safetensors").read_bytes() == before
    assert words in done.output
    assert done.output.count("\n") == 1


class Branching(nn.Module):
    """A network whose path depends on the image, which torch cannot trace."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = whole(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x if x.mean() > 0 else -x)


@pytest.mark.parametrize("name", ["new.pt2", "new.onnx"])
def test_a_network_that_cannot_be_traced_gets_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    architecture = "tests.unlearn.test_export:Branching"
    imported(Branching(4).state_dict(), tmp_path, {"architecture": architecture, **SMALL})
    command = ["export", str(tmp_path / "teacher.safetensors"), "--arch", architecture, "--out", str(tmp_path / name)]
    capfd.readouterr()
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "export its weights as .pt or .safetensors" in done.output
    assert "data-dependent" in done.output
    assert done.output.count("\n") == 1
    assert capfd.readouterr() == ("", "")  # torch writes past the runner


@pytest.mark.parametrize(
    ("network", "classes", "names"),
    [
        ("tuple_net", "4", ["other_0", "logits"]),
        ("softmax_net", "4", ["probabilities"]),
        ("one_sigmoid_net", "no,yes", ["probability"]),
    ],
)
def test_the_outputs_of_a_network_are_named_for_what_they_are(
    tmp_path: Path, network: str, classes: str, names: list[str]
) -> None:
    options = {**SMALL, "architecture": f"tests.imports:{network}", "classes": classes}
    net = getattr(tests.imports, network)(*([] if classes == "no,yes" else [4]))
    original, _ = imported(net.state_dict(), tmp_path, options)
    assert output_names(original) == names
    assert "The network gives " in model_card(original, None, "pytorch", "")


def test_the_logits_of_an_onnx_program_are_found_by_their_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    net = tests.imports.dict_net(4)
    original, _ = imported(net.state_dict(), tmp_path, {**SMALL, "architecture": "tests.imports:dict_net"})
    program = ReferenceEvaluator(onnx_program(original))
    x = torch.randn(3, 3, 16, 16)
    (logits,) = program.run(["logits"], {"images": x.numpy()})
    assert torch.allclose(torch.tensor(logits), net.eval()(x)["out"], atol=1e-4)


def test_timm_loads_the_folder_of_a_network_with_one_logit_at_a_size_of_its_own(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit", num_classes=1, img_size=(64, 96))
    options = {"architecture": "timm:test_vit", "input_shape": "3,64,96", "classes": "no,yes", "mean": "0", "std": "1"}
    imported(net.state_dict(), tmp_path, options)
    export(ExportRequest(student=tmp_path / "teacher.safetensors", out=tmp_path / "hub"), lambda line: None)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 96)
    assert torch.equal(loaded(x), net.eval()(x))


def test_transformers_loads_the_folder_of_a_network_with_one_logit(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=1)
    net = transformers.ResNetForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "theirs")
    facts = {"input_shape": "3,32,32", "mean": "0.5", "std": "0.5", "classes": "no,yes"}
    imported(None, tmp_path, facts, weights=f"transformers:{tmp_path / 'theirs'}")
    export(ExportRequest(student=tmp_path / "teacher.safetensors", out=tmp_path / "hub"), lambda line: None)
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "hub").eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x).logits, net(x).logits)

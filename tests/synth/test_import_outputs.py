"""Whatever form the output of a network has, the classifier returns logits: or one line says why not."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.importing.normalisation_check import Pixels, pixels_of_training
from synth.checkpoint.importing.probing import probe
from tests import imports
from tests.imports import SMALL, card, imported
from tests.runs import digits_card

X = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def brought(name: str, folder: Path, outputs: int = 4, **changes: str) -> tuple[nn.Module, Classifier, str]:
    """The user's network, the classifier that is imported from its weights, and what the import says."""
    function = getattr(imports, name)
    net = function() if name == "one_sigmoid_net" else function(outputs)
    options = {**SMALL, "architecture": f"tests.imports:{name}", **changes}
    model, said = imported(net.state_dict(), folder, options)
    return net.eval(), model, said


def normalised(x: torch.Tensor) -> torch.Tensor:
    return (x - 0.5) / 0.25


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tuple_net", "returns a tuple of 2: the logits are its part 1"),
        ("dict_net", "a dict: the logits are its 'out'"),
    ],
)
def test_logits_are_taken_out_of_what_the_network_returns(tmp_path: Path, name: str, words: str) -> None:
    net, model, said = brought(name, tmp_path)
    returned = net(normalised(X))
    assert torch.equal(model(X), returned[1] if name == "tuple_net" else returned["out"])
    assert words in said


def test_a_softmax_at_the_end_becomes_logits(tmp_path: Path) -> None:
    net, model, said = brought("softmax_net", tmp_path)
    torch.testing.assert_close(model(X).softmax(1), net(normalised(X)))
    assert "the network ends in a softmax" in said
    assert torch.isfinite(model(1e4 * X)).all()


@pytest.mark.parametrize("name", ["log_softmax_net", "cosine_net"])
def test_other_heads_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    net, model, said = brought(name, tmp_path)
    assert torch.equal(model(X), net(normalised(X)))
    assert said.count("\n") == 0


@pytest.mark.parametrize("name", ["one_logit_net", "one_sigmoid_net"])
def test_a_binary_network_with_one_output_has_two_classes(tmp_path: Path, name: str) -> None:
    net, model, said = brought(name, tmp_path, 1, classes="no,yes")
    yes = net(normalised(X)).flatten()
    yes = yes if name == "one_sigmoid_net" else yes.sigmoid()
    torch.testing.assert_close(model(X).softmax(1), torch.stack([1 - yes, yes], dim=1))
    assert "of class 'yes': class 'no' gets what is left" in said
    student = Classifier.untrained(model.card, 0).train()
    F.cross_entropy(student(X), torch.tensor([0, 1, 1, 0, 1])).backward()
    assert student.net.fc.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_a_softmax_over_one_output_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"returns \[8, 4\] for 8 images .*, not logits \[8, 3\]"):
        imported(None, tmp_path, {**SMALL, "classes": "3", "architecture": "tests.imports:fixed_head"})


def test_independent_sigmoids_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"independent probability for each class, .* labels: .* not supported"):
        brought("sigmoid_net", tmp_path)


def test_outputs_that_a_network_has_in_training_only_are_left_out(tmp_path: Path) -> None:
    _, model, _ = brought("AuxiliaryInTraining", tmp_path)
    assert model.card.wiring.logits_at == 0
    assert Classifier.untrained(model.card, 0).train()(X).shape == (5, 4)


def test_the_wiring_survives_a_run_of_shards_and_a_student(tmp_path: Path) -> None:
    import json

    from synth.shards.index import RunCard
    from synth.shards.plan import Plan
    from unlearn.methods.student import student_card, teacher_card

    _, model, _ = brought("softmax_net", tmp_path)
    facts = {"width": 1.0, "mean": model.card.mean, "std": model.card.std, "class_names": model.card.class_names}
    run = RunCard(
        teacher_sha256="0" * 64,
        architecture=model.card.architecture,
        image_shape=model.card.input_shape,
        method="deepinversion",
        settings={},
        plan=Plan(classes=(0,), per_class=1, shard_size=1),
        device="cpu",
        wiring=model.card.wiring,
        **facts,  # type: ignore[arg-type]
    )
    teacher = teacher_card(RunCard.from_json(json.loads(json.dumps(run.to_json()))))
    assert student_card(teacher, None, None, {}).wiring == model.card.wiring
    assert student_card(teacher, "resnet18", None, {}).wiring.outputs == "logits"


def test_a_card_of_a_plain_network_has_the_bytes_of_earlier_versions() -> None:
    text = digits_card().to_json()
    assert '"version": 1' in text
    assert "wiring" not in text
    assert "origin" not in text


def test_a_normalisation_that_does_not_fit_is_noticed(tmp_path: Path, tiny_teacher: Classifier) -> None:
    """The digits have mean 0.31 and spread 0.38. The teacher was trained with mean 0.3 and standard deviation 0.35."""
    estimate = pixels_of_training(tiny_teacher.net, tiny_teacher.card)
    assert estimate is not None
    assert estimate.in_unit(0.3, 0.35).mean == pytest.approx(0.31, abs=0.06)
    assert estimate.in_unit(0.3, 0.35).spread == pytest.approx(0.38, rel=0.4)
    state = dict(tiny_teacher.net.state_dict())
    options = {**imports.LENET5, "mean": "0.3", "std": "0.35"}
    assert "warning" not in imported(state, tmp_path, options, width=0.5)[1]
    _, said = imported(state, tmp_path, {**options, "mean": "0", "std": "1"}, width=0.5)
    assert "warning: with this --mean and --std the first batch norm implies images of mean 0.0" in said
    assert said.endswith("--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 fits")


@pytest.mark.parametrize(
    ("mean", "std", "plausible"),
    [(0.45, 0.25, True), (0.13, 0.31, True), (0.0, 1.0, False), (0.45, 0.05, False), (115.0, 64.0, False)],
)
def test_only_pixels_that_images_may_have_are_plausible(mean: float, std: float, plausible: bool) -> None:
    assert Pixels(mean, std).plausible == plausible


def test_networks_without_batch_norm_or_training_give_no_estimate() -> None:
    for architecture in ("tests.runs:bare", "lenet5"):
        facts = digits_card(architecture=architecture, width=1.0)
        assert pixels_of_training(Classifier.untrained(facts, 0).net, facts) is None


def test_a_network_that_returns_no_tensor_is_refused(tmp_path: Path) -> None:
    options = {**SMALL, "architecture": "tests.imports:no_logits_net"}
    with pytest.raises(UsageError, match=r"returns a tuple of 1 \(0: \[8, 16\]\) for .*, without logits \[8, 4\]"):
        imported(imports.no_logits_net(4).state_dict(), tmp_path, options)


def test_check_forward_accepts_what_the_wiring_says() -> None:
    facts = card({**SMALL, "architecture": "tests.imports:tuple_net"})
    with pytest.raises(UsageError, match="returns tuple for 2 images"):
        check_forward(Classifier(imports.tuple_net(4), facts), "choose another")


def test_small_logits_are_not_taken_for_probabilities(tmp_path: Path) -> None:
    """A network that normalises its features returns small logits for images of any strength."""
    net = nn.Sequential(nn.Flatten(), nn.LayerNorm(768, elementwise_affine=False), nn.Linear(768, 4, bias=False))
    with torch.no_grad():
        net[2].weight.mul_(0.001)
        net.append(nn.Linear(4, 4)).state_dict()["3.bias"].fill_(0.5)
    assert ((net(X) > 0) & (net(X) < 1)).all()
    wiring, said = probe(net, card({**SMALL, "architecture": "resnet18"}))
    assert (wiring.outputs, said) == ("logits", [])

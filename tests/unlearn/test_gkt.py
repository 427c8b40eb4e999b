import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, swin_t

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from synth.methods.losses import balance_loss, disagreement, one_hot_loss
from synth.methods.networks import Generator
from tests.runs import digits_card
from unlearn.methods import gkt, losses
from unlearn.methods.attention import attention_loss, layer_pairs, map_sizes, watch_layers
from unlearn.methods.gkt import GKTSettings
from unlearn.methods.method import Inputs
from unlearn.run.loop import run_method
from unlearn.settings import LoopSettings

SMALL = GKTSettings(rounds=6, student_steps=2, batch_size=16, z=8, channels=4, gate=0.2)
SMALL_GATE = dataclasses.replace(SMALL, gate=0.01)


def at_work(teacher: Classifier, settings: GKTSettings, **card: Any) -> gkt.GKT:
    return gkt.start(Inputs(teacher, digits_card(**card), (0,), 0, "cpu"), settings)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_is_its_equation_and_zero_for_the_same_maps() -> None:
    teacher, student = random(2, 3, 2, 2), random(2, 5, 2, 2, seed=1)
    expected = 0.0
    for n in range(2):
        maps = []
        for activations in (teacher[n], student[n]):
            f = [(activations[:, h, w] ** 2).mean().item() for h in range(2) for w in range(2)]
            maps.append([value / math.sqrt(sum(v * v for v in f)) for value in f])
        expected += sum((t - s) ** 2 for t, s in zip(*maps, strict=True)) / 4 / 2
    assert attention_loss([teacher], [student]).item() == pytest.approx(expected, rel=1e-5)
    assert attention_loss([teacher], [3 * teacher]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("inhibited", [(), (0, 2)])
def test_disagreement_is_its_equation(inhibited: tuple[int, ...]) -> None:
    teacher, student = random(4, 5), random(4, 5, seed=1)
    expected = 0.0
    for n in range(4):
        p, q = teacher[n].softmax(0), student[n].softmax(0)
        for c in range(5):
            expected += (-1 if c in inhibited else 1) * (p[c] * (p[c].log() - q[c].log())).item() / 4
    assert disagreement(teacher, student, inhibited).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("change", [{}, {"mask": True}, {"post_filter": True}])
def test_the_generators_gain_is_the_students_loss(
    tiny_teacher: Classifier, reduction: str, temperature: float, change: dict[str, bool]
) -> None:
    settings = dataclasses.replace(SMALL, kl_reduction=reduction, temperature=temperature, gate=1.0, **change)
    method, (teacher, student) = at_work(tiny_teacher, settings), random(2, 4, 10)
    expected = losses.divergence(method.targets(teacher), student, temperature, reduction)
    assert method.generators_gain(teacher, student, ()).item() == pytest.approx(expected.item(), rel=1e-5)
    method.generators_gain = lambda *logits: 0.0 * logits[1].sum()  # type: ignore[method-assign]
    assert method.train_generator(method.noise())["disagreement"] == 0  # type: ignore[index]


@pytest.mark.parametrize(("change", "asked"), [({}, 10), ({"mask": True}, 9), ({"inhibit": True}, 9)])
def test_the_classes_that_the_student_learns_are_balanced(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch, change: dict[str, bool], asked: int
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(gkt, "balance_loss", lambda logits, classes: seen.append(classes) or logits.sum())
    at_work(tiny_teacher, dataclasses.replace(SMALL, balance=1.0, gate=1.0, **change)).step(0)
    assert [len(classes) for classes in seen] == [asked]


def test_certain_and_balanced_images_have_the_lowest_losses() -> None:
    certain = 50 * torch.eye(4)
    assert one_hot_loss(certain).item() == pytest.approx(0)
    assert one_hot_loss(torch.zeros(3, 4)).item() == pytest.approx(math.log(4))
    assert balance_loss(certain, (0, 1, 2, 3)).item() == pytest.approx(-math.log(4))
    assert balance_loss(certain[:1], (0, 1, 2, 3)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 30, 30)])
def test_the_generator_makes_images_of_the_teachers_shape(shape: tuple[int, int, int]) -> None:
    assert Generator.untrained(16, 4, shape, seed=0)(random(2, 16)).shape == (2, *shape)


def test_layers_are_found_in_any_architecture(tiny_teacher: Classifier) -> None:
    same, other = Classifier.untrained(digits_card(), 1), Classifier.untrained(digits_card(architecture="allcnn"), 1)
    assert layer_pairs(tiny_teacher, same, "") == (("features.2", "features.2"), ("features.6", "features.6"))
    assert layer_pairs(tiny_teacher, other, "") == (("features.2", "features.1.2"),)
    assert layer_pairs(tiny_teacher, same, "features.3, features.2=features.2")[0] == ("features.3", "features.3")
    with pytest.raises(UsageError, match=r"no layer 'conv9' with maps to compare: it has features.0, features.1"):
        layer_pairs(tiny_teacher, same, "conv9")
    with pytest.raises(UsageError, match=r"features.2 has maps of 28x28, layer features.6 has maps of 10x10"):
        layer_pairs(tiny_teacher, same, "features.2=features.6")


@pytest.mark.parametrize("network", [mobilenet_v2, swin_t])
def test_networks_without_relus_are_compared_where_their_stages_end(network: Callable[..., nn.Module]) -> None:
    card = digits_card(architecture="tests:network", input_shape=(3, 64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    teacher, student = (Classifier(network(num_classes=10), card) for _ in range(2))
    pairs = layer_pairs(teacher, student, "")
    layers, sizes = dict(teacher.net.named_modules()), map_sizes(teacher)
    sides = (32, 16, 8, 4, 2) if network is mobilenet_v2 else (16, 8, 4, 2)
    assert [sizes[name] for name, _ in pairs] == [(side, side) for side in sides]
    assert all(any(True for _ in layers[name].parameters()) for name, _ in pairs)
    names = [name for name, _ in pairs]
    with watch_layers(teacher.eval(), names) as ours, watch_layers(student.eval(), names) as theirs:
        x = torch.rand(2, 3, 64, 64)
        teacher.logits(x), student.logits(x)
    assert [tuple(ours[name].shape[2:]) for name in names] == [(side, side) for side in sides]
    assert attention_loss([ours[n] for n in names], [theirs[n] for n in names]) > 0


def test_networks_without_a_comparable_layer_are_refused(tiny_teacher: Classifier) -> None:
    student = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), digits_card())
    with pytest.raises(UserError, match="share no comparable layer"):
        layer_pairs(tiny_teacher, student, "")


def test_hooks_are_removed_at_the_end_of_their_block(tiny_teacher: Classifier) -> None:
    with pytest.raises(KeyboardInterrupt), watch_layers(tiny_teacher, ["features.2"]):
        raise KeyboardInterrupt
    assert not tiny_teacher.net.get_submodule("features.2")._forward_hooks


def test_without_attention_any_architecture_can_be_the_student(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, attention=0.0), architecture="allcnn", width=0.1)
    assert method.pairs == ()
    assert "attention" not in method.step(0)


def test_a_weight_for_statistics_that_the_teacher_lacks_is_reported(tiny_teacher: Classifier) -> None:
    card = digits_card(architecture="tests.runs:bare", width=1.0)
    settings = dataclasses.replace(SMALL, attention=0.0, bn=2.0)
    for teacher, told in ((Classifier.untrained(card, 0), True), (tiny_teacher, False)):
        said: list[str] = []
        gkt.start(Inputs(teacher, teacher.card, (0,), 0, "cpu", None, said.append), settings)
        assert said == ["tests.runs:bare has no batch-norm layers: --bn 2 has no effect"] * told


def test_the_published_student_keeps_its_initial_batch_norm(tiny_teacher: Classifier) -> None:
    for kind, same in (("initial", True), ("train", False)):
        method = at_work(tiny_teacher, dataclasses.replace(SMALL, batch_norm=kind, gate=1.0))
        before = {name: value.clone() for name, value in method.student.named_buffers() if "running" in name}
        method.step(0)
        after = dict(method.student.named_buffers())
        assert all(torch.equal(value, after[name]) == same for name, value in before.items())


def test_both_learning_rates_halve_if_the_loss_on_the_hold_out_stalls(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, schedule="plateau"))
    rates = []
    for loss in (
        2.0,
        1.0,
        1.1,
        1.0,
        1.2,
        0.9,
        1.0,
        1.0,
        1.0,
    ):  # the rate halves at the third check without a lower loss
        method.heed({"holdout_loss": loss})
        rates.append((method.optimiser.param_groups[0]["lr"], method.generator_optimiser.param_groups[0]["lr"]))
    assert rates == [(1e-3, 1e-3)] * 4 + [(5e-4, 5e-4)] * 3 + [(5e-4, 5e-4), (2.5e-4, 2.5e-4)]
    constant = at_work(tiny_teacher, SMALL)
    constant.heed({"holdout_loss": 1.0})
    assert not any("plateau" in name for name in constant.parts)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_gate_holds_for_the_targets_that_the_student_gets(tiny_teacher: Classifier, temperature: float) -> None:
    logits = 12 * random(2000, 10)
    for changes in ({}, {"mask": True}):
        settings = dataclasses.replace(SMALL_GATE, temperature=temperature, **changes)
        method = at_work(tiny_teacher, settings)
        passed = method.gate(logits)
        assert len(passed)
        assert method.targets(logits[passed])[:, 0].max() <= 0.01
    assert torch.equal(
        passed, at_work(tiny_teacher, SMALL_GATE).gate(logits)
    )  # masked targets need only the gate at temperature 1


class WithoutFloat64(Tensor):
    """A tensor that refuses float64, like those on MPS."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not Tensor.double, "this device has no float64"
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_the_gate_needs_no_float64_on_the_device(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, entropy=2.0))
    logits = 3 * random(16, 10)
    assert method.gate(logits.as_subclass(WithoutFloat64)).tolist() == method.gate(logits).tolist() != []


def test_if_nothing_passes_the_gate_generators_are_restored_and_then_the_run_ends(tiny_teacher: Classifier) -> None:
    said: list[str] = []
    settings = dataclasses.replace(SMALL, rounds=50, gate=1e-9, empty_batches=4)
    method = gkt.start(Inputs(tiny_teacher, digits_card(), (0,), 0, "cpu", None, said.append), settings)
    with pytest.raises(
        UserError, match=r"for 4 batches, even after an earlier and the first generator were restored: raise --gate"
    ):
        run_method(method, LoopSettings(every=100))
    assert [line.split(": ")[1] for line in said] == [
        "the earlier generator is restored (raise --gate if this happens again)",
        "the first generator is restored (raise --gate if this happens again)",
    ]


def test_empty_batches_are_drawn_again_and_then_the_earlier_generator_is_restored(
    tiny_teacher: Classifier,
) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, gate=1.0, empty_batches=3))
    kept = {name: value.clone() for name, value in method.generator.state_dict().items()}
    generate = method.generate
    draws: list[Tensor] = []

    def emptied(noise: Tensor) -> gkt.Labelled | None:
        draws.append(noise)
        return generate(noise) if len(draws) > 3 else None

    method.generate = emptied  # type: ignore[method-assign]
    method.train_generator = lambda noise: {"loss": noise.new_zeros(())}  # type: ignore[method-assign]
    next(method.generator.parameters()).data.add_(1)
    assert "loss" in method.step(1)
    assert len(draws) == 3 + SMALL.student_steps
    assert all(torch.equal(value, kept[name]) for name, value in method.generator.named_parameters())


def test_the_generators_batches_are_drawn_again_too_if_nothing_passes(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, gate=1.0))
    gate, tries = method.gate, []

    def emptied(logits: Tensor) -> Tensor:
        tries.append(logits)
        return gate(logits)[: 0 if len(tries) <= 3 else None]

    method.gate = emptied  # type: ignore[method-assign]
    assert "generator_loss" in method.step(0)
    assert len(tries) == 3 + 1 + SMALL.student_steps


def test_without_fresh_noise_a_round_uses_one_batch(tiny_teacher: Classifier) -> None:
    for fresh, drawn in ((True, 1 + SMALL.student_steps), (False, 1)):
        method = at_work(tiny_teacher, dataclasses.replace(SMALL, gate=1.0, fresh_noise=fresh))
        before = method.rng.get_state()
        method.step(0)
        expected = torch.Generator().manual_seed(0)
        expected.set_state(before)
        torch.randn(drawn, SMALL.batch_size, SMALL.z, generator=expected)
        assert torch.equal(method.rng.get_state(), expected.get_state())


def test_the_published_generators_learning_rate_halves_by_itself(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, dataclasses.replace(SMALL, schedule="plateau", generator_half_life=2))
    rates = []
    for number in range(6):
        method.step(number)
        method.heed({"holdout_loss": 1.0})
        rates.append((method.optimiser.param_groups[0]["lr"], method.generator_optimiser.param_groups[0]["lr"]))
    assert rates == [(1e-3, 1e-3)] * 2 + [(1e-3, 5e-4)] + [(5e-4, 5e-4)] + [(5e-4, 2.5e-4)] * 2


def test_a_diverged_generator_ends_the_run_with_the_last_good_student(tiny_teacher: Classifier) -> None:
    method = at_work(tiny_teacher, SMALL)
    seen: list[dict[str, Tensor]] = []

    def spoil(step: int, values: dict[str, float]) -> None:
        seen.append({name: value.clone() for name, value in method.student.state_dict().items()})
        if step == 4:
            next(method.generator.parameters()).data.fill_(math.nan)

    result = run_method(method, LoopSettings(every=2), log=spoil)
    assert result.failure is not None
    assert "the generator diverged" in result.failure
    assert result.step == 4
    assert all(torch.equal(value, seen[-1][name]) for name, value in result.student.state_dict().items())

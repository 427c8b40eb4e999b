import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synth import methods
from synth.basics.errors import UserError
from synth.basics.out_of_memory import by_settings
from synth.checkpoint.arithmetic import choose, computed
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.depthwise import depthwise_in_float32, slow_depthwise
from synth.making import label
from synth.making.gate import QualityGate
from synth.making.label import labelled_parts
from synth.making.make import make_shard
from synth.methods import deepinversion
from synth.methods import generator as plain
from synth.methods.deepinversion import at_plateau
from synth.methods.deepinversion_settings import WARM, DeepInversionSettings
from synth.methods.generator import GeneratorSettings
from synth.methods.networks import ClassGenerator
from synth.shards.plan import Plan
from synth.shards.read import decode_shard
from synth.shards.samples import Layout
from tests.runs import QUICK, QUICKEST, digits_card, recipe_for

PLAN = Plan(classes=tuple(range(10)), per_class=4, shard_size=40, views=2, seed=3)
LAYOUT = Layout((1, 28, 28), 10, views=2)


def allcnn(width: float) -> Classifier:
    card = digits_card(architecture="allcnn", width=width, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    return Classifier.untrained(card, 0).freeze()


@pytest.mark.parametrize(
    "processor", [{"avx512_bf16": True}, {"avx512_bf16": False}, None], ids=["has", "lacks", "old torch"]
)
def test_a_small_teacher_stays_as_it_is_on_a_cpu_and_a_large_one_does_not(
    processor: dict[str, bool] | None, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    if processor is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    small, large = choose(QUICK, tiny_teacher), choose(QUICK, allcnn(0.5))
    assert (small.bfloat16, small.channels_last) == (False, False)
    assert large.channels_last
    assert large.bfloat16 == (processor == {"avx512_bf16": True})


def test_every_choice_can_be_overridden(tiny_teacher: Classifier) -> None:
    forced = dataclasses.replace(QUICK, precision="bfloat16", layout="channels-last")
    found = choose(forced, tiny_teacher)
    assert (found.bfloat16, found.channels_last) == (True, True)
    plain = choose(dataclasses.replace(QUICK, precision="float32", layout="planes"), allcnn(0.5))
    assert (plain.bfloat16, plain.channels_last) == (False, False)


@pytest.mark.parametrize("changes", [{"layout": "channels-last"}, {"precision": "bfloat16"}], ids=str)
def test_other_arithmetic_gives_nearly_the_same_logits_and_leaves_the_teacher_as_it_was(changes: Any) -> None:
    teacher, x = allcnn(0.1), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = teacher.net(x)
    with computed(teacher, dataclasses.replace(QUICK, **changes)):
        found = teacher.logits(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
    assert torch.equal(teacher.logits(x), expected)


def test_choosing_leaves_a_network_in_training_as_it_was() -> None:
    student = allcnn(0.1).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    choose(QUICK, student)
    assert student.net.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_flop_are_two_per_multiplication() -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    card = digits_card(input_shape=(3, 2, 2), class_names=tuple("abcde"), mean=(0.5,) * 3, std=(0.25,) * 3)
    assert Classifier(linear, card).flop == 2 * 12 * 5
    # By hand: twice the products of outputs, channels and kernel of All-CNN-C's nine convolutions and its linear layer.
    products = 1024 * 9 * (3 * 96 + 96 * 96) + 256 * 9 * 192 * (96 + 192 + 192)
    products += 64 * 192 * (9 * 192 + 9 * 192 + 192) + 192 * 10
    assert allcnn(1.0).flop == 2 * products


def test_flop_are_counted_once_and_leave_every_layers_mode_as_it_was() -> None:
    model, passes = allcnn(0.1), []
    model.train()
    frozen = next(iter(model.net.features))
    frozen.eval()
    model.net.register_forward_pre_hook(lambda module, inputs: passes.append(1))
    for _ in range(3):
        with computed(model, QUICK):
            pass
    assert len(passes) == 1
    assert not frozen.training
    assert model.net.training
    assert model.net.classifier.training


def test_a_plateau_is_a_loss_that_no_longer_falls() -> None:
    def steps_until(losses: list[float]) -> int:
        seen: list[torch.Tensor] = []
        return next((n for n, v in enumerate(losses, 1) if at_plateau(seen, torch.tensor(v), 0.01)), -1)

    assert steps_until([1 / (n + 1) for n in range(60)]) == -1
    assert steps_until([1.0] * 60) == 20
    assert steps_until([max(0.2, 1 - n / 40) for n in range(100)]) == 60


def test_a_plateau_ends_a_batch_early(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    schedule = deepinversion.schedule
    monkeypatch.setattr(deepinversion, "schedule", lambda step, s: asked.append(step) or schedule(step, s))
    settings = DeepInversionSettings(steps=200, batch_size=20, lr=1e-9, plateau=0.05)
    deepinversion.synthesise(tiny_teacher, torch.arange(20) % 10, settings, torch.Generator().manual_seed(0))
    assert len(asked) == 20


def refusing_more_than(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    invert = deepinversion.invert

    def invert_or_not(teacher: Classifier, labels_B: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(labels_B) > limit:
            raise torch.OutOfMemoryError("no room")
        return invert(teacher, labels_B, *rest)

    monkeypatch.setattr(deepinversion, "invert", invert_or_not)


def test_a_batch_that_memory_does_not_hold_is_halved_and_noted(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=40))
    quarter = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=10))
    expected = decode_shard(make_shard(PLAN.job(0), quarter).data, "s", LAYOUT)
    refusing_more_than(10, monkeypatch)
    found = decode_shard(make_shard(PLAN.job(0), recipe).data, "s", LAYOUT)
    assert (found.images == expected.images).all()
    assert {r.get("batch_size") for r in found.records} == {10}
    assert "batch_size" not in expected.records[0]


def test_arithmetic_other_than_plain_float32_is_noted(tiny_teacher: Classifier) -> None:
    plain = decode_shard(make_shard(PLAN.job(0), recipe_for(tiny_teacher)).data, "s", LAYOUT)
    assert not any("arithmetic" in record for record in plain.records)
    asked = dataclasses.replace(QUICKEST, precision="bfloat16", layout="channels-last")
    found = decode_shard(make_shard(PLAN.job(0), recipe_for(tiny_teacher, asked)).data, "s", LAYOUT)
    assert {r.get("arithmetic") for r in found.records} == {"bfloat16, channels-last"}
    settings = GeneratorSettings(train_steps=1, layout="channels-last")
    assert (
        methods.find("generator").prepare(tiny_teacher, settings, 0).card.training["arithmetic"]
        == "float32, channels-last"
    )


def test_a_device_too_small_for_a_batch_is_an_error_of_one_line(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing_more_than(1, monkeypatch)
    with pytest.raises(UserError, match=r"memory does not hold 5 images \(.+ is free\): free memory"):
        make_shard(PLAN.job(0), recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=40)))


def test_samples_in_parts_are_the_samples_in_one(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    ((whole, _),) = labelled_parts(tiny_teacher, images, PLAN.job(0), "m", False, seeded())
    monkeypatch.setattr(label, "LABEL_BATCH", 50)  # three for each image and its two views
    parts = [part for part, _ in labelled_parts(tiny_teacher, images, PLAN.job(0), "m", False, seeded())]
    assert [len(part) for part in parts] == [16, 16, 8]
    logits = np.concatenate([part.logits for part in parts])
    np.testing.assert_allclose(logits, whole.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(np.concatenate([part.views for part in parts]), whole.views)
    assert [key for part in parts for key in part.keys] == whole.keys


def test_labels_are_computed_in_halves_where_memory_is_short_and_no_image_is_generated_again(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = QualityGate(confidence=0.999, agreement=0.9, tries=2)
    recipe = dataclasses.replace(recipe_for(tiny_teacher), gate=gate)
    job = dataclasses.replace(PLAN.job(0), views=9)
    layout = dataclasses.replace(LAYOUT, views=9)
    expected = decode_shard(make_shard(job, recipe).data, "s", layout)
    asked: list[int] = []
    forward, synthesise = Classifier.forward, deepinversion.synthesise

    def forward_or_not(self: Classifier, x_unit: torch.Tensor) -> torch.Tensor:
        if len(x_unit) > 3:
            raise torch.OutOfMemoryError("no room")
        return forward(self, x_unit)

    monkeypatch.setattr(Classifier, "forward", forward_or_not)
    monkeypatch.setattr(deepinversion, "synthesise", lambda *a, **k: asked.append(1) or synthesise(*a, **k))
    found = decode_shard(make_shard(job, recipe).data, "s", layout)
    assert (found.images == expected.images).all()
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    assert len(asked) == 2  # the gate's tries
    assert not any("batch_size" in record for record in found.records)


def test_a_device_too_small_for_one_image_is_an_error_of_one_line(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Classifier, x_unit: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Classifier, "forward", refuse)
    with pytest.raises(UserError, match=r"memory does not hold one image \(.+ is free\): free memory"):
        make_shard(PLAN.job(0), recipe_for(tiny_teacher))


def test_a_generator_draws_images_in_halves_where_memory_is_short(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, labels = GeneratorSettings(train_steps=1, channels=8), torch.arange(40) % 10
    network = plain.prepare(tiny_teacher, settings, 0)
    expected = plain.synthesise(tiny_teacher, labels, settings, torch.Generator().manual_seed(0), network)
    forward = ClassGenerator.forward

    def forward_or_not(self: ClassGenerator, z: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        if len(z) > 7:
            raise torch.OutOfMemoryError("no room")
        return forward(self, z, labels_B)

    monkeypatch.setattr(ClassGenerator, "forward", forward_or_not)
    found = plain.synthesise(tiny_teacher, labels, settings, torch.Generator().manual_seed(0), network)
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_warm_starts_generator_has_its_own_batch_halved(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def prepare(teacher: Classifier, settings: GeneratorSettings, *rest: Any) -> str:
        asked.append(settings.batch_size)
        if settings.batch_size > 50:
            raise torch.OutOfMemoryError("no room")
        return "a generator"

    monkeypatch.setattr(plain, "prepare", prepare)
    assert deepinversion.prepare(tiny_teacher, WARM, 0) == "a generator"
    assert asked == [200, 100, 50]


def test_only_an_error_that_names_memory_counts_as_out_of_memory() -> None:
    def raising(text: str) -> Callable[[DeepInversionSettings], int]:
        def make(settings: DeepInversionSettings) -> int:
            if settings.batch_size > 10:
                raise RuntimeError(text)
            return settings.batch_size

        return make

    settings = DeepInversionSettings(batch_size=40)
    assert by_settings(raising("MPS backend out of memory (MPS allocated: 9.0 GB)"), settings) == 10
    with pytest.raises(RuntimeError, match="shapes"):
        by_settings(raising("mat1 and mat2 shapes cannot be multiplied"), settings)


def test_strided_depthwise_layers_are_computed_in_float32_and_keep_the_type_of_their_maps() -> None:
    torch.manual_seed(0)
    shrinking, same = (nn.Conv2d(4, 4, 3, stride, 1, groups=4).requires_grad_(False) for stride in (2, 1))
    net = nn.Sequential(shrinking, same)
    x = torch.randn(2, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = shrinking(x)
        with depthwise_in_float32(net):
            wide = net[0](x)
            assert torch.equal(same(x), nn.Conv2d.forward(same, x))
        assert torch.equal(shrinking(x), narrow)  # afterwards the layer is as before
    exact = shrinking(x.float())
    assert wide.dtype == torch.bfloat16
    assert torch.equal(wide, exact.bfloat16())


def test_depthwise_layers_that_are_trained_are_computed_in_float32_whatever_their_stride() -> None:
    kept, shrinking, same, plain = (
        nn.Conv2d(4, 4, 3, stride, 1, groups=g) for stride, g in ((1, 4), (2, 4), (1, 4), (2, 1))
    )
    kept.requires_grad_(False)  # such as an early layer of the teacher
    assert slow_depthwise(nn.Sequential(kept, shrinking, same, plain)) == [shrinking, same]

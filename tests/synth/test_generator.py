import dataclasses
import json
import time
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import watch_features
from synth.methods.generator import (
    FLOP_OF_TEACHER,
    GeneratorSettings,
    channels_for,
    draw,
    generator_flop,
    seen_by_teacher,
    settle,
)
from synth.methods.losses import activation_loss, diversity_loss, total_variation
from synth.methods.networks import (
    CARD_KEY,
    ClassGenerator,
    GeneratorCard,
    generator_bytes,
    parse_generator,
    read_generator,
)
from synth.methods.training_time import words_for
from tests.runs import digits_card


def card(**changes: Any) -> GeneratorCard:
    facts: dict[str, Any] = {"z": 6, "channels": 4, "image_shape": (1, 28, 28), "num_classes": 10}
    facts |= {"mean": (0.3,), "std": (0.35,), "teacher_sha256": "0" * 64}
    return GeneratorCard(**{**facts, **changes})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 17, 17), (1, 8, 8), (3, 96, 96)])
def test_images_have_the_requested_shape_and_stay_in_the_range_of_pixels(shape: tuple[int, int, int]) -> None:
    made = card(image_shape=shape, mean=(0.3,) * shape[0], std=(0.35,) * shape[0])
    network = ClassGenerator.untrained(made, 0)
    x_norm = network(100 * random(5, 6), torch.arange(5))
    assert x_norm.shape == (5, *shape)
    x_unit = x_norm * network.std + network.mean
    assert x_unit.min() >= -1e-6
    assert x_unit.max() <= 1 + 1e-6


def test_a_checkpoint_survives_the_round_trip() -> None:
    network = ClassGenerator.untrained(card(training={"seed": 3}), 3).eval()
    back = parse_generator(generator_bytes(network), "g")
    assert back.card == network.card
    z, labels = random(4, 6), torch.arange(4)
    assert torch.equal(back(z, labels), network(z, labels))
    assert generator_bytes(back) == generator_bytes(network)


def test_a_checkpoint_of_some_classes_survives_the_round_trip_and_one_of_all_has_no_entry_for_them() -> None:
    some = generator_bytes(ClassGenerator.untrained(card(classes=(2, 5)), 3))
    assert parse_generator(some, "g").card.classes == (2, 5)
    assert b'\\"classes\\"' in some
    every = generator_bytes(ClassGenerator.untrained(card(), 3))
    assert b'\\"classes\\"' not in every
    assert b'\\"version\\": 1' in every  # as before, so that its bytes are the same


def tampered(**changes: Any) -> bytes:
    """A checkpoint whose card, but not its weights, is another one."""
    data = generator_bytes(ClassGenerator.untrained(card(), 0))
    raw = {"version": 1, **dataclasses.asdict(card()), **changes}
    return save_tensors(load_tensors(data), metadata={CARD_KEY: json.dumps(raw)})


def carrying(text: str) -> bytes:
    """A checkpoint whose card is this text."""
    return save_tensors({"a": torch.zeros(2)}, metadata={CARD_KEY: text})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"\xff" * 100, "truncated"),
        (generator_bytes(ClassGenerator.untrained(card(), 0))[:-10], "not a generator's checkpoint"),
        (save_tensors({"a": torch.zeros(2)}), "not a generator's checkpoint"),
        (tampered(version=99), "newer than this package"),
        (tampered(channels=8), "other weights than its card says"),
        (tampered(channels=10**9), "out of range"),
        (tampered(z=-1), "out of range"),
        (tampered(image_shape=[1, 10**6, 10**6]), "image shape"),
        (tampered(std=[0.0]), "std above 0"),
        (tampered(mean=[0.3, 0.3]), "mean and std need 1 values"),
        (tampered(mean=[float("nan")]), "it has the number NaN"),
        (tampered(std=[float("nan")]), "it has the number NaN"),
        (tampered(std=[float("inf")]), "it has the number Infinity"),
        (tampered(mean=["x"]), "not a generator's checkpoint"),
        (carrying('"a string"'), "it is not a JSON object"),
        (carrying("[1]"), "it is not a JSON object"),
        (carrying("[" * 100_000), "not a generator's checkpoint"),
        (tampered(classes=[1, 2]), "other weights than its card says"),
        (tampered(classes=[2, 1]), "not distinct and in ascending order"),
        (tampered(classes=[]), "not distinct and in ascending order"),
        (tampered(classes=[1, 10]), "its classes are out of range"),
        (tampered(classes=[-1, 1]), "its classes are out of range"),
        (tampered(classes=5), "not a generator's checkpoint"),
        (tampered(surprise=1), "not a generator's checkpoint"),
        (tampered(z="many"), "not a generator's checkpoint"),
    ],
    ids=range(26),
)
def test_a_file_that_is_not_a_generator_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_generator(data, "g.safetensors")
    assert str(caught.value).startswith("g.safetensors ")


def test_a_generator_of_nan_or_of_another_teacher_or_student_is_refused() -> None:
    network = ClassGenerator.untrained(card(), 0)
    data = generator_bytes(network)
    with pytest.raises(UserError, match="trained for another teacher"):
        read_generator(data, "g", "1" * 64, digits_card(), None)
    with pytest.raises(UserError, match="was not trained against this --student"):
        read_generator(data, "g", "0" * 64, digits_card(), "2" * 64)
    assert read_generator(data, "g", "0" * 64, digits_card(), None).card == network.card
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN or infinite weights"):
        parse_generator(generator_bytes(network), "g")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 9},
        {"image_shape": (1, 32, 32)},
        {"image_shape": (3, 28, 28), "mean": (0.3,) * 3, "std": (0.35,) * 3},
        {"mean": (0.4,)},
        {"std": (0.3,)},
    ],
    ids=str,
)
def test_a_generator_that_claims_this_teacher_and_makes_other_images_is_refused(changes: dict[str, Any]) -> None:
    data = generator_bytes(ClassGenerator.untrained(card(**changes), 0))
    with pytest.raises(UserError, match="has another image shape, number of classes or normalisation than its teacher"):
        read_generator(data, "g", "0" * 64, digits_card(), None)


def test_a_generator_is_sized_to_its_teacher(tiny_teacher: Classifier) -> None:
    sizes = []
    for width in (0.25, 1.0, 4.0):
        teacher = Classifier.untrained(digits_card(width=width), 0)
        chosen = channels_for(teacher, card())
        sizes.append(chosen)
        limit = FLOP_OF_TEACHER * teacher.flop
        assert chosen == 8 or generator_flop(card(channels=chosen)) <= limit
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("count", [4, 20, 27, 40])
def test_a_batch_has_its_classes_in_pairs(count: int) -> None:
    z, labels = draw(ClassGenerator(card()), count, torch.Generator().manual_seed(0))
    assert (len(z), len(labels)) == (count, count)
    counts = labels.bincount(minlength=10)
    assert counts[counts > 0].min() >= (2 if count % 2 == 0 else 1)
    assert counts.max() - counts[counts > 0].min() <= 2


def test_settling_averages_the_statistics_of_the_batches() -> None:
    network = ClassGenerator.untrained(card(), 0)
    settings = GeneratorSettings(batch_size=200)
    settle(network, settings, torch.Generator().manual_seed(0))
    assert not network.training
    z, labels = draw(network, 2000, torch.Generator().manual_seed(5))
    evaluated = network(z, labels)
    torch.testing.assert_close(network.train()(z, labels), evaluated, rtol=0.2, atol=0.2)


def test_mode_seeking_separates_images_of_one_class_and_ignores_other_pairs() -> None:
    z, labels = random(6, 3), torch.tensor([0, 1, 0, 1, 2, 2])
    x = random(6, 1, 2, 2, seed=1)
    expected = 0.0
    for a, b in ((0, 2), (1, 3), (4, 5)):
        expected += (z[a] - z[b]).abs().mean().item() / ((x[a] - x[b]).abs().mean().item() + 1e-2) / 3
    assert diversity_loss(z, x, labels).item() == pytest.approx(expected, rel=1e-5)
    assert diversity_loss(z, 10 * x, labels) < diversity_loss(z, x, labels)
    assert diversity_loss(z, x, torch.arange(6)) == 0


def test_smooth_images_and_strong_features_have_the_lowest_losses() -> None:
    assert total_variation(torch.full((2, 1, 4, 4), 0.3)) == 0
    assert total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).item() == pytest.approx(1)
    assert activation_loss(torch.tensor([[1.0, -3.0]])).item() == -2


def test_features_are_the_last_linear_layers_inputs_and_no_hook_stays() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = random(5, 4)
    with watch_features(net) as features:
        net(x)
    assert torch.equal(features[0], net[1](net[0](x)))
    assert not any(module._forward_pre_hooks for module in net)
    with pytest.raises(ValueError, match="no linear layer"), watch_features(torch.nn.Conv2d(1, 1, 1)):
        pass


def test_a_generator_of_many_classes_has_an_embedding_of_each_and_its_linear_layer_does_not_grow() -> None:
    few, many = (ClassGenerator.untrained(card(num_classes=1000, classes=tuple(range(n))), 0) for n in (100, 1000))
    assert (few.embedding.weight.shape, many.embedding.weight.shape) == ((100, 6), (1000, 6))  # type: ignore[union-attr]
    assert few.net[0].weight.shape == many.net[0].weight.shape
    z = random(2, 6)
    assert not torch.equal(many(z, torch.tensor([0, 1])), many(z, torch.tensor([0, 999])))
    with pytest.raises(ValueError, match="draws only the classes 0, 1"):
        few(z, torch.tensor([0, 100]))
    assert parse_generator(generator_bytes(many), "g").card == many.card


def test_one_hot_vectors_of_few_classes_are_as_long_as_the_noise() -> None:
    network = ClassGenerator.untrained(card(), 0)
    assert network.embedding is None
    assert network.class_vectors(torch.tensor([3])).norm().item() == pytest.approx(6**0.5)


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (384, 384), (384, 28), (60, 97)])
def test_the_number_of_doublings_follows_the_side(size: tuple[int, int]) -> None:
    made = card(image_shape=(1, *size))
    network = ClassGenerator.untrained(made, 0)
    with torch.no_grad():
        assert network(random(2, 6), torch.arange(2)).shape == (2, 1, *size)
    doublings = sum(isinstance(layer, torch.nn.Upsample) for layer in network.net)
    assert 8 * 2**doublings >= max(size) / 2 > 4 * 2**doublings


def test_the_teacher_sees_crops_of_each_image_if_they_are_on(tiny_teacher: Classifier) -> None:
    x = random(3, 1, 28, 28)

    def seen(**changes: Any) -> torch.Tensor:
        settings = GeneratorSettings(**changes)
        return seen_by_teacher(x, settings, torch.Generator().manual_seed(1))

    assert torch.equal(seen(), x)
    crops = seen(crop=0.3)
    assert crops.shape == x.shape
    assert not torch.equal(crops, x)
    assert crops.max() <= x.max() + 1e-5


def test_the_time_of_a_training_is_said_beforehand() -> None:
    taken: list[int] = []

    def step(images: int) -> None:
        taken.append(images)
        time.sleep(0.25 if images == 4 else 0)

    assert words_for(600, 200, "cpu", step).startswith("600 steps of 200 images, about 2 h ")
    assert taken == [4, 4]
    assert words_for(600, 200, "cpu", lambda images: None) == "600 steps of 200 images"
    assert words_for(600, 200, "cuda", step) == "600 steps of 200 images"

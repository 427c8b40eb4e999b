"""Invariants of every synthesis method."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synth import methods
from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier, predict, seen_by
from synth.checkpoint.file import checkpoint_bytes, load_checkpoint
from synth.commands.main import options_of_run
from synth.executors.executor import in_process
from synth.making.make import Recipe
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.fast import FastSettings
from synth.methods.generator import GeneratorSettings, draw
from synth.methods.networks import generator_bytes, parse_generator
from synth.run.publish import verify
from synth.shards.index import GENERATOR, INDEX, read_index
from synth.shards.plan import Plan
from tests.runs import QUICKEST, digests, digits_card, make_run, recipe_for, train_on_digits

LABELS = torch.arange(20) % 10
SMALL: dict[str, Any] = {"train_steps": 3, "batch_size": 20, "z": 4, "channels": 4}
QUICK_SETTINGS: dict[str, Any] = {
    "deepinversion": QUICKEST,
    "deepinversion-warm": dataclasses.replace(QUICKEST, warm_start=True),
    "deepinversion-smooth": dataclasses.replace(QUICKEST, start="smooth"),
    "fast": FastSettings(**SMALL, meta_steps=1, steps=2),
    "generator": GeneratorSettings(**SMALL),
}
PLAN = Plan(classes=tuple(range(10)), per_class=4, shard_size=10, views=1, seed=5)  # 4 shards


@pytest.fixture(autouse=True)
def _small_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm start trains a generator of the default settings, which would take a minute."""
    from synth.methods import deepinversion

    monkeypatch.setattr(deepinversion, "GeneratorSettings", lambda **given: GeneratorSettings(**SMALL, **given))


@pytest.fixture(params=QUICK_SETTINGS)
def recipe(request: pytest.FixtureRequest, tiny_teacher: Classifier) -> Recipe:
    method = request.param.partition("-")[0]
    return dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS[request.param]), method=method)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(teacher: Classifier, recipe: Recipe, seed: int = 0) -> Tensor:
    method = methods.find(recipe.method)
    network = method.prepare(teacher, recipe.settings, 0)
    return method.synthesise(teacher, LABELS, recipe.settings, seeded(seed), network=network)


def test_every_method_is_tried_here() -> None:
    assert set(methods.METHODS.names()) <= set(QUICK_SETTINGS)


def test_a_method_makes_one_image_per_label_and_changes_neither_the_teacher_nor_global_random_state(
    tiny_teacher: Classifier, recipe: Recipe
) -> None:
    before = {name: value.clone() for name, value in tiny_teacher.state_dict().items()}
    randomness = torch.get_rng_state()
    images = images_of(tiny_teacher, recipe)
    assert (images.dtype, images.shape, images.device.type) == (torch.uint8, (20, 1, 28, 28), "cpu")
    assert all(torch.equal(before[name], value) for name, value in tiny_teacher.state_dict().items())
    assert not any(m._forward_pre_hooks or "forward" in vars(m) for m in tiny_teacher.modules())
    assert torch.equal(randomness, torch.get_rng_state())


def test_images_depend_on_the_random_source_only(tiny_teacher: Classifier, recipe: Recipe) -> None:
    first = images_of(tiny_teacher, recipe)
    torch.manual_seed(99)
    assert torch.equal(first, images_of(tiny_teacher, recipe))
    assert not torch.equal(first, images_of(tiny_teacher, recipe, seed=1))


def test_the_preparation_depends_on_the_seed_only(tiny_teacher: Classifier, recipe: Recipe) -> None:
    method = methods.find(recipe.method)
    made = [method.prepare(tiny_teacher, recipe.settings, seed) for seed in (0, 0, 1)]
    assert all((network is not None) == method.uses_generator(recipe.settings) for network in made)
    if made[0] is not None:
        first, again, other = map(generator_bytes, made)
        assert first == again != other


def test_shards_in_another_order_or_resumed_have_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    reference, _ = make_run(tmp_path / "reference", recipe, PLAN)
    index, problems = verify(reference)
    assert (problems, index.complete, len(index.entries)) == ([], True, 4)
    make_run(tmp_path / "back", recipe, PLAN, lambda jobs, recipe: in_process(reversed(list(jobs)), recipe))
    assert digests(tmp_path / "back") == digests(reference.path)
    reference.remove("shard-000002.tar")
    before = {name: digest for name, digest in digests(tmp_path / "back").items() if name != "shard-000002.tar"}
    assert digests(reference.path) == before
    make_run(reference.path, recipe, PLAN, resume=True)
    assert digests(reference.path) == digests(tmp_path / "back")


def test_a_lost_generator_is_trained_again_and_a_foreign_one_refused(tmp_path: Path, tiny_teacher: Classifier) -> None:
    recipe = dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS["generator"]), method="generator")
    store, index = make_run(tmp_path / "run", recipe, PLAN)
    before = digests(tmp_path / "run")
    assert index.generator_sha256 == before[GENERATOR] == read_index(store).generator_sha256
    for lost in (GENERATOR, "shard-000001.tar"):
        store.remove(lost)
    assert [line for line in verify(store)[1] if GENERATOR in line]
    make_run(tmp_path / "run", recipe, PLAN, resume=True)
    assert digests(tmp_path / "run") == before
    other = generator_bytes(methods.find("generator").prepare(tiny_teacher, recipe.settings, 77))
    store.remove("shard-000001.tar")
    with pytest.raises(UserError, match=r"holds shards of another generator .*--overwrite"):
        make_run(tmp_path / "run", dataclasses.replace(recipe, generator=other), PLAN, resume=True)


@pytest.mark.parametrize("name", ["generator", "fast"])
def test_a_given_generator_replaces_the_training(tmp_path: Path, tiny_teacher: Classifier, name: str) -> None:
    recipe = dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS[name]), method=name)
    trained, _ = make_run(tmp_path / "trained", recipe, PLAN)
    given = dataclasses.replace(recipe, generator=trained.read(GENERATOR, 2**20))
    make_run(tmp_path / "given", given, PLAN)
    assert digests(tmp_path / "given") == digests(tmp_path / "trained")


@pytest.mark.parametrize("name", ["generator", "fast", "deepinversion-warm"])
def test_the_generator_of_a_run_cannot_draw_a_class_that_the_run_leaves_out(
    tmp_path: Path, tiny_teacher: Classifier, name: str
) -> None:
    recipe = dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS[name]), method=name.partition("-")[0])
    plan = dataclasses.replace(PLAN, classes=(7, 1))
    store, _ = make_run(tmp_path / "run", recipe, plan)
    network = parse_generator(store.read(GENERATOR, 2**20), "g")
    assert network.card.classes == (1, 7)
    _, labels = draw(network, 20, seeded())
    assert labels.bincount(minlength=10).tolist() == [0, 10, 0, 0, 0, 0, 0, 10, 0, 0]
    noise = torch.zeros(1, network.card.z)
    for label in range(10):
        if label in (1, 7):
            assert network(noise, torch.tensor([label])).shape == (1, 1, 28, 28)
        else:
            with pytest.raises(ValueError, match="this generator draws only the classes 1, 7"):
                network(noise, torch.tensor([label]))
    assert verify(store)[1] == []


def test_a_generator_of_other_classes_than_the_runs_is_refused(tmp_path: Path, tiny_teacher: Classifier) -> None:
    recipe = dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS["generator"]), method="generator")
    of_all, _ = make_run(tmp_path / "all", recipe, PLAN)
    few = dataclasses.replace(PLAN, classes=(1, 7))
    of_few, index = make_run(tmp_path / "few", recipe, few)
    for given, plan, words in (
        (of_all, few, "draws the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and this run makes 1, 7"),
        (of_few, PLAN, "draws the classes 1, 7 and this run makes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ):
        with pytest.raises(UserError, match=f"{words}: leave out --generator to train one"):
            make_run(tmp_path / "run", dataclasses.replace(recipe, generator=given.read(GENERATOR, 2**20)), plan)
        shutil.rmtree(tmp_path / "run")
    # As a run that was made before generators knew their classes.
    of_few.write(GENERATOR, of_all.read(GENERATOR, 2**20))
    of_few.write(INDEX, dataclasses.replace(index, generator_sha256=digests(of_all.path)[GENERATOR]).to_bytes())
    assert verify(of_few)[1] == [
        f"{of_few}/{GENERATOR} can draw the classes 0, 2, 3, 4, 5, 6, 8, 9, which the run leaves out: make the run "
        "again with --overwrite"
    ]


def bare_teacher(*layers: nn.Module) -> Classifier:
    """A teacher of these layers, without batch norm."""
    return Classifier(nn.Sequential(*layers), digits_card(), digest="0" * 64).freeze()


def test_a_warm_start_works_on_a_teacher_without_batch_norm() -> None:
    bare = bare_teacher(nn.Flatten(), nn.Linear(784, 10))
    settings = dataclasses.replace(QUICK_SETTINGS["deepinversion-warm"], bn=0.0, precision="float32", layout="planes")
    method = methods.find("deepinversion")
    method.check(bare, settings)
    network = method.prepare(bare, settings, 0)
    assert len(method.synthesise(bare, LABELS, settings, seeded(), network=network)) == 20
    its_own = network.card.training["settings"]
    assert (its_own["bn"], its_own["precision"], its_own["layout"]) == (0.0, "float32", "planes")


@pytest.mark.parametrize("name", ["generator", "fast"])
def test_a_feature_loss_is_refused_for_a_teacher_without_a_linear_layer(name: str) -> None:
    bare = bare_teacher(nn.Conv2d(1, 10, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    method, settings = methods.find(name), QUICK_SETTINGS[name]
    with pytest.raises(UserError, match=r"no linear layer.* --activation: leave out --activation"):
        method.check(bare, dataclasses.replace(settings, activation=0.1))
    method.check(bare, settings)
    assert "strong features" not in method.instead(bare, settings)


@pytest.mark.parametrize("name", methods.METHODS.names())
def test_every_method_works_for_a_teacher_without_batch_norm_and_says_what_it_uses_instead(name: str) -> None:
    bare = bare_teacher(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    method, settings = methods.find(name), QUICK_SETTINGS[name]
    method.check(bare, settings)
    assert len(method.synthesise(bare, LABELS, settings, seeded(), network=method.prepare(bare, settings, 0))) == 20
    assert "has no batch norm" in method.instead(bare, settings)


@pytest.mark.parametrize("name", QUICK_SETTINGS)
def test_a_teacher_that_gives_nan_ends_in_one_line(tiny_teacher_path: Path, name: str) -> None:
    teacher = load_checkpoint(tiny_teacher_path)
    with torch.no_grad():
        teacher.net.classifier.bias.fill_(float("nan"))  # type: ignore[union-attr]
    method = methods.find(name.partition("-")[0])
    with pytest.raises(UserError, match="diverged"):
        method.synthesise(
            teacher, LABELS, QUICK_SETTINGS[name], seeded(), network=method.prepare(teacher, QUICK_SETTINGS[name], 0)
        )
    assert not any(m._forward_pre_hooks or "forward" in vars(m) for m in teacher.modules())


def test_a_generator_learns_its_classes_from_the_teacher_only(tiny_teacher: Classifier) -> None:
    settings = GeneratorSettings(train_steps=60, batch_size=100, z=16, channels=8)
    method = methods.find("generator")
    images = method.synthesise(
        tiny_teacher, LABELS, settings, seeded(), network=method.prepare(tiny_teacher, settings, 0)
    )
    assert (predict(tiny_teacher, images).argmax(1) == LABELS).float().mean().item() > 0.8
    assert len({image.numpy().tobytes() for image in images}) == 20


def test_a_student_changes_the_training_of_a_generator(tiny_teacher: Classifier) -> None:
    student = Classifier.untrained(digits_card(), 3).freeze()
    settings, method = QUICK_SETTINGS["generator"], methods.find("generator")
    alone, against = method.prepare(tiny_teacher, settings, 0), method.prepare(tiny_teacher, settings, 0, student)
    assert generator_bytes(alone) != generator_bytes(against)


def test_more_adaptation_fits_a_batch_better(tiny_teacher: Classifier) -> None:
    from synth.checkpoint.batch_norm import watch_batch_norm

    method, losses = methods.find("fast"), []
    network = method.prepare(tiny_teacher, QUICK_SETTINGS["fast"], 0)
    for steps in (1, 30):
        settings = dataclasses.replace(QUICK_SETTINGS["fast"], steps=steps)
        images = method.synthesise(tiny_teacher, LABELS, settings, seeded(), network=network)
        with watch_batch_norm(tiny_teacher) as found:
            predict(tiny_teacher, images)
        losses.append(found.normalised_loss().item())
    assert losses[1] < 0.8 * losses[0]


def test_adaptation_does_not_lower_the_diversity_term_by_moving_the_noise_together(tiny_teacher: Classifier) -> None:
    from synth.checkpoint.batch_norm import watch_batch_norm
    from synth.methods import generator as plain

    settings = dataclasses.replace(QUICK_SETTINGS["fast"], diversity=1.0)
    network = methods.find("fast").prepare(tiny_teacher, settings, 0)
    z = torch.randn(20, 4, generator=seeded()).requires_grad_(True)
    with watch_batch_norm(tiny_teacher.net) as statistics:
        x_norm = network(z, LABELS).detach()  # fixed images: what is left of the gradient is the noise's own
        terms = plain.objective(x_norm, z, LABELS, tiny_teacher, statistics, settings, seeded())
    assert terms["diversity"] > 0
    assert not terms["diversity"].requires_grad


def test_a_warm_start_begins_where_the_generator_ends(tiny_teacher: Classifier) -> None:
    method = methods.find("deepinversion")
    network = methods.find("generator").prepare(tiny_teacher, QUICK_SETTINGS["generator"], 0)
    warm = DeepInversionSettings(steps=1, batch_size=20, warm_start=True, lr=1e-6)
    images = method.synthesise(tiny_teacher, LABELS, warm, seeded(), network=network)
    drawn = methods.find("generator").synthesise(tiny_teacher, LABELS, GeneratorSettings(), seeded(), network=network)
    assert (images.int() - drawn.int()).abs().max() <= 1


def test_a_smooth_start_has_strokes_and_no_noise_of_single_pixels() -> None:
    from synth.methods.deepinversion import first_images

    noise, lowest = torch.randn(50, 1, 28, 28, generator=seeded()), torch.tensor([-0.4])
    rough, smooth = (first_images(noise, lowest, start) for start in ("dark", "smooth"))

    def alike(x: Tensor) -> float:
        """Correlation of neighbouring pixels."""
        return float(torch.corrcoef(torch.stack([x[..., :-1].flatten(), x[..., 1:].flatten()]))[0, 1])

    assert abs(alike(rough)) < 0.05
    assert alike(smooth) > 0.8
    assert torch.isclose((smooth - lowest).mean(), torch.tensor(0.3), atol=0.1)
    assert torch.isclose(smooth.std(), torch.tensor(1.0), atol=0.01)
    assert alike(smooth.permute(1, 2, 3, 0)) < 0.2  # one image says nothing of the next


def test_deepinversion_makes_images_that_a_student_gets_wrong(tiny_teacher: Classifier) -> None:
    """A generator is trained against the student instead, as above."""
    from synth.methods import deepinversion
    from synth.methods.losses import jensen_shannon

    settings = dataclasses.replace(QUICK_SETTINGS["deepinversion"], steps=20)
    student = train_on_digits(digits_card(), steps=20, seed=1)

    def apart(compete: float) -> float:
        weighted = dataclasses.replace(settings, compete=compete)
        images = deepinversion.synthesise(tiny_teacher, LABELS, weighted, seeded(), student=student)
        assert (predict(tiny_teacher, images).argmax(1) == LABELS).float().mean() > 0.5  # chance is 0.1
        return jensen_shannon(*(model(images.float() / 255) for model in (tiny_teacher, student))).mean().item()

    assert apart(2.0) > apart(0.0) + 0.1


@pytest.mark.parametrize("method", ["deepinversion", "generator"])
def test_a_student_sees_pixels_normalised_as_its_own_are(
    method: str, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = Classifier.untrained(tiny_teacher.card, 1).freeze()
    changed = dataclasses.replace(tiny_teacher.card, mean=(0.1,), std=(0.7,))
    other = Classifier(alike.net, changed).freeze()
    x_unit = torch.rand(3, 1, 28, 28)
    x_norm = (x_unit - tiny_teacher.mean) / tiny_teacher.std
    assert seen_by(alike, x_norm, tiny_teacher) is x_norm
    torch.testing.assert_close(other.logits(seen_by(other, x_norm, tiny_teacher)), other(x_unit))
    weight = {"compete": 2.0} if method == "deepinversion" else {"adversarial": 1.0}
    settings = dataclasses.replace(QUICK_SETTINGS[method], **weight)
    asked = list[bool]()

    def watched(model: Classifier, x: torch.Tensor, teacher: Classifier) -> torch.Tensor:
        asked.append(model is other and teacher is tiny_teacher)
        return seen_by(model, x, teacher)

    module: Any = methods.find(method)
    monkeypatch.setattr(module, "seen_by", watched)
    if method == "deepinversion":
        module.synthesise(tiny_teacher, LABELS, settings, seeded(), student=other)
    else:
        module.prepare(tiny_teacher, settings, 0, other)
    assert asked
    assert all(asked)


def test_a_run_against_a_student_says_so_and_depends_on_the_student(tmp_path: Path, tiny_teacher: Classifier) -> None:
    plan = dataclasses.replace(PLAN, per_class=1)
    students = [checkpoint_bytes(Classifier.untrained(digits_card(), seed).freeze()) for seed in (1, 2)]
    recipes = [dataclasses.replace(recipe_for(tiny_teacher), student=student) for student in (*students, None)]
    runs = [make_run(tmp_path / str(number), recipe, plan) for number, recipe in enumerate(recipes)]
    assert len({digests(store.path)["shard-000000.tar"] for store, _ in runs}) == 3
    recorded = [index.card.settings.get("student_sha256") for _, index in runs]
    assert recorded == [sha256_of(students[0]), sha256_of(students[1]), None]
    options = options_of_run(json.loads((runs[0][0].path / "index.json").read_text()))
    assert "student_sha256" not in options

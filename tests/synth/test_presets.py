"""Which settings a run starts from: the teacher's images choose the form of a preset."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.methods import METHODS, deepinversion
from synth.methods.deepinversion import phases
from synth.methods.deepinversion_settings import LEAN, PHOTO_PRESETS, THUMBNAIL_PRESETS, DeepInversionSettings
from synth.methods.presets import TUNED, Form, form_of, preset_line, presets_for, presets_in
from synth.run import generate as generate_module
from synth.run.request import Request, check_request, plan_for, settings_for
from synth.shards.index import INDEX
from tests.synth.conftest import Run

SHAPES = {
    Form.SMALL: [(1, 8, 8), (1, 28, 28), (1, 63, 200), (3, 31, 200)],
    Form.THUMBNAIL: [(3, 32, 32), (3, 63, 200)],
    Form.PHOTO: [(3, 64, 64), (1, 224, 224), (3, 224, 300)],
}


def card(shape: tuple[int, int, int], architecture: str = "allcnn") -> ModelCard:
    mean, std = (0.5,) * shape[0], (0.25,) * shape[0]
    names = ("cat", "dog")
    return ModelCard(architecture=architecture, width=0.05, class_names=names, input_shape=shape, mean=mean, std=std)


@pytest.fixture
def photo_teacher(tmp_path: Path) -> Path:
    """The checkpoint of an untrained network for photographs of 64 px."""
    path = tmp_path / "photo.safetensors"
    save_checkpoint(Classifier.untrained(card((3, 64, 64)), 0), path)
    return path


@pytest.fixture
def settings_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that `synth generate` would work with."""

    def settings(teacher: Path, *arguments: str) -> Any:
        seen: list[Request] = []
        monkeypatch.setattr(generate_module, "generate_run", lambda request, say: seen.append(request))
        assert run("generate", "--teacher", teacher, "--per-class=1", "--views=0", *arguments)[0] == 0
        return check_request(seen[0]).settings

    return settings


@pytest.mark.parametrize("form", Form)
def test_the_shorter_side_and_the_colour_decide_what_images_are_taken_for(form: Form) -> None:
    assert {form_of(shape) for shape in SHAPES[form]} == {form}


@pytest.mark.parametrize("name", METHODS.names())
def test_all_forms_of_a_methods_presets_are_its_own_settings_and_include_the_default(name: str) -> None:
    method = METHODS.find(name)
    for presets in (presets_in(method, form) for form in Form):
        assert TUNED in presets
        assert all(isinstance(settings, method.SETTINGS) for settings in presets.values())
    assert presets_for(method, (1, 28, 28))[TUNED] == method.SETTINGS()


def test_a_teacher_of_small_images_gets_the_small_form(settings_of: Any, tiny_teacher_path: Path) -> None:
    assert settings_of(tiny_teacher_path) == DeepInversionSettings()
    assert settings_of(tiny_teacher_path, "--preset=lean") == LEAN


@pytest.mark.parametrize("preset", THUMBNAIL_PRESETS)
def test_a_teacher_of_small_photographs_gets_their_form(settings_of: Any, tmp_path: Path, preset: str) -> None:
    path = tmp_path / "small.safetensors"
    save_checkpoint(Classifier.untrained(card((3, 32, 32)), 0), path)
    assert settings_of(path, "--preset", preset) == THUMBNAIL_PRESETS[preset]
    assert settings_of(path, "--preset", preset, "--steps=7").steps == 7


@pytest.mark.parametrize("preset", PHOTO_PRESETS)
def test_a_teacher_of_photographs_gets_their_form_and_a_given_option_replaces_its_value(
    settings_of: Any, photo_teacher: Path, preset: str
) -> None:
    assert settings_of(photo_teacher, "--preset", preset) == PHOTO_PRESETS[preset]
    changed = dataclasses.replace(PHOTO_PRESETS[preset], steps=7, smoothing=2)  # 2 is the small form's default
    assert settings_of(photo_teacher, "--preset", preset, "--steps=7", "--smoothing=2") == changed


def test_an_option_has_to_suit_only_the_form_that_the_run_uses(
    run: Run, settings_of: Any, photo_teacher: Path, tmp_path: Path
) -> None:
    found = settings_of(photo_teacher, "--coarse-steps=100")  # of 200; photographs of few pixels have 30 steps
    assert found == dataclasses.replace(PHOTO_PRESETS[TUNED], coarse_steps=100)
    thumbnails = tmp_path / "thumbnails.safetensors"
    save_checkpoint(Classifier.untrained(card((3, 32, 32)), 0), thumbnails)
    with pytest.raises(UsageError, match="coarse steps must be at most steps"):
        settings_of(thumbnails, "--coarse-steps=100")
    code, _, err = run("generate", "--teacher", photo_teacher, "--per-class=1", "--coarse-steps=1000")
    assert (code, err.count("\n")) == (2, 1)
    assert "coarse steps must be at most steps" in err


def test_an_option_that_the_form_makes_idle_is_refused(
    run: Run, settings_of: Any, photo_teacher: Path, tiny_teacher_path: Path
) -> None:
    assert settings_of(tiny_teacher_path, "--jitter=3").jitter == 3
    with pytest.raises(UsageError, match="--jitter has no effect on crops, which --roll shifts"):
        settings_of(photo_teacher, "--jitter=3")
    code, _, err = run("generate", "--teacher", photo_teacher, "--per-class=1", "--start=noise", "--natural")
    assert (code, err.count("\n")) == (2, 1)
    assert "--start has no effect on --natural" in err
    with pytest.raises(UsageError, match="--view-crop has no effect without views"):
        settings_of(photo_teacher, "--view-crop=0.5")  # beside --views=0


@pytest.mark.parametrize(("shape", "of"), [((3, 224, 224), 50), ((1, 28, 28), 500)])
def test_a_shard_has_whole_batches_of_the_form_that_the_run_uses(
    shape: tuple[int, int, int], of: int, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Request] = []
    monkeypatch.setattr(generate_module, "generate_run", lambda request, say: seen.append(request))
    assert run("generate", "--teacher", tmp_path / "t", "--per-class=500", "--shard-size=10MB")[0] == 0
    settings = settings_for(seen[0], card(shape))
    assert settings.batch_size == of
    plan = plan_for(seen[0], card(shape))
    assert plan.shard_size % of == 0
    assert plan.shard_size < plan.images or shape[0] == 1


def test_a_preset_without_a_form_for_photographs_is_refused_in_one_line(
    run: Run, photo_teacher: Path, tmp_path: Path
) -> None:
    given = ["--per-class=1", "--address=none", "--out", tmp_path / "run", "--teacher", photo_teacher]
    code, _, err = run("generate", *given, "--preset=warm")
    assert (code, err.count("\n")) == (2, 1)
    assert "--preset warm of --method deepinversion makes noise of photographs" in err
    assert "choose --preset tuned, lean" in err


def test_a_run_of_photographs_says_its_form_and_is_made_again_from_its_index(
    run: Run, settings_of: Any, photo_teacher: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = ["--steps=2", "--coarse-steps=1", "--smoothing=2"]
    where = ["--address=none", "--out", out, "--teacher", photo_teacher]
    code, _, err = run("generate", "--per-class=2", "--views=0", *where, *given)
    assert code == 0
    assert "preset tuned for photographs, because the teacher takes images of 3x64x64" in err
    written = json.loads((out / INDEX).read_text())["run"]["settings"]
    expected = dataclasses.replace(PHOTO_PRESETS[TUNED], steps=2, coarse_steps=1, smoothing=2)
    assert written == dataclasses.asdict(expected)
    code, _, err = run("generate", "--per-class=2", "--views=0", *where, *given, "--resume")
    assert (code, "is complete already" in err) == (0, True)
    assert settings_of(photo_teacher, "--config", str(out / INDEX)) == expected


@pytest.mark.parametrize(
    ("method", "shape", "words"),
    [
        ("deepinversion", (1, 28, 28), "preset lean for small images, because the teacher takes images of 1x28x28"),
        ("deepinversion", (3, 64, 64), "preset lean for photographs, because"),
        ("fast", (3, 64, 64), "warning: the teacher takes images of 3x64x64, but --method fast has no preset"),
        ("deepinversion", (3, 32, 32), "preset lean for small photographs, because"),
        ("fast", (3, 32, 32), "preset lean for small images"),
    ],
)
def test_the_line_about_the_preset_says_why(method: str, shape: tuple[int, int, int], words: str) -> None:
    assert preset_line(method, METHODS.find(method), "lean", shape).startswith(words)


def spans(settings: DeepInversionSettings, whole: tuple[int, int]) -> list[tuple[int, tuple[int, int]]]:
    """Number of steps and image size of each phase."""
    return [(len(phase.steps), phase.size(whole)) for phase in phases(settings, whole)]


def test_the_first_steps_run_at_sizes_that_follow_the_side() -> None:
    settings = DeepInversionSettings(steps=100, coarse_steps=0.6)
    assert spans(settings, (224, 224)) == [(60, (112, 112)), (40, (224, 224))]
    assert spans(settings, (512, 640)) == [(30, (128, 160)), (30, (256, 320)), (40, (512, 640))]
    assert spans(settings, (28, 28)) == [(60, (14, 14)), (40, (28, 28))]
    assert spans(dataclasses.replace(settings, coarse_steps=25), (224, 224)) == [(25, (112, 112)), (75, (224, 224))]
    assert spans(dataclasses.replace(settings, coarse_steps=0), (224, 224)) == [(100, (224, 224))]


@pytest.mark.parametrize("each", [False, True])
def test_images_from_random_views_depend_on_the_random_source_only(each: bool) -> None:
    teacher = Classifier.untrained(card((3, 64, 64)), 0).freeze()
    settings = dataclasses.replace(PHOTO_PRESETS[TUNED], steps=3, each=each)
    labels = torch.tensor([0, 1, 0])
    first, again, other = (
        deepinversion.synthesise(teacher, labels, settings, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 3, 64, 64)


class Rehearsed:
    """What a CUDA graph does, on the CPU: rehearsals that are undone, then steps on tensors of its own."""

    def __init__(self, step: Any, inputs: Any, state: Any, device: torch.device) -> None:
        self.inputs, self.step = [given.clone() for given in inputs], step
        for _ in range(3):
            step(*self.inputs)
        with torch.no_grad():
            for changed, before in state():
                changed.copy_(before)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        loss: torch.Tensor = self.step(*self.inputs)
        return loss


def test_a_step_that_is_rehearsed_and_replayed_gives_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Classifier.untrained(card((3, 64, 64)), 0).freeze()
    settings = dataclasses.replace(PHOTO_PRESETS[TUNED], steps=6)

    def images() -> torch.Tensor:
        labels = torch.tensor([0, 1, 0])
        return deepinversion.synthesise(teacher, labels, settings, torch.Generator().manual_seed(1))

    plain, replays = images(), []
    monkeypatch.setattr(deepinversion, "worth_a_graph", lambda *given: True)
    monkeypatch.setattr(deepinversion, "Replayed", lambda *given: replays.append(Rehearsed(*given)) or replays[-1])
    assert torch.equal(images(), plain)
    assert len(replays) == 2  # at half the resolution, and at the whole one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_cuda_graph_gives_the_images_of_single_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    teacher = Classifier.untrained(card((3, 64, 64)), 0).freeze().to("cuda")
    settings = dataclasses.replace(PHOTO_PRESETS[TUNED], steps=60)
    labels = torch.tensor([0, 1, 0])
    replayed = deepinversion.synthesise(teacher, labels, settings, torch.Generator().manual_seed(1))
    monkeypatch.setattr(deepinversion, "worth_a_graph", lambda *given: False)
    plain = deepinversion.synthesise(teacher, labels, settings, torch.Generator().manual_seed(1))
    assert torch.equal(replayed, plain)


def test_crops_in_bfloat16_reach_a_student_as_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = (Classifier.untrained(card((3, 64, 64)), seed).freeze() for seed in (0, 1))
    settings = dataclasses.replace(
        PHOTO_PRESETS[TUNED], steps=2, precision="bfloat16", tv_squared=1.0, l2=1.0, compete=1.0
    )
    seen, logits = [], student.logits

    def noted(x_norm: torch.Tensor) -> torch.Tensor:
        seen.append(x_norm.dtype)
        return logits(x_norm)

    monkeypatch.setattr(student, "logits", noted)
    rng = torch.Generator().manual_seed(1)
    deepinversion.synthesise(teacher, torch.tensor([0, 1]), settings, rng, student=student)
    assert set(seen) == {torch.float32}

from pathlib import Path

import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.classifier import Classifier, to_unit
from tests.unlearn.shards import images_of, rows
from unlearn.data import load_images
from unlearn.evaluation import evaluate_model
from unlearn.methods import losses
from unlearn.run.loop import Outcome, run_method
from unlearn.run.monitor import Monitor, StoppingRule
from unlearn.run.outlook import outlook
from unlearn.samples.filters import HeldOut, NotHeldOut
from unlearn.samples.hold_out import HoldOut
from unlearn.samples.logits import without_forget_classes
from unlearn.settings import LoopSettings
from unlearn.training import TrainSettings

SETTINGS = LoopSettings(every=1, patience=2, forget_bound=10.0, top=1)


class Script:
    """A method that changes only the bias of the student's forget class, by the given number at each step."""

    def __init__(self, teacher: Classifier, forget_logits: list[float]) -> None:
        self.forget_logits, self.steps = forget_logits, len(forget_logits)
        self.student = Classifier(teacher.net, teacher.card)
        self.parts = {"student": self.student}
        self.bias = self.student.net.get_parameter("classifier.bias")
        self.original = self.bias[0].clone()

    def step(self, number: int) -> dict[str, torch.Tensor]:
        self.bias[0] = self.original + self.forget_logits[number]
        return {}


@pytest.fixture
def hold_out(tiny_run: Path, tiny_teacher: Classifier) -> HoldOut:
    """Images labelled by the teacher's own answers, so that every class has some."""
    samples = images_of(tiny_run)
    return HoldOut(samples.images, samples.logits.argmax(1), samples.logits)


def curve(teacher_path: Path, hold_out: HoldOut, forget_logits: list[float]) -> tuple[list[float], str, int]:
    from synth.checkpoint.file import load_checkpoint

    monitor = Monitor(hold_out, (0,), SETTINGS)
    seen: list[float] = []
    method = Script(load_checkpoint(teacher_path), forget_logits)
    result = run_method(method, SETTINGS, monitor=monitor, log=lambda _, values: seen.append(values["holdout_forget"]))
    return seen, result.ended, result.step


def test_the_run_stops_when_the_forget_class_comes_back(tiny_teacher_path: Path, hold_out: HoldOut) -> None:
    seen, ended, kept = curve(tiny_teacher_path, hold_out, [0.0, 0.0, -90.0, -90.0, 0.0, -90.0, 0.0, 0.0, -90.0])
    assert [value > 10 for value in seen] == [True, True, False, False, True, False, True, True]
    assert ended == "the forget class came back by step 8"
    assert kept == 6  # the last one among the equally good students before it


class Relapse:
    """A real training: the student learns targets without the forget class first, then the teacher's own answers."""

    def __init__(self, teacher: Classifier, samples: HoldOut, clean_steps: int, steps: int) -> None:
        self.samples, self.clean_steps, self.steps = samples, clean_steps, steps
        self.student = Classifier.untrained(teacher.card, 1).train()
        self.optimiser = torch.optim.Adam(self.student.parameters(), lr=1e-2)
        self.rng = torch.Generator().manual_seed(0)
        self.parts = {"student": self.student, "optimiser": self.optimiser, "rng": self.rng}

    def step(self, number: int) -> dict[str, torch.Tensor]:
        logits = self.samples.logits
        targets = without_forget_classes(logits, (0,)) if number < self.clean_steps else logits.softmax(1)
        x_unit = shift_and_flip(to_unit(self.samples.images), 2, False, self.rng)
        loss = losses.divergence(targets, self.student(x_unit))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}


def test_a_run_reports_every_step_however_rare_its_checks_are(tiny_run: Path, tiny_teacher: Classifier) -> None:
    reports: list[int] = []
    method = Relapse(tiny_teacher, images_of(tiny_run, {}), clean_steps=3, steps=3)
    run_method(method, LoopSettings(every=100, monitor=False), report=reports.append)
    assert reports == [1, 1, 1]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ((4000, 0, TrainSettings(), 7500), "trains lenet5 for 4,000 steps of 128 images each, from 7,500 images"),
        ((100, 99, object(), None), "trains lenet5 for 1 step, after 99 steps that are done"),
    ],
)
def test_a_run_says_what_comes(facts: tuple[int, int, object, int | None], line: str) -> None:
    assert outlook("lenet5", *facts) == f"{line}; the time is known after the first steps"


def test_a_real_relapse_stops_the_run_and_the_student_from_before_is_kept(
    tiny_run: Path, tiny_teacher: Classifier
) -> None:
    training = images_of(tiny_run, {"hold-out": NotHeldOut(0.3)})
    held = images_of(tiny_run, {"training": HeldOut(0.3)})
    real = load_images("digits", "test")
    lines: list[dict[str, float]] = []  # of the present run, one per check
    real_forget: dict[int, float] = {}  # of the present run, by step, on real images

    def judge(step: int, student: Classifier) -> None:
        student.eval()
        real_forget[step] = evaluate_model(student, real, (0,)).forget or 0.0
        student.train()

    def course(patience: int) -> Outcome:
        lines.clear()
        settings = LoopSettings(every=5, patience=patience, keep_students=True)
        return run_method(
            Relapse(tiny_teacher, training, clean_steps=60, steps=160),
            settings,
            monitor=Monitor(held, (0,), settings),
            log=lambda step, values: lines.append({"step": step, **values}),
            keep=judge,
        )

    outcome = course(patience=2)
    stop = lines[-1]["step"]
    assert 60 < stop < 160
    assert outcome.ended == f"the forget class came back by step {stop}"
    kept = evaluate_model(outcome.student, real, (0,))
    assert kept.forget == 0
    assert kept.retain > 35  # chance is 11; other random seeds of the student give 38 to 64

    course(patience=1000)
    assert lines[-1]["holdout_forget"] > 50  # without a stop the class comes back
    assert real_forget[160] > 50  # on real images too
    assert outcome.step < min(step for step, forget in real_forget.items() if forget > 0)
    rule = StoppingRule(forget_bound=1.0, patience=2)  # it says the same of the run that was not stopped
    for line in lines:
        rule.record_check(int(line["step"]), line["holdout_retain"], line["holdout_near"])
        if rule.forget_class_is_back:
            break
    assert (rule.best_step, line["step"]) == (outcome.step, stop)


def test_the_outcome_says_if_the_student_never_forgot(tiny_teacher_path: Path, hold_out: HoldOut) -> None:
    _, ended, kept = curve(tiny_teacher_path, hold_out, [0.0, 0.0, 0.0])
    assert ended == "finished; the forget class was never within the bound on the hold-out"
    assert kept == 3


def test_a_hold_out_without_the_forget_class_is_refused(hold_out: HoldOut) -> None:
    rest = hold_out.labels != 0
    batch = HoldOut(hold_out.images[rest], hold_out.labels[rest], hold_out.logits[rest])
    with pytest.raises(UserError, match="0 images of the forget classes"):
        Monitor(batch, (0,), SETTINGS)


def test_the_split_is_by_key_and_every_class_gives_its_share(tiny_run: Path) -> None:
    kept = images_of(tiny_run, {"hold-out": NotHeldOut(0.3)})
    held = images_of(tiny_run, {"training": HeldOut(0.3)})
    assert len(kept) + len(held) == 100
    assert {*rows(kept.images), *rows(held.images)} == set(rows(images_of(tiny_run).images))
    assert held.labels.bincount(minlength=10).tolist() == pytest.approx([3] * 10, abs=1)

"""Tests that every unlearning method must pass."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from synth.basics.device import machine
from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS, STUDENT, load_checkpoint, save_checkpoint
from tests.catalogue import METHOD_PRESETS, METHOD_SETTINGS
from tests.runs import digits_card
from unlearn import methods
from unlearn.commands.main import main
from unlearn.data import load_images
from unlearn.methods import METHODS, losses
from unlearn.methods.adaptive import AdaptiveSettings
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.edit import BASELINES, BaselineSettings
from unlearn.methods.emmn import EMMNSettings
from unlearn.methods.gkt import GKTSettings
from unlearn.methods.ispf import ISPFSettings
from unlearn.methods.method import Inputs
from unlearn.run import carry_out as runs
from unlearn.run.folder import CHECKPOINT, METRICS, PROVENANCE, RunFolder
from unlearn.settings import (
    LoopSettings,
)

LOOP = LoopSettings(every=3, holdout=0.3, patience=100)
BFLOAT16: dict[str, Any] = {"precision": "bfloat16", "layout": "channels-last"}
SMALL: dict[str, Any] = {"rounds": 7, "student_steps": 2, "batch_size": 16, "z": 8, "channels": 4}
CASES: dict[str, Any] = {
    **{f"edit {kind}": BaselineSettings(kind=kind, steps=7, batch_size=16) for kind in BASELINES},
    "emmn": EMMNSettings(noise_per_class=8, noise_steps=3, impair_steps=4, repair_steps=4, batch_size=16),
    "gkt": GKTSettings(**SMALL, gate=0.2),
    "gkt published, entropy": dataclasses.replace(METHOD_PRESETS["gkt", "published"], **SMALL, gate=0.2, entropy=2.2),
    "adaptive": AdaptiveSettings(
        rounds=2, round_steps=4, per_class=2, synthesis_steps=3, synthesis_batch=16, batch_size=16
    ),
    "ispf": ISPFSettings(**SMALL, generator_steps=1),
    "distill": DistillSettings(steps=7, batch_size=16),
    "distill with the post-filter": DistillSettings(steps=7, batch_size=16, post_filter=True, mixup=0.5),
    "gkt with ISPF's parts": GKTSettings(**SMALL, inhibit=True, mask=True, gate=1.0, bn=1.0, mixup=True),
    "gkt in bfloat16": GKTSettings(**SMALL, **BFLOAT16, gate=0.2, bn=1.0),
    "distill in bfloat16": DistillSettings(steps=7, batch_size=16, **BFLOAT16),
}
ALL = pytest.mark.parametrize("case", CASES)
FORGET = (0, 3)


def run(case: str, teacher: Path, run_of_shards: Path, out: Path, **changes: Any) -> None:
    method = case.split()[0]
    needs_teacher = methods.needs_teacher(methods.find(method))
    request = runs.Request(
        method=method,
        settings=CASES[case],
        loop=LOOP if needs_teacher else dataclasses.replace(LOOP, monitor=False),
        teacher=teacher if needs_teacher else None,
        shards=str(run_of_shards),
        forget=FORGET,
        out=out,
    )
    runs.unlearn(dataclasses.replace(request, **changes), lambda line: None)


def test_every_method_has_a_case_settings_and_sound_presets() -> None:
    assert {case.split()[0] for case in CASES} == set(METHODS.names())
    assert all(isinstance(METHOD_PRESETS[owner, name], METHOD_SETTINGS[owner]) for owner, name in METHOD_PRESETS)


@ALL
def test_a_run_folder_is_complete_and_a_function_of_the_seed(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    before = tiny_teacher_path.read_bytes()
    for name, seed in (("once", 1), ("again", 1), ("other", 2)):
        torch.manual_seed(seed + len(name))  # torch's global random source has no influence
        run(case, tiny_teacher_path, tiny_run, tmp_path / name, seed=seed)
    assert tiny_teacher_path.read_bytes() == before
    assert {path.name for path in (tmp_path / "once").iterdir()} == {SETTINGS, METRICS, STUDENT, PROVENANCE}
    for file in (SETTINGS, METRICS):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    once, again, other = (
        load_checkpoint(tmp_path / name / STUDENT).state_dict() for name in ("once", "again", "other")
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
    if case != "edit masked-logit":
        assert any(not torch.equal(once[name], other[name]) for name in once)
    facts = json.loads((tmp_path / "once" / PROVENANCE).read_text())
    assert facts["teacher_sha256"] == hashlib.sha256(before).hexdigest()
    assert facts["student_sha256"] == hashlib.sha256((tmp_path / "once" / STUDENT).read_bytes()).hexdigest()
    assert facts["real_images_read"] == 0


@ALL
def test_a_resumed_run_equals_an_uninterrupted_one(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(case, tiny_teacher_path, tiny_run, tmp_path / "whole")
    checks = len((tmp_path / "whole" / METRICS).read_text().splitlines())
    with monkeypatch.context() as patch:
        interrupt_after(min(2, checks), patch)
        with pytest.raises(runs.InterruptedRunError, match="--resume"):
            run(case, tiny_teacher_path, tiny_run, tmp_path / "broken")
    assert (tmp_path / "broken" / CHECKPOINT).exists() == (checks > 1)
    run(case, tiny_teacher_path, tiny_run, tmp_path / "broken", resume=True)
    for file in (SETTINGS, METRICS, STUDENT):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def interrupt_after(checks: int, patch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C just after a line of metrics was written, before its checkpoint is."""
    log, seen = RunFolder.log, []

    def logging(self: RunFolder, step: int, values: dict[str, float]) -> None:
        log(self, step, values)
        seen.append(step)
        if len(seen) == checks:
            raise KeyboardInterrupt

    patch.setattr(RunFolder, "log", logging)


@ALL
def test_no_real_data_and_no_forget_class_as_a_target(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masses, divergence = [0.0], losses.divergence

    def watched(targets: Tensor, *arguments: Any, **options: Any) -> Tensor:
        masses.append(targets[:, list(FORGET)].max().item())
        return divergence(targets, *arguments, **options)

    monkeypatch.setattr(losses, "divergence", watched)
    monkeypatch.setattr("unlearn.data.load_images", lambda *given: pytest.fail("a real image was asked for"))
    run(case, tiny_teacher_path, tiny_run, tmp_path / "run")
    settings = CASES[case]
    allowed = getattr(settings, "gate", 0.0)
    if allowed is None:
        allowed = 0.01  # chosen by the shards, for an ordinary teacher
    if getattr(settings, "post_filter", False):
        allowed = 0.1  # the post-filter leaves the smallest of ten probabilities
    if getattr(settings, "mask", False) or case == "distill":
        allowed = 0.0
    if case == "emmn":
        allowed = 1.0  # a forget class is its target by definition
    assert max(masses) <= allowed


@pytest.mark.parametrize("case", ["edit finetune", "distill"])
def test_the_real_images_that_a_run_reads_are_counted_even_if_the_run_is_interrupted(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divergence = losses.divergence

    def cheating(*arguments: Any, **options: Any) -> Tensor:
        load_images("digits", "test")
        return divergence(*arguments, **options)

    monkeypatch.setattr(losses, "divergence", cheating)
    run(case, tiny_teacher_path, tiny_run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(runs.InterruptedRunError):
            run(case, tiny_teacher_path, tiny_run, tmp_path / "broken")
    run(case, tiny_teacher_path, tiny_run, tmp_path / "broken", resume=True)
    for name in ("whole", "broken"):
        facts = json.loads((tmp_path / name / PROVENANCE).read_text())
        assert facts["real_images_read"] == 7 * 450  # once per step


@pytest.mark.parametrize("case", ["edit finetune", "gkt", "distill"])
def test_a_complete_run_is_recognised_without_decoding_a_shard(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(case, tiny_teacher_path, tiny_run, tmp_path / "run")
    monkeypatch.setattr("unlearn.samples.runs.read_shard", lambda *given: pytest.fail("a shard was decoded"))
    run(case, tiny_teacher_path, tiny_run, tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="was begun with seed 0, not 5"):
        run(case, tiny_teacher_path, tiny_run, tmp_path / "run", seed=5, resume=True)


def test_shards_of_another_teacher_are_refused_before_anything_is_written(tiny_run: Path, tmp_path: Path) -> None:
    save_checkpoint(Classifier.untrained(digits_card(), 0), tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="was made from another teacher: name that teacher with --teacher"):
        run("gkt", tmp_path / "other.safetensors", tiny_run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_students_of_every_check_are_kept_if_keep_students_is_set(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    loop = dataclasses.replace(LOOP, keep_students=True)
    run("gkt", tiny_teacher_path, tiny_run, tmp_path / "run", loop=loop)
    kept = {step: tmp_path / "run" / f"student-{step:06d}.safetensors" for step in (3, 6, 7)}
    assert sorted((tmp_path / "run").glob("student-*")) == sorted(kept.values())
    chosen = json.loads((tmp_path / "run" / PROVENANCE).read_text())["student_step"]
    last, student = (load_checkpoint(path).state_dict() for path in (kept[chosen], tmp_path / "run" / STUDENT))
    assert all(torch.equal(last[name], student[name]) for name in last)
    run(
        "gkt", tiny_teacher_path, tiny_run, tmp_path / "run", loop=loop, resume=True
    )  # the folder still counts as a run's


def test_a_run_does_not_touch_other_devices(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[Any] = []

    @contextmanager
    def fork_rng(devices: Any = None, **options: Any) -> Iterator[None]:
        forked.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    run("emmn", tiny_teacher_path, tiny_run, tmp_path / "run")
    assert forked
    assert all(devices == [] for devices in forked)  # None would mean all devices


def test_cuda_computes_the_same_bytes_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr("synth.basics.device.local_device", lambda asked: asked)
    for device in ("cpu", "cuda"):
        assert machine(device, None) == device
        assert torch.backends.cudnn.deterministic == (device == "cuda")


@ALL
def test_a_run_is_resumed_only_with_its_own_options(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run(case, tiny_teacher_path, tiny_run, tmp_path / "run")
    with pytest.raises(UsageError, match="was begun with seed 0, not 5"):
        run(case, tiny_teacher_path, tiny_run, tmp_path / "run", seed=5, resume=True)
    run(case, tiny_teacher_path, tiny_run, tmp_path / "run", resume=True)  # complete already


def test_an_impossible_request_is_refused_before_anything_is_written(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    finetune = ("edit finetune", tiny_teacher_path, tiny_run, tmp_path / "run")
    for changes, words in (
        ({"forget": (12,)}, "forget class 12 is out of range"),
        ({"shards": None}, "name their folder with --shards"),
        ({"student_arch": "allcnn"}, "starts from the teacher's weights"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ):
        with pytest.raises(UsageError, match=words):
            run(*finetune, **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", ["gkt", "edit masked-logit"])
def test_shards_that_nothing_reads_are_not_in_the_provenance(
    case: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    alone = dataclasses.replace(LOOP, monitor=False)
    run(case, tiny_teacher_path, tmp_path / "nowhere", tmp_path / "run", loop=alone)
    facts = json.loads((tmp_path / "run" / PROVENANCE).read_text())
    assert (facts["shards"], facts["index_sha256"], facts["samples"]) == (None, None, {})
    run(case, tiny_teacher_path, tiny_run, tmp_path / "watched")
    assert json.loads((tmp_path / "watched" / PROVENANCE).read_text())["shards"] == str(tiny_run)


def test_a_network_whose_last_layer_does_not_make_its_logits_is_not_masked(tmp_path: Path) -> None:
    card = digits_card(
        architecture="squeezenet1_1", width=1.0, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match="squeezenet1_1 can't be masked in its last layer"):
        run("edit masked-logit", tmp_path / "teacher.safetensors", tmp_path, tmp_path / "run", shards=None)
    assert not (tmp_path / "run").exists()


def test_settings_out_of_range_name_the_setting() -> None:
    for settings_class in METHOD_SETTINGS.values():
        with pytest.raises(ValueError, match="batch size must be 2 or more, not 1"):
            dataclasses.replace(settings_class(), batch_size=1)


@pytest.mark.parametrize("method", sorted(set(METHODS.names()) - {"distill"}))
def test_the_commands_defaults_are_the_settings(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[runs.Request] = []
    monkeypatch.setattr(runs, "unlearn", lambda request, say: requests.append(request))
    needs_teacher = methods.needs_teacher(methods.find(method))
    source = ["--teacher", "t.safetensors"] if needs_teacher else ["--shards", "somewhere"]
    arguments = [method, *source, "--forget", "3,0", "--out", "somewhere", "--device", "cpu"]
    changes = ["--batch-size", "77", *(["--patience", "9"] if needs_teacher else [])]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, *changes]).exit_code == 0
    by_default, changed = requests
    assert by_default.settings == METHOD_SETTINGS[method]()
    assert by_default.loop == (LoopSettings() if needs_teacher else methods.find(method).LOOP)
    assert by_default.forget == ("3,0",)
    assert changed.settings == METHOD_SETTINGS[method](batch_size=77)
    assert changed.loop.patience == (9 if needs_teacher else by_default.loop.patience)


def test_flags_change_the_settings_of_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[runs.Request] = []
    monkeypatch.setattr(runs, "unlearn", lambda request, say: requests.append(request))
    arguments = ["gkt", "--preset", "published", "--rounds", "7", "--forget", "0", "--out", "somewhere"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert requests[0].settings == dataclasses.replace(METHOD_PRESETS["gkt", "published"], rounds=7)


def test_a_student_starts_from_other_weights_than_a_teacher_of_its_seed(tiny_teacher: Classifier) -> None:
    """Otherwise it would learn what the teacher memorised from images that show nothing of it."""
    for seed in range(3):
        student = Inputs(tiny_teacher, tiny_teacher.card, (0,), seed, "cpu").new_student()
        again = Inputs(tiny_teacher, tiny_teacher.card, (0,), seed, "cpu").new_student()
        teachers = Classifier.untrained(tiny_teacher.card, seed)
        for name, weights in student.named_parameters():
            assert torch.equal(weights, again.get_parameter(name))
            assert weights.std() == 0 or not torch.equal(weights, teachers.get_parameter(name))

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synth.basics.disk import sha256_of
from synth.basics.errors import UsageError
from synth.shards.index import read_index
from synth.shards.store import Folder
from tests.runs import digests
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.run.request import Request
from unlearn.run.rounds import unlearn


def test_a_second_round_learns_images_that_are_made_against_the_first_student(
    tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    request = Request(
        method="distill",
        settings=DistillSettings(steps=3, batch_size=8, gate=1.0),
        loop=LOOP,
        teacher=tiny_teacher_path,
        shards=str(tiny_run),
        forget=(0,),
        out=tmp_path / "out",
        rounds=2,
    )
    said: list[str] = []
    unlearn(request, said.append)
    first, second = read_index(Folder(tiny_run)).card, read_index(Folder(tmp_path / "out-rounds" / "shards-2")).card
    student = tmp_path / "out-rounds" / "student-1" / "student.safetensors"
    assert second.plan == replace(first.plan, classes=tuple(range(1, 10)), seed=first.plan.seed + 1)
    assert second.settings == {**first.settings, "student_sha256": sha256_of(student.read_bytes())}
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert facts["shards"] == [str(tiny_run), str(tmp_path / "out-rounds" / "shards-2")]
    assert sum(facts["samples"].values()) == 3 * (100 + 90)  # each image, and its two views
    assert [line for line in said if line.startswith("round")] == ["round 1 of 2", "round 2 of 2"]
    made = digests(tmp_path / "out")
    unlearn(replace(request, resume=True), said.append)
    assert digests(tmp_path / "out") == made
    with pytest.raises(UsageError, match="--rounds needs the teacher"):
        unlearn(replace(request, teacher=None, out=tmp_path / "other"), said.append)
    assert not (tmp_path / "other-rounds").exists()

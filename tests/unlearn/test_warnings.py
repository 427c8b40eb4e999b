"""What a run says about inputs that it can use, but that make a poor student."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.checkpoint.classifier import Classifier
from synth.shards.plan import Plan
from tests.runs import QUICK, make_run, recipe_for
from unlearn.commands.main import main


@pytest.mark.parametrize(("classes", "warned"), [((0, 1, 2), True), (tuple(range(10)), False)])
def test_shards_that_lack_classes_to_retain_are_named(
    classes: tuple[int, ...], warned: bool, tiny_teacher: Classifier, tmp_path: Path
) -> None:
    make_run(tmp_path / "shards", recipe_for(tiny_teacher, QUICK), Plan(classes=classes, per_class=6, shard_size=60))
    given = ["distill", "--shards", str(tmp_path / "shards"), "--forget", "0", "--steps", "2", "--gate", "1"]
    done = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.stderr
    line = "warning: the shards have images of 2 of the 9 classes to retain: the student will not know the others"
    assert (line in done.stdout) == warned

"""The programs of docs/streaming.md, run in two processes exactly as they are printed there."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from s3_server import free_ports

from synth.checkpoint.classifier import Classifier
from synth.shards.index import read_index, read_shard
from synth.shards.plan import Plan
from synth.shards.store import Folder
from synth.shards.view_recipes import PARTNER
from synth.shards.views import compose
from tests.runs import make_run, recipe_for

ROOT = Path(__file__).parents[2]
RECIPES = {
    re.match(r"# (\w+)\.py", code)[1]: code  # type: ignore[index]
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "streaming.md").read_text(), re.DOTALL)
}


def run_in_two_processes(script: Path, run: Path) -> list[str]:
    """The lines that both processes print."""
    port = free_ports(1)[0]
    command = [sys.executable, "-u", str(script), str(run)]
    both = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
        environment |= {name: str(value) for name, value in place.items()}
        both.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    lines = []
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        lines += out.splitlines()
    return lines


@pytest.mark.filterwarnings("ignore:String specifications")
def test_the_views_of_a_run_are_composed_with_wids(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wids")
    script = tmp_path / "views.py"
    script.write_text(RECIPES["views"])
    monkeypatch.setattr(sys, "argv", [str(script), str(tiny_run)])
    found = runpy.run_path(str(script))
    samples = read_shard(Folder(tiny_run), index := read_index(Folder(tiny_run)), index.entries[0])
    expected = [
        f"{number} {recipe[PARTNER]} torch.Size([1, 1, 28, 28]) {answer.argmax()}"
        for number in range(3)
        for recipe, answer in zip(samples.views[number], samples.logits[number, 1:], strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == expected
    recipe = samples.views[2, 1]
    partner = torch.from_numpy(samples.images[recipe[PARTNER]][None])
    last = compose(torch.from_numpy(samples.images[2:3]), partner, torch.from_numpy(recipe[None]))
    assert torch.equal(found["x"], last)


@pytest.mark.parametrize("name", ["train", "plain"])
def test_two_processes_see_every_sample_once_per_epoch(name: str, tiny_teacher: Classifier, tmp_path: Path) -> None:
    if name == "train":
        pytest.importorskip("accelerate", reason="accelerate is not installed: pip install '.[test]'")
    make_run(tmp_path / "run", recipe_for(tiny_teacher), Plan(classes=tuple(range(10)), per_class=6, shard_size=20))
    script = tmp_path / f"{name}.py"
    script.write_text(RECIPES[name])
    pattern = r"epoch (\d) rank (\d): (\d+) samples in (\d+) steps"
    lines = run_in_two_processes(script, tmp_path / "run")
    found = [tuple(map(int, m.groups())) for line in lines if (m := re.match(pattern, line))]
    assert sorted((epoch, rank) for epoch, rank, _, _ in found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for epoch in (0, 1):
        assert sum(samples for at, _, samples, _ in found if at == epoch) == 60  # of 3 shards
    if name == "train":
        assert len({steps for _, _, _, steps in found}) == 1

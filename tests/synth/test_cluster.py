"""The executor on Ray. One Ray with two workers serves the whole file."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest
import torch
from s3_server import KEY, SECRET

from synth.basics.disk import sha256_of
from synth.basics.errors import UsageError, UserError
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.making.gate import QualityGate
from synth.making.make import JobResult, Recipe, make_shard
from synth.making.pulse import Beat
from synth.run.publish import open_run, publish, verify
from synth.shards.index import GENERATOR, read_index
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder, open_store
from tests.faults import put_hostile_modules, wait_until
from tests.runs import QUICKEST, card_for, digests, digits_card, generate_options, make_run, recipe_for, synth_command
from tests.synth.test_methods import QUICK_SETTINGS

ray = pytest.importorskip("ray")

from synth.executors import ray as cluster  # noqa: E402
from synth.executors.dispatch import FailedJobError, LostWorkerError  # noqa: E402
from synth.executors.handover import Staged, StagingArea  # noqa: E402
from synth.executors.head import host_and_port  # noqa: E402
from synth.executors.ray import (  # noqa: E402
    RayBackend,
    Workers,
    connected,
    last_line,
    on_ray,
    workers_that_fit,
)

pytestmark = pytest.mark.ray

PLAN = Plan(classes=tuple(range(10)), per_class=6, shard_size=10, views=1, seed=5)  # 6 shards
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
Task = Callable[[ShardJob, Recipe], JobResult]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[str]:
    """A Ray of the tests' own, and the words that name it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        for name in CREDENTIALS:  # the workers have none
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        with connected("local", Workers(count=2)) as where:
            yield where


@pytest.fixture(scope="module")
def recipe(tiny_teacher: Classifier) -> Recipe:
    return recipe_for(tiny_teacher)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """The same run made in this process, without Ray."""
    path = tmp_path_factory.mktemp("reference") / "run"
    make_run(path, recipe, PLAN)
    return path


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], None]:
    """Replaces what the workers do for a shard by a function."""
    return lambda function: monkeypatch.setattr(cluster, "make_shard", function)


@pytest.mark.parametrize(("count", "by"), [(1, "head"), (2, "auto"), (2, "workers")])
def test_any_number_of_workers_gives_the_bytes_of_one_process(
    ray_here: str, reference: Path, tmp_path: Path, recipe: Recipe, count: int, by: str
) -> None:
    assert ray_here == "a new local Ray with 2 workers"
    said: list[str] = []
    make_run(tmp_path / "run", recipe, PLAN, on_ray(Workers(count=count), say=said.append), by=by)
    assert digests(tmp_path / "run") == digests(reference)
    by_workers = [] if by == "head" else [f"the workers publish their shards in {tmp_path}/run themselves"]
    assert about_publishing(said) == by_workers


def about_publishing(said: list[str]) -> list[str]:
    """The lines about it. On a busy machine others say that the run waits for workers."""
    return [line for line in said if "publish" in line]


def test_workers_without_the_credentials_of_the_storage_let_the_head_publish(
    ray_here: str, reference: Path, recipe: Recipe, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(CREDENTIALS, (KEY, SECRET, f"http://127.0.0.1:{s3_port}"), strict=True):
        monkeypatch.setenv(name, value)
    store, said = open_store(f"s3://runs/{uuid.uuid4()}"), []
    index = open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    publish(store, index, recipe, on_ray(Workers(count=2), say=said.append), lambda samples: None, by="auto")
    assert {name: sha256_of(store.read(name, 2**20)) for name in store.names()} == digests(reference)
    (line,) = about_publishing(said)
    assert re.match(
        r"the head publishes the shards of node \w+: s3://runs/.*: there are no credentials for s3://", line
    )


@pytest.mark.parametrize("by", ["auto", "workers"])
def test_what_only_a_worker_sees_of_a_folder_is_made_again_for_the_head(
    ray_here: str, reference: Path, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """As with an overlay: the worker sees what the driver wrote, but not the other way round."""
    missed: list[Staged] = []

    def is_there(staged: Staged, area: StagingArea) -> bool:
        missed.append(staged)
        return False

    monkeypatch.setattr(cluster, "is_there", is_there)
    said: list[str] = []
    execute = on_ray(Workers(count=2), say=said.append)
    if by == "workers":
        with pytest.raises(
            UserError, match=r"the driver does not see in .*/run what node \w+ wrote there: use a shared"
        ):
            make_run(tmp_path / "run", recipe, PLAN, execute, by=by)
    else:
        make_run(tmp_path / "run", recipe, PLAN, execute, by=by)
        assert digests(tmp_path / "run") == digests(reference)
        assert len(missed) == 2  # the shards that were in work
        (line,) = about_publishing(said)
        assert line.startswith(f"the head publishes the shards: the driver does not see in {tmp_path}/run what node ")


def test_the_driver_hears_how_far_shards_are_and_sees_images_of_the_first(
    ray_here: str, recipe: Recipe, tmp_path: Path, task: Callable[[Task], None]
) -> None:
    def slow(job: ShardJob, recipe: Recipe) -> JobResult:
        from synth.basics.ticks import tick, watch_now

        watch = watch_now.get()
        assert watch is not None
        watch.report.picture_due = 0.0  # type: ignore[attr-defined]
        tick(1, 4, lambda: (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1])))
        while not (tmp_path / "heard").exists():
            time.sleep(0.1)
        return JobResult(b"made")

    heard: list[Beat] = []

    def hear(beats: list[Beat]) -> None:
        heard.extend(beats)
        if {(beat.number, beat.share) for beat in heard} >= {(0, 0.25), (1, 0.25)}:
            (tmp_path / "heard").touch()

    task(slow)
    jobs = list(PLAN.jobs())[:2]
    assert len(list(on_ray(Workers(count=2))(jobs, recipe, heard=hear))) == 2
    pictures = [beat for beat in heard if beat.picture]
    assert [beat.number for beat in pictures] == [0]
    assert pictures[0].picture is not None
    assert pictures[0].picture.startswith(b"\xff\xd8\xff")  # a JPEG


def test_the_gates_counts_come_back_from_the_workers(ray_here: str, recipe: Recipe, tmp_path: Path) -> None:
    gated = dataclasses.replace(recipe, gate=QualityGate(confidence=0.97, tries=2))
    make_run(tmp_path / "here", gated, PLAN)
    _, index = make_run(tmp_path / "ray", gated, PLAN, on_ray(Workers(count=2)))
    assert sum(entry.counts.again or 0 for entry in index.entries.values()) > 0
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")


@pytest.mark.parametrize("method", ["fast", "generator"])
def test_a_generator_is_trained_once_and_shipped_to_every_worker(
    ray_here: str, tmp_path: Path, tiny_teacher: Classifier, method: str
) -> None:
    recipe = dataclasses.replace(recipe_for(tiny_teacher, QUICK_SETTINGS[method]), method=method)
    make_run(tmp_path / "one", recipe, PLAN)
    make_run(tmp_path / "two", recipe, PLAN, on_ray(Workers(count=2)))
    assert GENERATOR in digests(tmp_path / "two")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_a_worker_searches_the_path_of_its_own_python_only(
    ray_here: str, recipe: Recipe, task: Callable[[Task], None]
) -> None:
    def path(job: ShardJob, recipe: Recipe) -> JobResult:
        return JobResult("\n".join(sys.path).encode())

    task(path)
    made = next(on_ray(Workers(count=1))(PLAN.jobs(), recipe))
    assert made.data is not None
    searched = {Path(folder).resolve() for folder in made.data.decode().splitlines()}
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    drivers = {Path.cwd(), Path.home(), Path(sys.argv[0]).parent} - {Path(folder) for folder in given if folder}
    assert searched
    assert not searched & {folder.resolve() for folder in drivers}


OWN = """
import torch
def build(channels, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * 28 * 28, classes))
"""


def test_a_worker_finds_the_users_own_architecture_in_the_drivers_working_folder(
    ray_here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all other places, and although the worker works in another folder."""
    (tmp_path / "net_of_the_user.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    architecture = "net_of_the_user:build"
    card = digits_card(architecture=architecture, width=1.0)
    recipe = recipe_for(Classifier.untrained(card, 0), dataclasses.replace(QUICKEST, bn=0.0))
    recipe = dataclasses.replace(recipe, trusted_architecture=architecture)
    made = next(on_ray(Workers(count=1))(PLAN.jobs(), recipe))
    assert made.data is not None, made.error


def test_a_killed_worker_loses_no_sample(
    ray_here: str, reference: Path, tmp_path: Path, recipe: Recipe, task: Callable[[Task], None]
) -> None:
    marker = tmp_path / "killed"

    def die_once(job: ShardJob, recipe: Recipe) -> JobResult:
        made = make_shard(job, recipe)
        if job.number == 4 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    task(die_once)
    make_run(tmp_path / "run", recipe, PLAN, on_ray(Workers(count=2)))
    assert marker.exists()
    assert digests(tmp_path / "run") == digests(reference)


def test_a_task_that_raises_is_tried_again_and_named_if_it_never_works(
    ray_here: str, reference: Path, tmp_path: Path, recipe: Recipe, task: Callable[[Task], None]
) -> None:
    def unlucky(job: ShardJob, recipe: Recipe) -> JobResult:
        tries = len(list(tmp_path.glob(f"try-{job.number}-*")))
        (tmp_path / f"try-{job.number}-{tries}").touch()
        if job.number == 2 or (job.number == 3 and tries == 0):
            raise RuntimeError(f"cosmic ray in shard {job.number}")
        return make_shard(job, recipe)

    task(unlucky)
    words = "1 of 6 shards failed: 2; first error: after 2 retries, RuntimeError: cosmic ray in shard 2"
    with pytest.raises(UserError, match=words):
        make_run(tmp_path / "run", recipe, PLAN, on_ray(Workers(count=2)))
    assert len(list(tmp_path.glob("try-2-*"))) == 3
    assert len(list(tmp_path.glob("try-3-*"))) == 2
    assert sorted(read_index(Folder(tmp_path / "run")).entries) == [0, 1, 3, 4, 5]
    make_run(tmp_path / "run", recipe, PLAN, resume=True)
    assert digests(tmp_path / "run") == digests(reference)


def test_a_user_error_of_a_worker_arrives_as_it_was_raised(
    ray_here: str, tmp_path: Path, recipe: Recipe, task: Callable[[Task], None]
) -> None:
    def hopeless(job: ShardJob, recipe: Recipe) -> JobResult:
        raise UserError("the teacher gives NaN: use another checkpoint")

    task(hopeless)
    with pytest.raises(UserError) as caught:
        make_run(tmp_path / "run", recipe, PLAN, on_ray(Workers(count=2)))
    assert str(caught.value) == "the teacher gives NaN: use another checkpoint"
    _, problems = verify(Folder(tmp_path / "run"))
    assert len(problems) == 1  # the run is not complete, and nothing else


def test_jobs_are_submitted_as_workers_come_free(ray_here: str, recipe: Recipe, task: Callable[[Task], None]) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[ShardJob]:
        for job in Plan(classes=(0,), per_class=10**9, shard_size=10).jobs():
            drawn.append(job.number)
            yield job

    def nothing(job: ShardJob, recipe: Recipe) -> JobResult:
        return JobResult(b"%d" % job.number)

    task(nothing)
    made = on_ray(Workers())(endless(), recipe)
    seen = [next(made) for _ in range(20)]
    assert all(one.data == b"%d" % one.job.number for one in seen)
    assert len(drawn) <= 20 + 4  # two for each of the two workers are on their way
    made.close()  # type: ignore[attr-defined]


HEAD, WORKER = {"Alive": True, "Resources": {}}, {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}


def test_a_cancelled_attempt_frees_its_worker_and_the_driver_itself_cancels_nothing(
    ray_here: str, recipe: Recipe, tmp_path: Path, task: Callable[[Task], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(job: ShardJob, recipe: Recipe) -> JobResult:
        (tmp_path / f"begun-{job.number}").touch()
        while job.number < 2:
            time.sleep(0.1)
        return JobResult(b"made")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("Ray may end a driver that cancels a task at the moment that it ends")

    task(hang)
    monkeypatch.setattr(ray, "cancel", refused)
    backend = RayBackend(Workers(count=2), recipe)
    jobs = list(PLAN.jobs())
    stuck = [backend.submit(job, frozenset()) for job in jobs[:2]]  # on both workers
    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "two attempts to begin")
    third = backend.submit(jobs[2], frozenset())
    for handle in stuck:
        backend.cancel(handle)
    assert backend.wait([third], 60.0) == [third]
    assert backend.result(third).data == b"made"


OUTCOME = re.compile(r'^ray_synth_shards_total\{.*outcome="([a-z]+)".*\} ([0-9.]+)$', re.MULTILINE)
IMAGES = re.compile(r"^ray_synth_images_total\{.*\} ([0-9.]+)$", re.MULTILINE)


def counts() -> Counter[str]:
    """The attempts by outcome, and the images, as Prometheus would read them."""
    found: Counter[str] = Counter()
    for node in ray.nodes():
        with urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for outcome, value in OUTCOME.findall(text):
            found[outcome] += int(float(value))
        for value in IMAGES.findall(text):
            found["images"] += int(float(value))
    return found


def settled_counts() -> Counter[str]:
    """The counts, once two seconds have changed nothing."""
    while True:
        before = counts()
        time.sleep(2)
        if counts() == before:
            return before


def test_the_metrics_count_each_attempt_by_its_outcome(
    ray_here: str, recipe: Recipe, task: Callable[[Task], None]
) -> None:
    def fated(job: ShardJob, recipe: Recipe) -> JobResult:
        if job.number == 0:
            raise UserError("the teacher gives NaN: use another checkpoint")
        if job.number == 1:
            raise RuntimeError("cosmic ray")
        if job.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return JobResult(b"made")

    task(fated)
    before = settled_counts()
    backend = RayBackend(Workers(count=2), recipe)
    for job, error in zip(PLAN.jobs(), (UserError, FailedJobError, LostWorkerError, None), strict=False):
        handle = backend.submit(job, frozenset())
        wait_until(lambda handle=handle: backend.wait([handle], 1.0) == [handle], "the attempt's end")
        with pytest.raises(error) if error else nullcontext():
            backend.result(handle)
    expected = before + Counter({"raised": 2, "lost": 1, "done": 1, "images": 10})
    wait_until(lambda: counts() == expected, f"the counts {dict(expected)}, not {dict(counts())}")


@pytest.mark.parametrize("count", [None, 8])
def test_the_run_waits_for_a_cluster_that_is_starting(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    nodes, said = [HEAD], []
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: nodes.append(WORKER))
    cluster.wait_for_a_node(Workers(count=count), said.append)
    assert nodes == [HEAD, WORKER]
    assert said[0].startswith("waiting for the first node")


def test_the_run_waits_for_larger_nodes_only_if_workers_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [WORKER])

    def wait(seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr(cluster.time, "sleep", wait)
    cluster.wait_for_a_node(Workers(cpus=5), print)
    with pytest.raises(TimeoutError):
        cluster.wait_for_a_node(Workers(cpus=5, count=8), print)


def test_workers_that_fit_nowhere_are_refused_with_the_cure(ray_here: str) -> None:
    assert workers_that_fit(Workers()) == 2
    cluster.refuse_workers_that_fit_nowhere(Workers())
    for workers in (Workers(cpus=1000), Workers(gpus=1000)):
        with pytest.raises(UserError, match=r"no worker fits.*lower --threads or --gpus-per-worker, or add nodes"):
            cluster.refuse_workers_that_fit_nowhere(workers)


def test_the_command_joins_the_ray_of_the_environment_and_reports_a_failure_in_one_line(
    ray_here: str, tmp_path: Path, tiny_teacher_path: Path, recipe: Recipe
) -> None:
    teacher = load_checkpoint(tiny_teacher_path)
    batch_norm_layers(teacher)[-1].running_var.fill_(-1.0)  # type: ignore[union-attr]
    save_checkpoint(teacher, tmp_path / "nan.safetensors")
    address = ray.get_runtime_context().gcs_address
    paths = ["--out", tmp_path / "run", "--teacher", tmp_path / "nan.safetensors"]
    (tmp_path / "numpy.py").write_text("raise RuntimeError('a module of the working folder was imported')")
    command = synth_command("generate", *generate_options(recipe, PLAN), *paths)
    environment = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    announced, *_, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"on Ray at {address} (cpu)" in announced
    assert error.startswith("error: the synthesis diverged")


def test_a_second_command_starts_a_ray_of_its_own_which_imports_nothing_from_the_working_folder(
    ray_here: str, tmp_path: Path, tiny_teacher_path: Path
) -> None:
    """With the default --address, although the first command's private Ray runs on the same machine."""
    marks = put_hostile_modules(tmp_path)
    command = synth_command("generate", "--per-class=1", "--steps=1", "--teacher", tiny_teacher_path, "--views=0")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    # A folder of its own, because a `ray start` of this machine would be used; a short one, because sockets lie in it.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as environment["RAY_TMPDIR"]:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert re.fullmatch(
        r"10 images of 10 classes in 1 shard, about .*, on a new local Ray with \d+ workers? .*", lines[0]
    )
    assert f"the workers publish their shards in {tmp_path}/shards themselves" in lines
    others = [line for line in lines[1:] if "images" not in line and "publish" not in line]
    assert others == ["the time is known after the first steps"]
    assert list(marks.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "ray://", ":6379", "http://x", "[::1", "x\n:1"],
)
def test_a_malformed_address_is_refused_with_the_forms_that_work(address: str) -> None:
    with pytest.raises(UsageError, match="is not a Ray address: give auto, local, none, HOST:PORT or ray://HOST:PORT"):
        host_and_port(address)


def test_an_address_where_nothing_listens_is_refused() -> None:
    with pytest.raises(UserError, match=r"no Ray answers at 127\.0\.0\.1:1 "), connected("127.0.0.1:1", Workers()):
        pass


def test_the_last_line_of_an_error_is_its_message() -> None:
    assert last_line(RuntimeError("Traceback\n  File x\n\nValueError: bad\n\n")) == "ValueError: bad"
    assert last_line(RuntimeError()) == "RuntimeError"

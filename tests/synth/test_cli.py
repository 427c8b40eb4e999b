import dataclasses
import errno
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
import torch
from torch import nn

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.commands.main import generate, main
from synth.executors.executor import Made, in_process
from synth.making.make import Recipe
from synth.run import generate as generate_module
from synth.run.generate import Request
from synth.run.publish import verify
from synth.shards.index import INDEX, read_index, shard_name
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder
from tests.catalogue import SYNTHESIS_PRESETS, SYNTHESIS_SETTINGS
from tests.runs import QUICK, digests, digits_card, generate_options, make_run, recipe_for, synth_command
from tests.synth.conftest import Run

PLAN = Plan(classes=(0, 3, 4, 8), per_class=60, shard_size=20, seed=2)  # 12 shards
SETTINGS = dataclasses.replace(QUICK, steps=15)


@pytest.fixture(scope="module")
def recipe(tiny_teacher: Classifier) -> Recipe:
    return recipe_for(tiny_teacher, SETTINGS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """The run that no command interrupted. Read only."""
    path = tmp_path_factory.mktemp("reference") / "run"
    make_run(path, recipe, PLAN)
    return path


@pytest.fixture
def ours(tiny_run: Path, tmp_path: Path) -> Path:
    """A complete run of the test's own."""
    return Path(shutil.copytree(tiny_run, tmp_path / "ours"))


def one_line(code: int, out: str, err: str) -> tuple[int, str]:
    """Exit code and message of a command that may print one line alone."""
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return code, err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("", 2, "Missing option '--per-class' / '--per-bin' (see 'synth generate --help')"),
        ("--per-class 0", 2, "--per-class must be 1 or more, not 0"),
        ("--per-class many", 2, "'many' is not a valid integer"),
        ("--per-class 1000000000", 2, "a run holds at most 1,000,000,000"),
        ("--per-class 5 --classes 8-10", 2, "class 10 is out of range: the teacher has 10 classes (0-9)"),
        ("--per-class 5 --classes 5-2", 2, "class '5-2' is no range: write the smaller number first, as in 1-9"),
        ("--per-class 5 --classes one", 2, "the teacher has no class 'one': write a number or a name of '0'"),
        ("--per-class 5 --classes=-1", 2, "the teacher has no class '-1'"),
        (
            "--per-class 5 --teacher nowhere.safetensors",
            1,
            "there is no checkpoint nowhere.safetensors: train one with",
        ),
        ("--per-class 5 --teacher file", 1, "file is truncated or not a safetensors file"),
        ("--per-class 5 --shard-size 0", 2, "--shard-size must be 1 or more, not 0"),
        (
            "--per-class 100000 --shard-size 1000000",
            2,
            "readers accept at most 8,589,934,592: give --shard-size 89",
        ),
        ("--per-class 5 --views=-1", 2, "--views must be within"),
        ("--per-class 5 --seed=-1", 2, "--seed must be within"),
        ("--per-class 5 --steps 0", 2, "steps must be 1 or more, not 0"),
        ("--per-class 5 --lr nan", 2, "lr must be above 0, not nan"),
        ("--per-class 5 --bn=-1", 2, "bn must be 0 or more, not -1.0"),
        ("--per-class 5 --bn-loss odd", 2, "'odd' is not one of"),
        ("--per-class 5 --method odd", 2, "'odd' is not"),
        ("--per-class 5 --device tpu", 2, "'tpu' is not one of"),
        ("--per-class 5 --workers 0", 2, "0 is not in the range"),
        ("--per-class 5 --threads 0", 2, "0 is not in the range"),
        ("--per-class 5 --gpus-per-worker 0", 2, "0.0 is not in the range"),
        ("--per-class 5 --no-such-flag", 2, "No such option"),
        ("--per-class 5 --resume --overwrite", 2, "--resume and --overwrite exclude each other: choose one"),
        ("--per-class 5 --out ftp://host/run", 2, "'ftp://host/run' is not a place for a run: give a folder, s3://"),
        ("--per-class 5 --out file", 1, "a part of the path is a file, not a folder: choose another folder"),
        ("--per-class 5 --out file/run", 1, "a part of the path is a file, not a folder: choose another folder"),
        ("--per-class 5 --out others", 2, "already holds other files (photo.jpg, ...): choose a new folder with --out"),
        ("--per-class 5 --address 127.0.0.1:1", 1, "no Ray answers at 127.0.0.1:1"),
        ("--per-class 5 --address ray://127.0.0.1:1", 1, "no Ray answers at"),
        ("--per-class 5 --generator x", 2, "--generator has no effect on --method deepinversion"),
        ("--per-class 5 --method generator --generator x", 1, "cannot read the generator x: No such file"),
        (
            "--per-class 5 --method generator --generator file",
            1,
            "(truncated or not a safetensors file): make it again",
        ),
        ("--per-class 5 --method fast --generator teacher.safetensors", 1, "is not a generator's checkpoint"),
        ("--per-class 5 --method generator --student x.safetensors", 1, "there is no checkpoint x.safetensors"),
        ("--per-class 5 --method generator --preset published", 2, "--preset published is none of --method generator"),
        ("--per-class 5 --method generator --first-bn 2", 2, "--first-bn has no effect on --method generator"),
        ("--per-class 5 --workers 2", 2, "--workers has no effect with --address none"),
        ("--per-class 5 --gpus-per-worker 1", 2, "--gpus-per-worker has no effect with --address none"),
        ("--per-class 5 --shard-timeout 9", 2, "--shard-timeout has no effect with --address none"),
        ("--per-class 5 --insecure", 2, "--insecure has no effect with --address none"),
        ("--per-class 5 --publish workers", 2, "--publish has no effect with --address none"),
        (
            "--per-class 5 --arch foo:bar",
            2,
            "--arch has no effect on teacher.safetensors, whose architecture is lenet5: leave",
        ),
        ("--per-class 5 --preset warm --start noise", 2, "--start has no effect on --warm-start"),
        ("--per-class 5 --quality-gate high", 2, "'high' is not a quality gate: write it like copies=0.8"),
        ("--per-class 5 --address nonsense", 2, "'nonsense' is not a Ray address: give auto, local, none, HOST:PORT"),
    ],
)
def test_bad_input_is_one_line_with_the_cure(
    run: Run,
    tiny_teacher_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_teacher_path, "teacher.safetensors")
    Path("file").write_text("x")
    Path("others").mkdir()
    Path("others/photo.jpg").write_text("")
    address = [] if "--address" in arguments else ["--address", "none"]
    found, line = one_line(*run("generate", *address, *arguments.split()))
    assert (found, words in line) == (code, True), line
    assert {path.name for path in tmp_path.iterdir()} == {"teacher.safetensors", "file", "others"}


def test_a_host_that_nobody_knows_is_one_line(
    run: Run, tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    options = ["--per-class", 5, "--teacher", tiny_teacher_path, "--out", tmp_path / "run", "--address", "head:6379"]
    code, line = one_line(*run("generate", *options))
    assert code == 1
    assert "no Ray answers at head:6379" in line


def test_a_teacher_without_batch_norm_needs_no_flag_and_a_line_says_why(run: Run, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    save_checkpoint(Classifier(net, digits_card(architecture="tests.runs:bare", width=1.0)), tmp_path / "t.safetensors")
    options = ["generate", "--address", "none", "--per-class", 2, "--teacher", tmp_path / "t.safetensors"]
    options += ["--out", tmp_path / "run", "--steps", 2, "--coarse-steps", 0]
    code, line = one_line(*run(*options))
    assert (code, "if you trust this code, give --arch tests.runs:bare" in line) == (1, True)
    code, _, err = run(*options, "--arch", "tests.runs:bare")
    assert (code, "has no batch norm" in err, "is complete: 1 shard," in err) == (0, True, True)


def test_a_teacher_that_cannot_take_its_own_images_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path
) -> None:
    card = digits_card(architecture="tests.runs:for_32", width=1.0)
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "t.safetensors")
    options = ["--address", "none", "--per-class", 2, "--teacher", tmp_path / "t.safetensors", "--bn", 0]
    code, line = one_line(*run("generate", *options, "--out", tmp_path / "run", "--arch", "tests.runs:for_32"))
    assert (code, "tests.runs:for_32 does not accept images [1, 28, 28] (mat1 and mat2 shapes" in line) == (2, True), (
        line
    )
    assert line.rstrip().endswith("or import it again with the --input-shape of its training")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_one_line(run: Run, tiny_teacher_path: Path, tmp_path: Path) -> None:
    options = ["--per-class", 5, "--teacher", tiny_teacher_path, "--out", tmp_path / "run", "--address", "none"]
    code, line = one_line(*run("generate", *options, "--device", "cuda"))
    assert (code, "this machine has no cuda device: use --device cpu" in line) == (1, True)


def test_an_existing_run_wants_resume_or_overwrite(
    run: Run, recipe: Recipe, reference: Path, tmp_path: Path, tiny_teacher_path: Path
) -> None:
    path = Path(shutil.copytree(reference, tmp_path / "run"))
    command = [
        "generate",
        "--address",
        "none",
        *generate_options(recipe, PLAN),
        "--teacher",
        tiny_teacher_path,
        "--out",
        path,
    ]
    code, line = one_line(*run(*command))
    assert (code, "go on with --resume, replace it with --overwrite" in line) == (2, True)
    code, line = one_line(*run(*command, "--resume", "--steps", 7))
    assert (code, f"its steps is {SETTINGS.steps}, not 7" in line) == (2, True)
    code, _, err = run(*command, "--resume")
    assert (code, "is complete already: 12 shards" in err) == (0, True)
    assert digests(path) == digests(reference)
    (path / shard_name(5)).unlink()
    code, _, err = run(*command, "--overwrite")
    assert (code, "is complete: 12 shards" in err) == (0, True)
    assert digests(path) == digests(reference)


def test_a_full_disk_is_one_line_with_the_cure(
    run: Run, tmp_path: Path, tiny_teacher_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    command = ["generate", "--address", "none", *generate_options(recipe, PLAN), "--teacher", tiny_teacher_path]
    code, line = one_line(*run(*command, "--out", tmp_path / "run"))
    assert (code, "the disk is full: free some space and go on with the same command and --resume" in line) == (1, True)


def test_an_executor_hears_whether_shards_are_there_already(
    run: Run, tmp_path: Path, tiny_teacher_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bool] = []

    def hearing(jobs: Iterable[ShardJob], recipe: Recipe, begun: bool, **others: object) -> Iterator[Made]:
        heard.append(begun)
        yield from itertools.islice(in_process(jobs, recipe), 1)
        raise UserError("no more")

    monkeypatch.setattr("synth.executors.choose.in_process", hearing)
    command = ["generate", "--address", "none", *generate_options(recipe, PLAN), "--teacher", tiny_teacher_path]
    for resume in ([], ["--resume"]):
        assert run(*command, "--out", tmp_path / "run", *resume)[0] == 1
    assert heard == [False, True]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_between_two_shards_with_the_way_on(
    run: Run,
    tmp_path: Path,
    tiny_teacher_path: Path,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
) -> None:
    def interrupted(jobs: Iterable[ShardJob], recipe: Recipe, begun: bool, **others: object) -> Iterator[Made]:
        for made in in_process(jobs, recipe):
            yield made
            signal.raise_signal(sent)

    monkeypatch.setattr("synth.executors.choose.in_process", interrupted)
    command = ["generate", "--address", "none", *generate_options(recipe, PLAN), "--teacher", tiny_teacher_path]
    code, _, err = run(*command, "--out", tmp_path / "run")
    assert code == 130
    assert err.splitlines()[-1].startswith("error: interrupted: the shards published in")
    assert sorted(read_index(Folder(tmp_path / "run")).entries) == [0]


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(["--address", "none"], id="none"),
        pytest.param(["--address", "local", "--workers", "2"], id="local", marks=pytest.mark.ray),
    ],
)
def test_ctrl_c_keeps_what_is_published_and_resume_gives_the_same_bytes(
    run: Run, reference: Path, tmp_path: Path, tiny_teacher_path: Path, recipe: Recipe, where: list[str]
) -> None:
    path = tmp_path / "run"
    options = [*generate_options(recipe, PLAN), "--teacher", tiny_teacher_path, "--out", path]
    process = subprocess.Popen(  # a session of its own, so that Ctrl-C reaches Ray's processes too, as in a terminal
        synth_command("generate", *where, *options), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and len(list(path.glob("shard-*.tar"))) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    announced, preset, time_left, *lines, error = err.splitlines()
    assert preset.startswith("preset tuned for small images")
    assert announced.startswith("240 images of 4 classes in 12 shards")
    assert time_left == "the time is known after the first steps"
    # On a slow machine workers start late, and so may a shard be; then another worker makes it as well.
    strange = [line for line in lines if not line.startswith(("the workers publish", "shard ", "waiting for workers"))]
    assert not [line for line in strange if "of 240 images" not in line]
    assert error == (
        f"error: interrupted: the shards published in {path} are valid; go on with the same command and --resume"
    )
    index, problems = verify(Folder(path))
    assert 1 <= len(index.entries) < 12
    assert problems == [f"{path} is not complete: {len(index.entries)} of 12 shards are published"]
    code, _, _ = run("generate", "--address", "none", *options, "--resume")
    assert code == 0
    assert digests(path) == digests(reference)


def test_verify_prints_each_problem_on_a_line_and_fails(run: Run, ours: Path) -> None:
    code, out, err = run("verify", ours)
    assert (code, out, err) == (0, f"{ours}: 4 shards, 100 images, all as the index says\n", "")
    data = bytearray((ours / shard_name(2)).read_bytes())
    data[1000] ^= 1
    (ours / shard_name(2)).write_bytes(bytes(data))
    (ours / shard_name(3)).unlink()
    code, out, err = run("verify", ours)
    assert (code, out) == (1, "")
    damaged, missing = err.splitlines()
    assert damaged.startswith(f"error: {ours}/{shard_name(2)} is damaged (its sha256 differs from the index)")
    assert missing.startswith(f"error: {ours}/{shard_name(3)} is missing: make it again")


@pytest.mark.parametrize("command", ["verify", "status", "preview"])
def test_a_run_that_is_not_there_is_one_line(run: Run, tmp_path: Path, command: str) -> None:
    code, line = one_line(*run(command, tmp_path / "nowhere"))
    assert (code, "there is no run in" in line) == (1, True)
    (tmp_path / INDEX).write_bytes(b"[" * 100_000)
    code, line = one_line(*run(command, tmp_path))
    assert (code, "is not an index of 'synth generate'" in line) == (1, True)
    code, line = one_line(*run(command, tmp_path / ("a" * 300)))
    assert (code, "File name too long" in line) == (1, True)
    assert one_line(*run(command))[0] == 2


def test_status_and_preview_show_a_run(run: Run, tiny_run: Path, tmp_path: Path) -> None:
    code, out, err = run("status", tiny_run)
    assert (code, err, f"{tiny_run}: complete" in out) == (0, "", True)
    code, out, err = run("preview", tiny_run, "-o", tmp_path / "grid.png", "--columns", 2)
    assert (code, out, err) == (0, f"wrote {tmp_path / 'grid.png'}\n", "")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "no").touch()
    code, line = one_line(*run("preview", tiny_run, "-o", tmp_path / "no" / "grid.png"))
    assert (code, "it is a file, not a folder" in line) == (1, True)


def test_the_place_of_a_run_is_not_taken_for_that_of_a_preview(
    run: Run, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTH_OUT", "newrun")
    assert run("preview", tiny_run) == (0, "wrote grid.png\n", "")
    monkeypatch.setenv("SYNTH_PREVIEW_OUT", "other.png")
    assert run("preview", tiny_run) == (0, "wrote other.png\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", "other.png"}


def test_the_bare_command_and_help_show_the_commands(run: Run) -> None:
    for arguments in ([], ["--help"]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert all(name in out for name in ("generate", "verify", "status", "preview"))
    assert run("--version")[0] == 0
    assert one_line(*run("no-such-command"))[0] == 2


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["verify", "--help"]])
def test_help_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    script = (
        "import sys; from synth.commands.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print({'torch', 'ray', 'numpy', 'PIL'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert "Usage:" in done.stdout
    assert done.stderr == "set()\n"


def test_without_ray_the_message_says_how_to_install_it(tiny_teacher_path: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['ray'] = None; from synth.commands.main import main; main()"
    options = ["--per-class", "2", "--teacher", str(tiny_teacher_path), "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", script, "generate", *options], capture_output=True, text=True)
    code, line = one_line(done.returncode, done.stdout, done.stderr)
    assert code == 1
    assert "install it with pip install '.[cluster]', or use --address none to work without Ray" in line


def requested(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Request:
    """What the command line asks of the library."""
    seen: list[Request] = []
    monkeypatch.setattr(generate_module, "generate_run", lambda request, say: seen.append(request))
    code, _, err = run("generate", *arguments)
    assert (code, err) == (0, "")
    return seen[0]


def other_value(field: dataclasses.Field[typing.Any], default: typing.Any) -> typing.Any:
    """A permitted value of a setting that is not its default."""
    if isinstance(default, bool) or field.type == "bool | None":
        return not default
    if choices := field.metadata.get("choices"):
        return next(choice for choice in choices if choice != default)
    if isinstance(default, float):
        return default / 2 or 0.5  # within the range of shares too
    return (default or 0) + 1


@pytest.mark.parametrize("method", SYNTHESIS_SETTINGS)
def test_no_flags_are_the_settings_defaults_and_each_flag_changes_its_field(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("SYNTH_PER_CLASS", "1")
    defaults = requested(run, monkeypatch, "--method", method).settings
    assert defaults == SYNTHESIS_PRESETS.get((method, "tuned"), SYNTHESIS_SETTINGS[method]())
    for field in dataclasses.fields(defaults):
        value = other_value(field, getattr(defaults, field.name))
        flag = "--" + field.name.replace("_", "-")
        arguments = [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [f"{flag}={value}"]
        changed = requested(run, monkeypatch, "--method", method, *arguments).settings
        assert changed == dataclasses.replace(defaults, **{field.name: value})


@pytest.mark.parametrize(("method", "preset"), SYNTHESIS_PRESETS)
def test_a_preset_is_where_the_flags_start_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: str, preset: str
) -> None:
    arguments = ["--per-class", "1", "--method", method, "--preset", preset, "--steps", "4321"]
    found = requested(run, monkeypatch, *arguments).settings
    assert found == dataclasses.replace(SYNTHESIS_PRESETS[method, preset], steps=4321)


def test_every_option_can_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(
        generate, info_name="generate", parent=click.Context(main, info_name="synth"), **generate.context_settings
    )
    options = [option for option in generate.params if isinstance(option, click.Option)]
    assert len(options) > 20
    for option in options:
        assert option.name is not None
        monkeypatch.setenv(f"SYNTH_{option.name.upper()}", "from the environment")
        written = "from the environment"
        assert option.value_from_envvar(context) == ([written] if option.multiple else written), option.name
        monkeypatch.delenv(f"SYNTH_{option.name.upper()}")
    monkeypatch.setenv("SYNTH_TEACHER", "elsewhere.safetensors")
    monkeypatch.setenv("SYNTH_STEPS", "77")
    monkeypatch.setenv("SYNTH_CLASSES", "1-3")
    monkeypatch.setenv("SYNTH_PER_CLASS", "5")
    request = requested(run, monkeypatch)
    assert (request.teacher, request.per_class) == (Path("elsewhere.safetensors"), 5)
    assert (request.settings.steps, request.classes) == (77, ("1-3",))


def test_an_interruption_while_a_generator_is_trained_says_how_to_go_on(
    run: Run, tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate_module, "provide_generator", interrupted)
    options = ["--teacher", tiny_teacher_path, "--address=none", "--method=generator", "--per-class=1"]
    code, _, said = run("generate", *options, "--out", tmp_path / "run")
    assert code == 130
    assert said.splitlines()[-1].startswith("error: interrupted before the first shard; ")
    assert "--resume" in said.splitlines()[-1]

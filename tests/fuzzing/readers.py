"""The readers of files from elsewhere: valid files, how they are changed, and the product's own function."""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth.basics.way_on import WayOn
from synth.checkpoint.card import ModelCard
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.importing.class_names import names_from_file
from synth.commands.main import main as synth_main
from synth.commands.options import settings_from_flags
from synth.methods.networks import parse_generator
from synth.run.lock import LOCK, locked
from synth.run.view import describe
from synth.shards.index import read_index
from synth.shards.read import decode_shard
from synth.shards.samples import Samples
from synth.shards.store import Folder
from synth.shards.view_recipes import PARTNER
from synth.shards.views import compose
from tests.fuzzing import seeds
from tests.fuzzing.bytewise import Mutation, bytewise
from tests.fuzzing.pickles import mutate_torch_file
from tests.fuzzing.pictures import mutate_jpeg, mutate_png
from tests.fuzzing.tars import mutate_shard
from tests.fuzzing.tensors import mutate_safetensors
from tests.fuzzing.values import in_other_form, mutate_json, mutate_lines, mutate_text
from unlearn import data_sets
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.record.origin import describe_origin
from unlearn.commands.main import main as unlearn_main
from unlearn.commands.unlearning import checked_settings
from unlearn.data import load_images
from unlearn.report.file import CLOSE, OPEN, read_report
from unlearn.report.places import Places, locate
from unlearn.report.replay.remake import run_request
from unlearn.report.replay.replay import audit_request
from unlearn.report.verify.verify import verify
from unlearn.run.folder import RunFolder

WAY_ON = WayOn(command="synth generate")
JSON: tuple[Mutation, ...] = (mutate_json, mutate_json, mutate_json, mutate_json, in_other_form)


@dataclass(frozen=True)
class Reader:
    """Who reads a kind of file.

    Args:
        valid: valid files by name; an input is one of them, changed.
        mutations: what changes one.
        read: the product's function, called with the folder that holds the file.
        beside: other files in that folder, by name.
        odd: further files to change, which the reader may refuse as they are.
        weight: how often its inputs come, beside the other readers'.
    """

    name: str
    valid: Sequence[tuple[str, bytes]]
    mutations: Sequence[Mutation]
    read: Callable[[Path], object]
    beside: Mapping[str, bytes] = field(default_factory=dict)
    weight: float = 1.0
    odd: Sequence[tuple[str, bytes]] = ()


def readers(teacher: Path, run: Path, audited: Path, page: Path) -> list[Reader]:
    """Every reader. The arguments are a checkpoint, a run of `synth generate`, an audit and its page."""
    model = load_checkpoint(teacher)
    with tempfile.TemporaryDirectory() as temporary:
        run_files = seeds.student_run(run, Path(temporary) / "student")
    record = seeds.record(audited, run_files)
    written = json.dumps(record).encode()
    layout = read_index(Folder(run)).card.layout

    def read_checkpoint(place: Path) -> object:
        return load_checkpoint(place / "teacher.safetensors")

    def read_state_dict(place: Path) -> object:
        options = [f"--{name}={value}" for name, value in import_options(model.card).items()]
        arguments = [str(only_file(place)), *options, "--out", str(place / "out" / "imported.safetensors")]
        return unlearn_main.commands["import"].main(arguments, "import", standalone_mode=False)

    def read_shard(place: Path) -> object:
        file = only_file(place)
        read = decode_shard(file.read_bytes(), "shard", dataclasses.replace(layout, image_format=file.stem))
        return all_views(read)

    indexes = seeds.indexes(run)
    digits = torch.arange(784, dtype=torch.uint8).view(1, 28, 28).repeat(12, 1, 1), torch.arange(12) % 10
    raw = {f"MNIST/raw/{name}": data for name, data in seeds.idx(*digits).items()}
    images = {f"test/0/{name}": data for name, data in seeds.pictures().items()}
    return [
        Reader(
            "checkpoint",
            [("teacher.safetensors", teacher.read_bytes())],
            (mutate_safetensors, mutate_safetensors, bytewise),
            read_checkpoint,
            weight=4,
        ),
        Reader(
            "generator",
            [("generator.safetensors", seeds.generator(model))],
            (mutate_safetensors, mutate_safetensors, bytewise),
            lambda place: parse_generator((place / "generator.safetensors").read_bytes(), "the generator"),
            weight=8,
        ),
        Reader(
            "state dict",
            list(seeds.state_dicts(teacher).items()),
            (mutate_torch_file, mutate_torch_file, mutate_torch_file, bytewise),
            read_state_dict,
            weight=4,
            odd=list(seeds.odd_state_dicts(teacher).items()),
        ),
        Reader(
            "index",
            [(Path(name).name, data) for name, data in indexes.items()],
            JSON,
            lambda place: describe(Folder(place)),
            weight=28,
        ),
        Reader("shard", seeds.shards(run), (mutate_shard, mutate_shard, mutate_shard, bytewise), read_shard, weight=28),
        Reader(
            "lock",
            [(LOCK, data) for data in seeds.locks(run).values()],
            JSON,
            take_lock,
            weight=2,
        ),
        Reader(
            "image",
            [image for image in images.items() if not image[0].endswith(".gif")],
            (by_format, by_format, bytewise),
            lambda place: load_images(str(place), "test"),
            weight=20,
            odd=[image for image in images.items() if image[0].endswith(".gif")],
        ),
        Reader(
            "audit record",
            [("audit.json", written)],
            JSON,
            lambda place: judge_record(place / "audit.json"),
            weight=0.7,
        ),
        Reader(
            "report page",
            [("report.html", seeds.embedded(page.read_text(), record))],
            (mutate_page, mutate_page, bytewise),
            lambda place: judge_record(place / "report.html"),
            weight=0.06,
        ),
        Reader("settings of a command", settings_files(run, run_files, written), JSON, start_from, weight=3),
        Reader(
            "run of a student",
            [
                (name, run_files[name])
                for name in ("settings.json", "provenance.json", "metrics.jsonl", "checkpoint.pt")
            ],
            (mutate_run_file,),
            lambda place: resume(place, json.loads(run_files["settings.json"])),
            run_files,
            weight=0.7,
        ),
        Reader(
            "class names",
            [("names.txt", b"cat\ndog\n"), ("names.json", b'["cat", "dog"]'), ("map.json", b'{"cat": 0, "dog": 1}')],
            (bytewise,),
            lambda place: names_from_file(only_file(place)),
            weight=8,
        ),
        Reader(
            "table",
            list(seeds.tables().items()),
            (bytewise,),
            lambda place: load_images(str(next(place.glob("*.csv"))), "test"),
            {"a.png": images["test/0/a.png"]},
            weight=4,
        ),
        Reader(
            "foreign shard",
            [("test.tar", seeds.foreign_shard(seeds.pictures()))],
            (mutate_shard, bytewise),
            lambda place: load_images(str(place / "test.tar"), "test"),
            weight=8,
        ),
        Reader(
            "parquet",
            [("test.parquet", seeds.parquet(seeds.pictures()))],
            (bytewise,),
            lambda place: load_images(str(place / "test.parquet"), "test"),
            weight=4,
        ),
        Reader(
            "data set",
            [(name, data) for name, data in raw.items() if "t10k" in name],
            (bytewise,),
            lambda place: data_sets.find("mnist").load("test", place, False),  # type: ignore[union-attr]
            raw,
            weight=2,
        ),
    ]


def import_options(card: ModelCard) -> dict[str, object]:
    """What `unlearn import` must be told about a network with this card."""
    return {
        "arch": card.architecture,
        "width": card.width,
        "classes": ",".join(card.class_names),
        "input-shape": ",".join(map(str, card.input_shape)),
        "mean": ",".join(map(str, card.mean)),
        "std": ",".join(map(str, card.std)),
    }


def all_views(samples: Samples) -> Tensor:
    """The pixels of the views, as a student composes them."""
    images, recipes = torch.from_numpy(samples.images), torch.from_numpy(samples.views).flatten(0, 1)
    partners = [samples.keys.index(f"{number:09d}") for number in recipes[:, PARTNER].tolist()]
    return compose(images.repeat_interleave(samples.views.shape[1], dim=0), images[partners], recipes)


def only_file(place: Path) -> Path:
    return next(path for path in place.iterdir() if path.is_file())


def take_lock(place: Path) -> None:
    with locked(Folder(place), WAY_ON, lambda line: None, beat=1.0, patience=0.002):
        pass


def by_format(data: bytes, rng: random.Random) -> bytes:
    if data.startswith(b"\x89PNG"):
        return mutate_png(data, rng)
    return mutate_jpeg(data, rng) if data.startswith(b"\xff\xd8") else bytewise(data, rng)


def mutate_page(data: bytes, rng: random.Random) -> bytes:
    """The page with another record in it."""
    text = data.decode()
    start = text.index(OPEN) + len(OPEN)
    end = text.index(CLOSE, start)
    return f"{text[:start]}{mutate_text(text[start:end], rng)}{text[end:]}".encode("utf-8", "surrogatepass")


def judge_record(path: Path) -> None:
    """What `verify` does, and all that `replay` reads before it starts."""
    verify(path, Places())
    record = read_report(path).record
    located = locate(record, Places())
    audit_request(record, located, path / "out", "cpu")
    run, student = record["origin"]["run"], record["models"]["student"]
    if run is not None:
        run_request(run["settings"], student, located.teacher.path, located.run_shards, None, path / "out", "cpu")


Settings = tuple[str, bytes]
METHODS = ("distill", "gkt", "edit")


def settings_files(run: Path, run_files: Mapping[str, bytes], record: bytes) -> list[Settings]:
    """Files for `--config`, each named after the command that reads it."""
    return [
        ("generate.json", (run / "index.json").read_bytes()),
        ("generate.json", json.dumps({"per_class": 5, "steps": 3, "lr": 0.5, "classes": [1, 2], "seed": 4}).encode()),
        ("distill.json", run_files["settings.json"]),
        ("gkt.json", json.dumps({"command": "gkt", "forget": [0], "rounds": 3, "attention": 0, "seed": 1}).encode()),
        ("audit.json", record),
        ("audit.json", json.dumps({"repeats": 2, "relearn_labels": "5,20", "confidence": 0.9}).encode()),
    ]


def start_from(place: Path) -> None:
    """Parse a command line with `--config`, and check its settings. Nothing is run."""
    file = only_file(place)
    name = file.stem
    group = synth_main if name == "generate" else unlearn_main
    needed = {"generate": ["--per-class", "1"], "audit": ["student", "--forget", "0"]}.get(name, ["--forget", "0"])
    arguments = [*needed, "--config", str(file), "--out", str(place / "out")]
    if name == "distill":
        arguments += ["--shards", "run"]
    with group.commands[name].make_context(name, arguments) as context:
        options: dict[str, Any] = context.params
    if name == "audit":
        fields = {f.name for f in dataclasses.fields(AuditSettings)}
        settings_from_flags(AuditSettings(), {k: v for k, v in options.items() if k in fields}, name)
    elif name != "generate":
        checked_settings(name, options)


def mutate_run_file(data: bytes, rng: random.Random) -> bytes:
    """By what the file holds: a zip, one JSON value per line, or JSON."""
    if data.startswith(b"PK"):
        return mutate_torch_file(data, rng)
    if data.count(b"\n") > 1 and data.splitlines()[0].endswith(b"}"):
        return mutate_lines(data, rng)
    return rng.choice(JSON)(data, rng)


def resume(place: Path, claim: Mapping[str, Any]) -> None:
    """What `--resume` and an audit read of a run's folder."""
    describe_origin(place / "student.safetensors", load_checkpoint(place / "student.safetensors").digest, None)
    folder = RunFolder(place, WAY_ON)
    folder.check(claim, resume=True)
    folder.load_checkpoint()

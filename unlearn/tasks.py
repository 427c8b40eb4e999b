"""The commands as functions: load what is named, check it together, call the method, write what comes out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from synth.compute import computed
from synth.console import check_classes
from synth.errors import UsageError
from synth.freed_memory import keep_freed_memory
from synth.generate import local_device
from synth.index import Index, RunCard, index_sha256, read_index
from synth.store import Folder, Store
from synth.teacher import check_forward, load_checkpoint, refuse_untrusted, save_checkpoint
from unlearn.cache import open_shards
from unlearn.data import LabelledImages, check_data, load_images
from unlearn.evaluate import Evaluation
from unlearn.evaluate import evaluate as evaluate_model
from unlearn.folder import RunFolder, note_judgement
from unlearn.methods import distill as method
from unlearn.runs import carry_out, conclude
from unlearn.settings import DistillSettings, LoopSettings, TrainSettings
from unlearn.stream import follow, load_complete, wait_for_run
from unlearn.train import train_classifier

Say = Callable[[str], None]
LOOP = LoopSettings(every=100, monitor=False)  # of distill: a class that is never shown doesn't come back


@dataclass(frozen=True)
class DataSource:
    """A data set as the command line names it."""

    name: str
    root: Path | None
    download: bool
    image_size: int

    def load(self, split: str) -> LabelledImages:
        return load_images(self.name, split, self.root, self.download, self.image_size)


def machine(device: str, threads: int | None) -> str:
    """Set this process's CPU threads and its use of memory, and resolve `auto` to the device that is there.

    On CUDA convolutions are computed by the algorithms that give the same bytes each time, as in synthesis.
    """
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    there = local_device(device)
    if there == "cuda":
        torch.backends.cudnn.deterministic = True
    return there


def refuse_existing(checkpoint: Path, overwrite: bool) -> None:
    """Raise UsageError where the checkpoint to write is there already, or can't be: before it is made, not after."""
    if checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} is a folder: name the file to write, such as {checkpoint / 'teacher.safetensors'}"
        )
    if checkpoint.exists() and not overwrite:
        raise UsageError(f"{checkpoint} is there already: replace it with --overwrite, or choose another --out")
    Folder(checkpoint.parent).create()


def train(
    architecture: str,
    width: float,
    source: DataSource,
    without: tuple[int, ...],
    out: Path,
    seed: int,
    device: str,
    settings: TrainSettings,
    say: Say,
) -> None:
    data, test = source.load("train"), source.load("test")  # both before any work
    check_classes(without, len(data.class_names), "class", "the data")
    if len(set(without)) == len(data.class_names):
        raise UsageError("--without leaves no class to train on: leave at least one out of it")
    for split, images in (("training", data), ("test", test)):
        check_every_class(images, split, without, source.name)
    model = train_classifier(
        data,
        architecture,
        settings,
        width=width,
        without=without,
        seed=seed,
        device=device,
        data_name=source.name,
        log=lambda epoch, values: say(f"epoch {epoch} of {settings.epochs}: loss {values['loss']:.4f}"),
    )
    digest = save_checkpoint(model, out)
    result = evaluate_model(model, test, without)
    forgotten = "" if result.forget is None else f", the classes left out {result.forget:.2f} %"
    say(f"wrote {out} (sha256 {digest[:12]}): test accuracy {result.retain:.2f} %{forgotten}")


def check_every_class(images: LabelledImages, split: str, without: tuple[int, ...], name: str) -> None:
    there = set(images.labels.tolist())
    for c, class_name in enumerate(images.class_names):
        if c not in there and c not in without:
            raise UsageError(
                f"{name} has no {split} image of class '{class_name}': add some, or train without it (--without {c})"
            )


@dataclass(frozen=True, kw_only=True)
class DistillRequest:
    """What `unlearn distill` was asked for. `follow_timeout` None means that the run has to be complete."""

    shards: str
    forget: tuple[int, ...]
    settings: DistillSettings
    out: Path
    student_arch: str | None = None
    student_width: float | None = None
    follow_timeout: float | None = None  # seconds
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    device: str = "cpu"
    tensorboard: Path | None = None


def distill(request: DistillRequest, say: Say) -> None:
    forget, seed, device = request.forget, request.seed, request.device
    store = open_shards(request.shards)
    filters = method.filters_for(forget, request.settings)
    if request.follow_timeout is None:
        card = read_index(store).card
        method.check_forget(forget, card)
        pools = iter([load_complete(store, filters)])
    else:
        card = wait_for_run(store, filters, request.follow_timeout).index.card
        method.check_forget(forget, card)
        pools = follow(store, filters, request.follow_timeout)
    settings = method.fill_in(request.settings, card)
    student_card = method.student_card(card, forget, settings, seed, request.student_arch, request.student_width)
    if request.student_arch is None:
        refuse_untrusted(card.architecture, None, str(store), "--student-arch")
    # An architecture that doesn't exist, or not for these images, is refused before anything is written.
    work = method.Distillation(pools, student_card, forget, settings, seed=seed, device=device)
    check_forward(work.student, "choose another --student-arch")
    folder = RunFolder(request.out, request.overwrite, request.resume)
    folder.claim(
        {
            "method": "distill",
            "forget": forget,
            "seed": seed,
            "device": device,
            "student_arch": request.student_arch,
            "student_width": request.student_width,
            "run_sha256": run_digest(card),
            **dataclasses.asdict(settings),
        }
    )
    if folder.complete:
        say(f"{request.out} is complete already")
        return
    with computed(work.student, settings):
        result = carry_out(work, folder, LOOP, seed, tensorboard=request.tensorboard)
    if not result.failure:
        work.take_in_for(work.steps)  # for its counts, where a resumed run had no step left
    path = conclude(
        folder,
        result,
        {
            "shards": str(store),
            "index_sha256": index_digest(store, work.index),
            "teacher_sha256": card.teacher_sha256,
            "samples": work.counts,
            "device": device,
        },
    )
    dropped = ", ".join(f"{count:,} by {name}" for name, count in work.counts.items() if name != "kept")
    say(f"wrote {path}: trained on {work.counts['kept']:,} samples; dropped {dropped or 'none'}")


def run_digest(card: RunCard) -> str:
    """Of what a run of synth was asked to make, which is the same while it is made and after."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(card), sort_keys=True).encode()).hexdigest()


def index_digest(store: Store, index: Index | None) -> str | None:
    """Of the run's index.json; where its driver hasn't written that yet, or died before, of what it would write.

    None where shards are missing, as after a training that diverged on a part of them.
    """
    try:
        return index_sha256(store)
    except FileNotFoundError:
        if index is None or len(index.entries) < index.card.plan.shards:
            return None
        return hashlib.sha256(dataclasses.replace(index, complete=True).to_bytes()).hexdigest()


def judge(
    student: Path,
    source: DataSource,
    images: LabelledImages,
    forget: tuple[int, ...],
    trusted_architecture: str | None,
    device: str,
) -> tuple[float, float | None]:
    """A run's student's retain and forget accuracy on the source's test images, which its provenance tells from then on."""
    result = evaluate({"student": student}, source, forget, trusted_architecture, device, images)[0]["student"]
    note_judgement(student.parent, {"data": source.name, "split": "test", "images": result.images})
    return result.retain, result.forget


def evaluate(
    checkpoints: Mapping[str, Path],
    source: DataSource,
    forget: tuple[int, ...],
    trusted_architecture: str | None,
    device: str,
    images: LabelledImages | None = None,
) -> tuple[dict[str, Evaluation], tuple[str, ...]]:
    """Each named checkpoint's evaluation on the same test images, loaded here unless given, and the class names."""
    models = {name: load_checkpoint(path, trusted_architecture).to(device) for name, path in checkpoints.items()}
    images = images or source.load("test")
    data = {n: check_data(model.card, images, checkpoints[n], source.name, forget) for n, model in models.items()}
    orders = {d.class_names: checkpoints[n] for n, d in data.items()}
    if len(orders) > 1:
        one, other, *_ = orders.values()
        raise UsageError(f"{one} and {other} have their classes in different orders: evaluate each on its own")
    class_names = next(iter(orders))
    check_classes(forget, len(class_names), "forget class", "the data")
    if len(set(forget)) == len(class_names):
        raise UsageError("every class is to be forgotten: leave at least one to retain")
    return {name: evaluate_model(model, data[name], forget) for name, model in models.items()}, class_names

"""An audit from its request to its folder: `audit.json`, `timing.json` and the resurrected pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from synth.basics.errors import UsageError
from synth.basics.versions import package_versions
from synth.checkpoint.card import ModelCard
from synth.shards.store import Folder, open_store
from unlearn.audit.audit_settings import AuditSettings
from unlearn.audit.bench import Bench
from unlearn.audit.histograms import entropy_histograms
from unlearn.audit.images import Source, real_source, synthetic_source
from unlearn.audit.judgement.controls import controls
from unlearn.audit.judgement.verdict import STILL_CALLED, judge
from unlearn.audit.measures import run_measures
from unlearn.audit.pictures import draw_classes
from unlearn.audit.record import origin
from unlearn.audit.record.record import MODEL, ORIGINAL, RETRAINED, NotRun
from unlearn.audit.record.schema import VERSION, check_record
from unlearn.audit.record.versions import PACKAGE, audit_version
from unlearn.audit.subjects import gather, how_to_retrain, student_file
from unlearn.data import DataSource, check_data
from unlearn.run.folder import json_bytes

AUDIT, TIMING, PICTURES = "audit.json", "timing.json", "pictures"
NO_REAL = "accuracies, probe and relearning on real images, membership inference"
NO_REAL_FORGET = "forget accuracy, probe and relearning on real images, membership inference"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the audit's command was asked for."""

    student: Path
    teacher: Path
    forget: tuple[int, ...]
    references: Sequence[Path] = ()
    data: DataSource | None = None
    shards: str | None = None
    out: Path
    settings: AuditSettings = field(default_factory=AuditSettings)
    trusted_architecture: str | None = None
    seed: int = 0
    device: str = "cpu"
    workers: int | None = None
    overwrite: bool = False


def audit(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every measure that the inputs allow, write the folder, and return the record. Values depend on no clock."""
    return audit_each([request], say)[0]


def audit_each(requests: Sequence[Request], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """As `audit`, of requests that differ in student and folder alone. What the known models and the images give is computed
    once, so that every further student costs a fraction; the records are those of single audits, but for their times.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # parallel are the experiments, so that no sum's order depends on the machine
    try:
        with threadpool_limits(1):
            return in_turn(requests, say)
    finally:
        torch.set_num_threads(threads)


def in_turn(requests: Sequence[Request], say: Callable[[str], None]) -> list[dict[str, Any]]:
    started, worked = time.monotonic(), time.process_time()
    folders = [open_folder(request) for request in requests]
    benches, ledger, missing = prepare(requests, say)
    for folder in folders:
        check_writable(folder)
    records = []
    for request, folder, bench in zip(requests, folders, benches, strict=True):
        if len(requests) > 1:
            say(f"{request.student}:")
        record, pictures, seconds = carry_out(request, bench, ledger, missing, say)
        check_record(record)
        for name, data in pictures.items():
            Folder(request.out / PICTURES).create()
            Folder(request.out / PICTURES).write(name, data)
        seconds |= {"all": round(time.monotonic() - started, 3), "processor": round(time.process_time() - worked, 3)}
        folder.write(TIMING, json_bytes({"seconds": seconds, "cores": os.cpu_count(), "workers": workers_of(request)}))
        folder.write(AUDIT, json_bytes(record))
        records.append(record)
        started, worked = time.monotonic(), time.process_time()
    return records


def open_folder(request: Request) -> Folder:
    folder = Folder(request.out)
    there = folder.names()
    ours = {AUDIT, TIMING, PICTURES}
    if there and not (request.overwrite and there <= ours):
        cure = "choose another --out" + (", or replace it with --overwrite" if there <= ours else "")
        raise UsageError(f"{request.out} already holds files ({min(there)}, ...): {cure}")
    return folder


def check_writable(folder: Folder) -> None:
    """Make the folder, and a file in it, so that one that can't be written is known before any work."""
    folder.create()
    folder.write("probe.tmp", b"")
    folder.remove("probe.tmp")


def prepare(
    requests: Sequence[Request], say: Callable[[str], None]
) -> tuple[list[Bench], list[dict[str, Any]], list[NotRun]]:
    """A bench for each request, the ledger of the real images, and what is missing."""
    request = requests[0]
    lineups, missing = gather(
        [each.student for each in requests], request.teacher, request.references, request.forget,
        request.trusted_architecture, request.device, request.seed, request.settings.random_models,
    )  # fmt: skip
    original = lineups[0][ORIGINAL][0]
    real, ledger = load_real(request, original.card)
    synthetic = None
    if request.shards is not None:
        synthetic = synthetic_source(open_store(request.shards), original)
    missing += [NotRun(*line) for line in lacking(request, real, synthetic)]
    first = Bench(
        subjects=lineups[0], forget=request.forget, settings=request.settings, seed=request.seed, real=real,
        synthetic=synthetic, workers=workers_of(request), say=say,
    )  # fmt: skip
    check_references(first, request.references)
    return [first.beside(subjects) for subjects in lineups], ledger, missing


def carry_out(
    request: Request, bench: Bench, ledger: list[dict[str, Any]], missing: list[NotRun], say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, bytes], dict[str, float]]:
    settings, subjects, synthetic = request.settings, bench.subjects, bench.synthetic
    original = subjects[ORIGINAL][0]
    measurements, not_run, seconds = run_measures(bench, say)
    pictures = {
        f"resurrection-{subject.replace(' ', '-')}.png": draw_classes(images, labels, original.card.class_names)
        for subject, (images, labels) in bench.pictures.items()
    }
    if synthetic and len(synthetic.fit):
        shown = bench.few(synthetic.fit, 10, "pictures")
        pictures["synthesised.png"] = draw_classes(shown.images, shown.labels, original.card.class_names)
    verdict = judge(measurements, settings.confidence)
    record = {
        "format": "data-free-unlearning audit",
        "format_version": VERSION,
        "forget": list(request.forget),
        "class_names": list(original.card.class_names),
        "seed": request.seed,
        "device": request.device,
        "settings": dataclasses.asdict(settings),
        "request": request_json(request),
        "models": models_json(request, subjects),
        "origin": origin.describe(student_file(request.student), subjects[MODEL][0].digest, request.shards),
        "images": bench.judged.name if bench.judged else None,
        "measurements": [m.to_json() for m in measurements],
        "not_run": [dataclasses.asdict(n) for n in (*missing, *not_run)],
        "verdict": dataclasses.asdict(verdict),
        "controls": controls(measurements, settings.confidence),
        "histograms": entropy_histograms(bench) if bench.judged else [],
        "ledger": ledger,
        "pictures": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(pictures.items())},
        "versions": {
            **package_versions(),
            "scikit-learn": version("scikit-learn"),
            "scipy": version("scipy"),
            PACKAGE: audit_version(),
        },
    }
    return json.loads(json.dumps(record)), pictures, seconds


def check_references(bench: Bench, paths: Sequence[Path]) -> None:
    """Raise UsageError where a reference calls forget images by their class, whatever its card says of its training."""
    if bench.judged is None:
        return
    judge = bench.judged.judge
    rows = bench.is_forgotten(judge.labels)
    for path, model in zip(paths, bench.subjects.get(RETRAINED, ()), strict=True):
        right = bench.outputs(model, judge).logits.argmax(1)[rows] == judge.labels[rows]
        called = 100 * right.double().mean().item()
        if called > STILL_CALLED:
            raise UsageError(
                f"{path} calls {called:.1f} % of the forget images by their class, more than {STILL_CALLED:.0f} %: it was trained on "
                f"such images, and is no reference; {how_to_retrain(bench.forget)}"
            )


def load_real(request: Request, card: ModelCard) -> tuple[Source | None, list[dict[str, Any]]]:
    if request.data is None:
        return None, []
    name = request.data.name
    train, test = (
        check_data(card, request.data.load(split), request.teacher, name, request.forget) for split in ("train", "test")
    )
    generator = torch.Generator().manual_seed(request.seed)
    return real_source(request.data.name, train, test, request.settings.pool, generator)


def lacking(request: Request, real: Source | None, synthetic: Source | None) -> list[tuple[str, str, str]]:
    """What the inputs leave out, why, and what would make it possible."""
    found = []
    if real is None:
        found.append((NO_REAL, "no real image is given", "name the original's training and test data with --data"))
    elif not torch.isin(real.judge.labels, torch.tensor(request.forget)).any():
        why = f"{real.name} are none of the forget classes"
        found.append((NO_REAL_FORGET, why, "name data that still has them with --data"))
    if synthetic is None:
        found.append(
            ("relearning from synthetic images", "no shards are given", "name a run of synth generate with --shards")
        )
    if len(request.references) == 1:
        why = "one retrained model doesn't show how much retrainings differ"
        found.append(("distances between retrained models", why, "name more retrained models, each with --reference"))
    return found


def workers_of(request: Request) -> int:
    """On a GPU the experiments take turns: they would only wait for each other there."""
    return (request.workers or os.cpu_count() or 1) if request.device == "cpu" else 1


def request_json(request: Request) -> dict[str, Any]:
    """What `unlearn replay` starts from. Paths are as the user gave them."""
    data = request.data
    return {
        "student": str(request.student),
        "teacher": str(request.teacher),
        "references": [str(path) for path in request.references],
        "shards": request.shards,
        "data": data and {"name": data.name, "root": data.root and str(data.root), "image_size": data.image_size},
    }


def models_json(request: Request, subjects: Any) -> dict[str, Any]:
    def facts(path: Path, model: Any) -> dict[str, Any]:
        return {
            "path": str(path),
            "sha256": model.digest,
            "architecture": model.card.architecture,
            "width": model.card.width,
            "training": json.loads(json.dumps(dict(model.card.training))),
        }

    return {
        "teacher": facts(request.teacher, subjects[ORIGINAL][0]),
        "student": facts(student_file(request.student), subjects[MODEL][0]),
        "references": [facts(*pair) for pair in zip(request.references, subjects.get(RETRAINED, []), strict=True)],
    }

"""From a student to a file or folder that other programs load. The name of what to write chooses the form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.disk import create_folder, write_file
from synth.basics.errors import UsageError
from synth.basics.way_on import START_AGAIN, WayOn
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.run.lock import locked
from synth.shards.store import Folder
from unlearn.exporting.huggingface import CARD, huggingface_files
from unlearn.exporting.like import export_like
from unlearn.exporting.plain import pickled_weights, plain_weights
from unlearn.exporting.programs import exported_program, onnx_program
from unlearn.exporting.units import in_units
from unlearn.report.file import read_report

WAY_ON = WayOn(command="unlearn export", again=START_AGAIN, resumes=False)
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
FORMS: dict[str, Callable[[Classifier], bytes]] = {
    ".safetensors": plain_weights,
    ".pt2": exported_program,
    ".onnx": onnx_program,
    **dict.fromkeys(PICKLES, pickled_weights),
}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export, and in which form."""

    student: Path
    out: Path
    like: Path | None = None
    keep: Sequence[str] = ()
    audit: Path | None = None  # a folder, an audit.json, or a page of `unlearn report`
    overwrite: bool = False
    trusted_architecture: str | None = None


def export(request: ExportRequest, say: Callable[[str], None]) -> None:
    """Write the student in the form that the request names. `say` gets lines for a person.

    Raises:
        UsageError: the request is contradictory, or there is something at `out` already.
        UserError: the student cannot be written in this form, or another process works on the folder.
    """
    form = form_of(request)
    refuse_existing_export(request, form)
    student = in_units(load_checkpoint(request.student, request.trusted_architecture))
    create_folder(request.out.parent)
    if form == "folder":
        files = huggingface_files(student, audit_of(student, request))
        folder = Folder(request.out, WAY_ON.again)
        with locked(folder, WAY_ON, say):
            for name, data in files.items():
                folder.write(name, data)
        say(f"wrote {request.out}: {', '.join(sorted(files))}")
        if request.audit is None:
            say(f"{request.out / CARD} makes no claim, because no audit is named: see --audit")
        return
    if request.like is not None:
        exported = export_like(student, request.like, request.out, request.keep)
        for line in exported.said:
            say(line)
        data = exported.data
    else:
        data = FORMS[form](student)
    write_file(request.out, data)
    say(f"wrote {request.out} ({len(data):,} bytes)")


def form_of(request: ExportRequest) -> str:
    """The suffix of the file to write, or `folder`. Raises UsageError for options that have no effect."""
    suffix = request.out.suffix.lower()
    form = suffix if suffix in FORMS else "folder"
    if form == "folder" and suffix and not request.out.is_dir():
        raise UsageError(
            f"--out {request.out}: there is no form {suffix}: name a file ending in {', '.join(FORMS)}, "
            "or for the Hugging Face Hub a folder without a dot in its name"
        )
    if request.like is not None and form in ("folder", ".pt2", ".onnx"):
        raise UsageError(f"--like writes weights: name a {', '.join(PICKLES)} or .safetensors file with --out")
    if request.keep and request.like is None:
        raise UsageError("--keep has no effect without --like: leave it out")
    if request.audit is not None and form != "folder":
        raise UsageError("--audit has no effect on a file: name a folder with --out, or leave it out")
    return form


def refuse_existing_export(request: ExportRequest, form: str) -> None:
    """Raise UsageError if something at `out` would be lost."""
    out = request.out
    if out.is_dir() and form != "folder":
        raise UsageError(f"{out} is a folder: name the file to write with --out")
    if form == "folder" and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name a folder with --out, or a file ending in {', '.join(FORMS)}")
    if request.like is not None and out.exists() and out.samefile(request.like):
        raise UsageError(f"{out} is the original itself: name another file with --out")
    if out.exists() and request.student.exists() and out.samefile(request.student):
        raise UsageError(f"{out} is the student itself: name another file with --out")
    there = any(out.iterdir()) if out.is_dir() else out.exists()
    if there and not request.overwrite:
        raise UsageError(f"{out} exists already: replace it with --overwrite, or choose another --out")


def audit_of(student: Classifier, request: ExportRequest) -> dict[str, Any] | None:
    """The record of the student's audit. Raises UsageError if it is the audit of another model."""
    if request.audit is None:
        return None
    record = dict(read_report(request.audit).record)
    if record["models"]["student"]["sha256"] != student.digest:
        raise UsageError(
            f"{request.audit} is the audit of another model than {request.student}: name that one's with --audit"
        )
    return record

"""`unlearn export`: parse, call, print; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synth.basics.progress import Say
from synth.commands.options import Command, option
from synth.commands.printing import say
from unlearn.commands.options import FROM_ENVIRONMENT, PATH, WHAT, WHERE, code_option


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("student", type=PATH)
@option(
    "--like",
    group=WHAT,
    type=PATH,
    help="the file that the original was imported from: write its entries, keys and number types",
)
@option(
    "--keep",
    group=WHAT,
    rare=True,
    multiple=True,
    help="with --like: an entry of the original to take over as it is; give the option once per entry",
)
@option("--audit", group=WHAT, type=PATH, help="the student's audit, whose conclusion the model card carries")
@code_option
@option(
    "--out",
    group=WHERE,
    type=PATH,
    required=True,
    help="what to write: a file ending in .pt, .pth, .safetensors, .pt2 or .onnx, or a folder for the Hugging Face Hub",
)
@option("--overwrite", group=WHERE, is_flag=True, help="replace what is in --out")
def export(**options: Any) -> None:
    """Write STUDENT for the program that used the original. STUDENT is a checkpoint or a run folder.

    \b
    --out model.pt --like original.pt   loads where original.pt did, with no change of your code
    --out model.pt or .safetensors      the plain state dict
    --out model.pt2                     torch.export: runs without the network's Python code
    --out model.onnx                    ONNX; takes normalised images, as .pt2 does
    --out FOLDER                        for the Hugging Face Hub, with a model card
    """
    export_student(say, **options)


def export_student(tell: Say, student: Path, arch: str | None, **options: Any) -> None:
    """`unlearn export` with these options. `tell` gets lines for a person."""
    from synth.checkpoint.file import student_file
    from unlearn.exporting.export import ExportRequest
    from unlearn.exporting.export import export as write_export

    request = ExportRequest(student=student_file(student), trusted_architecture=arch, **options)
    write_export(request, tell)

"""`synth recognise`: parse, call, print; no logic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from synth.commands.options import MACHINE, Command, option
from synth.commands.printing import echo, note

FROM_ENVIRONMENT = {"auto_envvar_prefix": "SYNTH", "show_default": True, "max_content_width": 110}
PATH = click.Path(path_type=Path)
WHO, WHAT = "Who names the images", "What"


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@option(
    "--by",
    group=WHO,
    type=PATH,
    multiple=True,
    help="the checkpoint of another network, of any size of images, whose classes are matched by name; may be repeated",
)
@option(
    "--teacher",
    group=WHO,
    type=PATH,
    help="the run's own checkpoint, which names mirrored, shifted, cropped, halved and grey copies of the images",
)
@option("--arch", group=WHO, help="module:function of the checkpoints' architectures, if they are your own code")
@option(
    "--equal-indices",
    group=WHO,
    is_flag=True,
    help="match class 0 with class 0 and so on, where the networks have no names or others",
)
@option("--images", group=WHAT, type=click.IntRange(min=1), default=2000, help="images of the run to look at")
@option("--json", "json_file", group=WHAT, type=PATH, help="file to write everything to")
@option(
    "--device",
    group=MACHINE,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="device that the networks run on",
)
def recognise(json_file: Path | None, **options: Any) -> None:
    """Show how often networks name a run's images by their class.

    Another network judges best, because the synthesis never saw it. The teacher itself recognises what was made for it,
    so it names changed copies of the images.
    """
    from synth.basics.disk import prepare_output, write_file

    if json_file is not None:
        prepare_output(json_file, b'{\n "run":', "written by 'synth recognise'")
    found = recognition_of(**options)
    echo(str(found))
    if json_file is not None:
        write_file(json_file, (json.dumps(found.to_json(), indent=1) + "\n").encode())
        note(f"wrote {json_file}")


def recognition_of(uri: str, arch: str | None, device: str, **question: Any) -> Any:
    """The `Recognition` that the options of `synth recognise` ask for."""
    from synth.basics.device import machine
    from synth.run.recognise import Question, recognise
    from synth.shards.store import open_store

    asked = Question(trusted_architecture=arch, device=machine(device, None), **question)
    return recognise(open_store(uri), asked)

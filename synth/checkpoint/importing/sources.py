"""Where published weights come from: `--weights torchvision:NAME`, `timm:NAME` and `transformers:FOLDER`."""

from __future__ import annotations

from pathlib import Path

from synth.basics.errors import UsageError
from synth.checkpoint.importing.published import Source


def find_source(weights: str) -> Source:
    """The source that --weights names. It is downloaded if it is not on this machine.

    Raises UsageError if there is no such source, and UserError if it cannot be fetched or read.
    """
    library, _, name = weights.partition(":")
    if library == "torchvision" and name:
        from synth.checkpoint.importing.from_torchvision import torchvision_source

        return torchvision_source(name)
    if library == "timm" and name:
        from synth.checkpoint.importing.from_timm import timm_source

        return timm_source(name)
    if library == "transformers" and name:
        from synth.checkpoint.importing.from_transformers import transformers_source

        return transformers_source(Path(name))
    raise UsageError(
        f"--weights '{weights}' is not known: write torchvision:NAME (such as torchvision:resnet50), timm:NAME, or "
        "transformers:FOLDER; a file of weights is named without an option"
    )

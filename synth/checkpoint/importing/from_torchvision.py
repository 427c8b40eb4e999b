"""Published weights of torchvision, with the size and the normalisation of their own transforms."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torchvision import models

from synth.basics.disk import create_folder
from synth.basics.errors import UsageError, UserError, first_line
from synth.checkpoint.building import AUXILIARY_HEADS
from synth.checkpoint.importing.card_options import Facts
from synth.checkpoint.importing.class_names import told_apart
from synth.checkpoint.importing.published import Source


def torchvision_source(name: str) -> Source:
    """The weights `NAME` or `NAME.VERSION`, such as `resnet50.IMAGENET1K_V1`; the newest where there is no version.

    Raises UsageError if torchvision has no such weights, and UserError if they cannot be downloaded.
    """
    model, _, version = name.partition(".")
    known = models.list_models(module=models)
    if model not in known:
        close = ", ".join(get_close_matches(model, known, n=3)) or "resnet18, resnet50, ..."
        raise UsageError(f"torchvision has no classification network '{model}': choose one such as {close}")
    versions = models.get_model_weights(model)
    if version and version not in versions.__members__:
        raise UsageError(f"torchvision has no weights '{name}': it has {', '.join(versions.__members__)}")
    weights = versions[version] if version else versions.DEFAULT
    transforms = weights.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if model in AUXILIARY_HEADS:
        # With its published weights the network changes ImageNet's normalisation into this one first.
        mean = std = (0.5, 0.5, 0.5)
    side = transforms.crop_size[0]
    return Source(
        name=f"torchvision:{model}.{weights.name}",
        architecture=model,
        facts=Facts(
            class_names=told_apart(weights.meta["categories"]), input_shape=(3, side, side), mean=mean, std=std
        ),
        file=downloaded(weights.url),
    )


def downloaded(url: str) -> Path:
    """The file in torch's own cache, where torchvision keeps it, too. Raises UserError if it cannot be downloaded."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.exists():
        return file
    create_folder(file.parent)
    parts = torch.hub.HASH_REGEX.search(file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), parts and parts.group(1), progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash is another
        raise UserError(
            f"cannot download {url} ({first_line(error)}): download it where there is a network, and save it as {file}"
        ) from error
    return file

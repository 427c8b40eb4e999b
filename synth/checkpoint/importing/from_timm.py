"""Published weights of timm, with the size and the normalisation of their own configuration."""

from __future__ import annotations

from pathlib import Path

from synth.basics.errors import UserError, first_line
from synth.checkpoint.importing.card_options import Facts
from synth.checkpoint.importing.class_names import told_apart
from synth.checkpoint.importing.published import Source
from synth.checkpoint.timm_models import check_name, timm_library


def timm_source(name: str) -> Source:
    """The weights `NAME` or `NAME.TAG`, such as `resnet18.a1_in1k`.

    Raises UsageError if timm is not installed or has no such weights, and UserError if they cannot be downloaded.
    """
    timm = timm_library()
    check_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        raise UserError(f"timm publishes no weights for {name}: choose one of timm.list_models(pretrained=True)")
    if repository.endswith("/"):
        repository += f"{config.architecture}.{config.tag}"
    return Source(
        name=f"timm:{config.architecture}.{config.tag}",
        architecture=f"timm:{config.architecture}",
        facts=Facts(
            class_names=names_of(repository, config.num_classes),
            input_shape=tuple(config.input_size),
            mean=tuple(config.mean),
            std=tuple(config.std),
        ),
        file=downloaded(repository),
    )


def timm_facts(name: str) -> Facts:
    """Size and normalisation of the network's published weights, which a network that is fine-tuned from them has."""
    timm = timm_library()
    check_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return Facts()
    return Facts(input_shape=tuple(config.input_size), mean=tuple(config.mean), std=tuple(config.std))


def names_of(repository: str, num_classes: int) -> tuple[str, ...]:
    """ImageNet's names where timm knows that these are the classes, else numbers."""
    if num_classes == 1000 and repository.rpartition("_")[2] == "in1k":
        from timm.data import ImageNetInfo

        return told_apart([text.partition(",")[0] for text in ImageNetInfo("imagenet-1k").label_descriptions()])
    return tuple(map(str, range(num_classes)))


def downloaded(repository: str) -> Path:
    """The weights in the cache of huggingface_hub. Raises UserError if they cannot be downloaded."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # without its lines about every retry
    try:
        return Path(hf_hub_download(repository, "model.safetensors", local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the client raises errors of several libraries
        raise UserError(
            f"cannot download https://huggingface.co/{repository} ({first_line(error)}): download model.safetensors "
            f"where there is a network, and import it with 'unlearn import model.safetensors --arch timm:NAME ...'"
        ) from error

"""A student as a folder for the Hugging Face Hub: weights, configuration, and a model card.

transformers loads a `transformers:` student from the folder by `AutoModelForImageClassification.from_pretrained`, and
timm a `timm:` student by `timm.create_model("local-dir:FOLDER")`. For any other network the folder has the plain state
dict, and the card has the lines that load it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synth.checkpoint.architectures import names as own_architectures
from synth.checkpoint.building import names_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.timm_models import size_options, timm_library
from unlearn.exporting.model_card import model_card
from unlearn.exporting.plain import plain_weights

WEIGHTS, CONFIG, PROCESSOR, CARD = "model.safetensors", "config.json", "preprocessor_config.json", "README.md"


def huggingface_files(student: Classifier, record: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """The files of the folder by name. `record` is the student's audit, whose conclusion the card carries."""
    card = student.card
    library, _, name = card.architecture.rpartition(":")
    if library == "transformers":
        files, use = transformers_files(student), TRANSFORMERS_USE
    elif library == "timm":
        files, use = {CONFIG: as_json(timm_config(card, name))}, TIMM_USE
    else:
        library, files, use = "pytorch", {CONFIG: as_json(plain_config(card))}, plain_use(card)
    files[WEIGHTS] = plain_weights(student)
    files[CARD] = model_card(student, record, library, use).encode()
    return files


def transformers_files(student: Classifier) -> dict[str, bytes]:
    """config.json, as transformers writes it, and preprocessor_config.json."""
    card = student.card
    names = output_names(card)
    config: Any = student.net.config
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.architectures = [type(student.net).__name__]
    height, width = card.input_shape[1:]
    processor = {
        "do_resize": True,
        "size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card.mean),
        "image_std": list(card.std),
        "image_processor_type": "ViTImageProcessor",
    }
    return {CONFIG: config.to_json_string().encode(), PROCESSOR: as_json(processor)}


def timm_config(card: ModelCard, name: str) -> dict[str, Any]:
    """What `timm.create_model("local-dir:FOLDER")` reads."""
    return {
        "architecture": name,
        "num_classes": len(output_names(card)),
        "label_names": output_names(card),
        "model_args": {"in_chans": card.input_shape[0], **size_options(timm_library(), name, card.input_shape[1:])},
        "pretrained_cfg": {
            "input_size": list(card.input_shape),
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": len(output_names(card)),
            "crop_pct": 1.0,
        },
    }


def plain_config(card: ModelCard) -> dict[str, Any]:
    return {
        "architecture": card.architecture,
        "width": card.width,
        "num_classes": card.num_classes,
        "label_names": list(card.class_names),
        "input_shape": list(card.input_shape),
        "mean": list(card.mean),
        "std": list(card.std),
        "outputs": card.wiring.outputs,
    }


def output_names(card: ModelCard) -> list[str]:
    """The classes of the network's outputs. A network with one output for two classes gives that of the second one."""
    return [card.class_names[1]] if card.wiring.one_output else list(card.class_names)


TRANSFORMERS_USE = """    from transformers import AutoModelForImageClassification
    model = AutoModelForImageClassification.from_pretrained("THIS_FOLDER")"""
TIMM_USE = """    import timm
    model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True)"""


def plain_use(card: ModelCard) -> str:
    """The lines that load a network of torchvision, of this package, or of the user's own code."""
    if names_code(card.architecture):
        module, _, function = card.architecture.partition(":")
        build = f"from {module} import {function}\n    model = {function}(...)  # your own code"
    elif card.architecture in own_architectures():
        shape = f"{card.input_shape[0]}, {len(output_names(card))}, {card.input_shape[1]}, {card.width}"
        build = f'from synth.checkpoint.building import build\n    model = build("{card.architecture}", {shape})'
    else:
        call = f'get_model("{card.architecture}", num_classes={len(output_names(card))})'
        build = f"from torchvision.models import get_model\n    model = {call}"
    return f"""    from safetensors.torch import load_file
    {build}
    model.load_state_dict(load_file("{WEIGHTS}"))"""


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

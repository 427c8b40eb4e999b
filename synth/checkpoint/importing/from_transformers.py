"""An image classifier in a folder that transformers wrote, with the size and the normalisation of its own processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError, first_line
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import read_regular
from synth.checkpoint.importing.card_options import Facts
from synth.checkpoint.importing.class_names import told_apart
from synth.checkpoint.importing.published import Source
from synth.checkpoint.transformers_models import kept_config, transformers_library
from synth.checkpoint.wiring import Wiring

PROCESSOR = "preprocessor_config.json"
LARGEST = 2**24  # bytes of a file of settings


def transformers_source(folder: Path) -> Source:
    """The classifier in the folder. It needs config.json and model.safetensors; preprocessor_config.json if there is.

    Nothing is downloaded, and no code in the folder runs. Raises UsageError if transformers is not installed or the
    folder is not one of it, and UserError if its content cannot be read.
    """
    library = transformers_library()
    raw = read_json(folder / "config.json")
    if raw is None:
        raise UsageError(f"{folder} has no config.json: name a folder that model.save_pretrained(folder) wrote")
    if raw.get("problem_type") == "multi_label_classification":
        raise UsageError(
            f"{folder} is a multi-label classifier, which gives an image several labels: such networks are not "
            "supported"
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no model.safetensors: write it with model.save_pretrained(folder)")
    net, config = load(library, folder)
    processor = read_json(folder / PROCESSOR) or {}
    number = int(net.num_labels)
    labels = {int(n): str(name) for n, name in config.id2label.items()}
    return Source(
        name=f"transformers:{folder}",
        architecture=f"transformers:{config.model_type}",
        facts=Facts(
            class_names=told_apart([labels.get(n, str(n)) for n in range(number)]),
            input_shape=shape_of(processor, raw),
            **normalisation(library, folder, processor),
        ),
        file=files[0],
        wiring=Wiring(config=kept_config(parse_object(config.to_json_string(use_diff=True)))),
        net=net,
    )


def load(library: Any, folder: Path) -> tuple[Any, Any]:
    """The network with its weights in float32, and its configuration."""
    try:
        net, loaded = library.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # the library raises any error for a folder that it cannot read
        raise UserError(f"transformers {library.__version__} cannot read {folder} ({first_line(error)})") from error
    missing = sorted(loaded["missing_keys"]) + [str(key) for key in loaded.get("mismatched_keys", ())]
    if missing:
        raise UserError(f"{folder} is not a whole image classifier: it has no weights {', '.join(missing[:3])}")
    return net.float(), net.config


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file; None where there is no file. Raises UserError if it is damaged."""
    try:
        return parse_object(read_regular(path, LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({first_line(error)}): save it again") from error


def shape_of(processor: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(channels, height, width) of the images that the network gets; None where the files do not state it."""
    size = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = size or processor.get("size") or config.get("image_size")
    if isinstance(size, Mapping):
        side = size.get("shortest_edge")
        size = [size.get("height", side), size.get("width", side)]
    if isinstance(size, int):
        size = [size, size]
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        return None
    return int(config.get("num_channels", 3)), size[0], size[1]


def normalisation(library: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`mean` and `std` for images in [0, 1]: as the folder's own processor does it, or as its settings say where the
    library cannot build it.

    Raises UserError if the processor exchanges red and blue, or if its settings cannot be read.
    """
    if not settings:
        return {}
    try:
        processor = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        black, white, red = (processed(processor, colour) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    except Exception:  # the library raises any error for settings that it cannot read
        turned, found = bool(settings.get("do_flip_channel_order")), None
    else:
        std = 1 / (white - black)
        turned = bool((red[2] - white[2]).abs() < (red[2] - black[2]).abs())
        found = {"mean": rounded(-black * std), "std": rounded(std)} if torch.isfinite(std).all() else None
    if turned:
        raise UserError(
            f"{folder} holds a network that takes blue before red: turn the inputs of its first convolution with "
            f'weight.flip(1), set "do_flip_channel_order" to false in {PROCESSOR}, and save it again'
        )
    return found or normalisation_of(settings)


def processed(processor: Any, colour: tuple[int, int, int]) -> Tensor:
    """What the processor makes of each channel of an image of one colour, (3,)."""
    image = np.full((64, 64, 3), colour, dtype=np.uint8)
    given = processor(images=image, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    means: Tensor = given[0].double().mean((1, 2))
    if means.shape != (3,):
        raise ValueError("the processor gives no three channels")
    return means


def rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def normalisation_of(processor: Mapping[str, Any]) -> dict[str, Any]:
    """`mean` and `std` for images in [0, 1], by the processor's settings.

    The processor multiplies bytes by a factor, may subtract 1, and then normalises. Raises UserError if a setting has
    another form.
    """
    try:
        factor = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        shift = 1.0 if processor.get("rescale_offset") else 0.0
        mean, std = [0.0], [1.0]
        if processor.get("do_normalize", True) and "image_mean" in processor and "image_std" in processor:
            mean, std = (np.atleast_1d(processor[name]).tolist() for name in ("image_mean", "image_std"))
        return {
            "mean": tuple(round((m + shift) / factor, 6) for m in mean),
            "std": tuple(round(s / factor, 6) for s in std),
        }
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{PROCESSOR} has a normalisation that is none ({first_line(error)}): save the processor again, or remove "
            "that file and give --mean and --std"
        ) from error

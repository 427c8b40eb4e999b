"""An image classifier in a folder that transformers wrote, with the size and the normalisation of its own processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
            **normalisation_of(processor),
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


def normalisation_of(processor: Mapping[str, Any]) -> dict[str, Any]:
    """`mean` and `std` for images in [0, 1].

    The processor multiplies bytes by a factor, may subtract 1, and then normalises.
    """
    if not processor:
        return {}
    factor = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    mean, std = [0.0], [1.0]
    if processor.get("do_normalize", True) and "image_mean" in processor and "image_std" in processor:
        mean, std = list(processor["image_mean"]), list(processor["image_std"])
    return {
        "mean": tuple(round((m + shift) / factor, 6) for m in mean),
        "std": tuple(round(s / factor, 6) for s in std),
    }

"""Image classifiers of the transformers library: `transformers:KIND`. transformers is an optional dependency."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from synth.basics.errors import UsageError, first_line

# What a card does not keep of a configuration: the names of the classes, which the card has anyway; the environment;
# and whatever could fetch code or weights from elsewhere.
LEFT_OUT = (
    *("id2label", "label2id", "num_labels", "dtype", "torch_dtype", "transformers_version", "auto_map"),
    *("architectures", "model_type", "attn_implementation", "use_pretrained_backbone", "quantization_config"),
)


def transformers_library() -> ModuleType:
    """The library. Raises UsageError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "transformers:... needs the transformers library, which is not installed: pip install transformers, or "
            "'.[hub]' in a clone"
        ) from None
    return transformers


def kept_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the network's shape depends on."""
    return {name: value for name, value in config.items() if name not in LEFT_OUT and not name.startswith("_")}


def build_transformers(kind: str, num_classes: int, config: Mapping[str, Any]) -> nn.Module:
    """The untrained network. It returns an output object whose `logits` are (N, num_classes).

    Raises UsageError where the library has no such network, or where the configuration does not fit it.
    """
    library = transformers_library()
    try:
        full = library.AutoConfig.for_model(kind, num_labels=num_classes, **kept_config(config))
        return library.AutoModelForImageClassification.from_config(full)
    except Exception as error:  # the library raises any error for a configuration of another version
        raise UsageError(
            f"transformers {library.__version__} cannot build transformers:{kind} ({first_line(error)}): "
            "import it again with this version"
        ) from error

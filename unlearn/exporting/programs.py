"""A student as a program that runs without its Python code: `torch.export` (.pt2) and ONNX (.onnx).

Like the original network, the program takes normalised images (N, C, H, W) of any N.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec

import torch

from synth.basics.errors import UsageError, UserError, first_line
from synth.checkpoint.classifier import Classifier

INPUT = "images"
ONNX_PACKAGES = ("onnx", "onnxscript")


def exported_program(student: Classifier) -> bytes:
    """The file that `torch.export.load` reads. Raises UserError if torch cannot trace the network."""
    try:
        with quiet():
            program = torch.export.export(student.net.eval(), (example(student),), dynamic_shapes=({0: batch()},))
    except Exception as error:  # a network with a control flow that torch cannot trace raises any error
        raise UserError(
            f"torch.export cannot trace {student.card.architecture} ({first_line(error)}): export its weights as .pt "
            "or .safetensors"
        ) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_program(student: Classifier) -> bytes:
    """The ONNX file.

    Raises:
        UsageError: a package is not installed.
        UserError: the network has an operation that ONNX lacks.
    """
    for package in ONNX_PACKAGES:
        if find_spec(package) is None:
            raise UsageError(f".onnx needs the package {package}: install it with pip install '.[export]'")
    try:
        with quiet():
            program = torch.onnx.export(
                student.net.eval(),
                (example(student),),
                input_names=[INPUT],
                output_names=output_names(student),
                dynamic_shapes=({0: batch()},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # as above; torch gives its own error the reason as the cause
        reason = first_line(error.__cause__ or error)
        raise UserError(
            f"{student.card.architecture} cannot be written as ONNX ({reason}): export its weights as .pt "
            "or .safetensors, or the program as .pt2"
        ) from error
    assert program is not None, "with dynamo=True torch returns the program"
    return program.model_proto.SerializeToString()


def output_names(student: Classifier) -> list[str] | None:
    """The names of the network's outputs. What the classes are read from is named `logits`, `probabilities`, `logit` or
    `probability`. None if an output is no tensor.
    """
    wiring = student.card.wiring
    word = wiring.outputs.removeprefix("one ")
    if wiring.logits_at is None:
        return [word]
    with torch.no_grad():
        returned = student.net.eval()(example(student))
    parts = dict(returned) if isinstance(returned, Mapping) else dict(enumerate(returned))
    if not all(isinstance(part, torch.Tensor) for part in parts.values()):
        return None
    return [word if place == wiring.logits_at else f"other_{place}" for place in parts]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's warnings, log lines and listings of the network's operations from the terminal."""
    off = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(off)


def example(student: Classifier) -> torch.Tensor:
    """Two black images; torch takes a batch of one for a fixed size."""
    return torch.zeros(2, *student.card.input_shape)


def batch() -> torch.export.Dim:
    return torch.export.Dim("batch")

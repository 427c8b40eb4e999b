"""A student as a program that runs without its Python code: `torch.export` (.pt2) and ONNX (.onnx).

Like the original network, the program takes normalised images (N, C, H, W) of any N.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec

import torch

from synth.basics.errors import UsageError, UserError, first_line
from synth.checkpoint.classifier import Classifier

INPUT, OUTPUT = "images", "logits"
ONNX_PACKAGES = ("onnx", "onnxscript")


def exported_program(student: Classifier) -> bytes:
    """The file that `torch.export.load` reads. Raises UserError if torch cannot trace the network."""
    try:
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                student.net.eval(),
                (example(student),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch()},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # as above
        raise UserError(
            f"{student.card.architecture} cannot be written as ONNX ({first_line(error)}): export its weights as .pt "
            "or .safetensors, or the program as .pt2"
        ) from error
    assert program is not None, "with dynamo=True torch returns the program"
    return program.model_proto.SerializeToString()


def example(student: Classifier) -> torch.Tensor:
    """Two black images; torch takes a batch of one for a fixed size."""
    return torch.zeros(2, *student.card.input_shape)


def batch() -> torch.export.Dim:
    return torch.export.Dim("batch")

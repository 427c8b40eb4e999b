"""The device that a report names, where this machine has it."""

from __future__ import annotations

from synth.basics.device import local_device
from synth.basics.errors import UserError
from unlearn.report.verify.checks import told

DEVICES = ("auto", "cpu", "cuda", "mps")


def device_of(name: object) -> str:
    """Raises UserError where this machine has no such device, with the option that names another."""
    if name not in DEVICES:
        raise UserError(f"the report names the device {told(str(name))!r}, which is none: replay it with --device cpu")
    return local_device(str(name))

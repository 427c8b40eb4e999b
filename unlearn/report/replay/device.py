"""The device that a report names, if this machine has it."""

from __future__ import annotations

from synth.basics.device import local_device
from synth.basics.errors import UserError
from unlearn.report.printable import printable

DEVICES = ("auto", "cpu", "cuda", "mps")


def device_of(name: object) -> str:
    """Raises UserError where there is no such device, or none on this machine."""
    if name not in DEVICES:
        raise UserError(f"the report names the unknown device {printable(str(name))!r}: replay it with --device cpu")
    return local_device(str(name))

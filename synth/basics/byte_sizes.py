"""Numbers of bytes as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Bytes:
    """A size in bytes, where a plain number would mean something else."""

    count: int


def format_bytes(count: float) -> str:
    """`480 kB`, `1.3 GB` or `8.1 TB`, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "bytes" else f"{count:,.0f} {unit}"


def in_gib(size: float) -> str:
    """A number of bytes for a person, such as `1.5 GiB` or `12 MiB`."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def parse_bytes(text: str) -> int:
    """The number of bytes that `100MB`, `1.5 GB` or `1GiB` means; small and large letters are the same.

    Raises ValueError for any other text, and for no bytes at all.
    """
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kmgt]?i?b)\s*", text, re.IGNORECASE)
    factors = {unit.lower(): factor for unit, factor in UNITS.items()}
    factor = factors.get(match[2].lower()) if match else None
    count = int(float(match[1]) * factor) if match and factor else 0
    if count < 1:
        raise ValueError(f"{text[:40]!r} is not a number of bytes: write it like 100MB or 1GiB")
    return count

"""Which code wrote a record or a page: the package's version, and a fingerprint of the sources that decide its words."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files

PACKAGE = "data-free-unlearning"


def audit_version() -> str:
    """Of what decides a record: the measures, the rules and their words."""
    return f"{version(PACKAGE)}, sources {fingerprint('unlearn.audit')}"


def page_version() -> str:
    """Of what decides a page besides its record: the same, the page's own code and style, and what draws its charts."""
    sources = fingerprint("unlearn.audit", "unlearn.report")
    return f"{PACKAGE} {version(PACKAGE)}, sources {sources}, matplotlib {version('matplotlib')}"


@cache
def fingerprint(*packages: str) -> str:
    """The first digits of the SHA-256 of the packages' Python and style files."""
    digest = hashlib.sha256()
    for package in packages:
        sources = [file for file in files(package).iterdir() if file.name.endswith((".py", ".css"))]
        for file in sorted(sources, key=lambda file: file.name):
            data = file.read_bytes()
            digest.update(f"{package}/{file.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:12]

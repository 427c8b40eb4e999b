"""Versions of the packages that content depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_versions() -> dict[str, str]:
    """Versions of the packages that content depends on."""
    found = {}
    for package in ("torch", "torchvision", "numpy", "pillow", "webdataset", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found

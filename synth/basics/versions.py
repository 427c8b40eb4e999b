"""Versions of the packages that the content of shards and students depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_versions() -> dict[str, str]:
    """Version by package; `absent` for a package that is not installed."""
    found = {}
    for package in ("torch", "torchvision", "numpy", "pillow", "webdataset", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found

"""Which versions of Ray are used: those of setup.cfg that have the parts without a public name."""

from __future__ import annotations

import os
import re
from importlib.metadata import requires

import pytest
from packaging.specifiers import SpecifierSet

from synth.basics.errors import UserError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")

from ray._private import ray_constants  # noqa: E402

from synth.executors import ray as cluster  # noqa: E402

CURE = "pip install '.[cluster]', or use --address none to work without Ray"


def test_the_range_of_versions_has_an_end_and_holds_the_installed_version() -> None:
    (text,) = [line for line in requires("data-free-unlearning") or () if line.startswith("ray")]
    match = re.match(r"ray\[default\](\S+?);", text)
    assert match
    assert SpecifierSet(match[1]).contains(ray.__version__)
    assert not SpecifierSet(match[1]).contains("3.0.0")


@pytest.mark.parametrize("version", ["2.30.0", "3.0.0"])
def test_another_version_is_refused_with_the_range(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(ray, "__version__", version)
    with pytest.raises(UserError) as caught, cluster.connected("local", cluster.Workers(count=1)):
        pass
    words = rf"Ray {version} cannot be used here \(it is tested with ray<[0-9.]+,>=[0-9.]+\): {re.escape(CURE)}"
    assert re.fullmatch(words, str(caught.value))


class Renamed:
    """A job config that keeps the driver's folders under another name."""


@pytest.mark.parametrize("part", ["the loopback switch", "the driver's folders"])
def test_a_ray_without_a_part_that_a_private_one_needs_is_refused(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    if part == "the loopback switch":
        monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    else:
        monkeypatch.setattr(cluster, "JobConfig", Renamed)
    before = dict(os.environ)
    with pytest.raises(UserError) as caught:
        cluster.start_local(cluster.Workers(count=1))
    assert str(caught.value).startswith(f"Ray {ray.__version__} cannot be used here (")
    assert str(caught.value).endswith(CURE)
    assert "\n" not in str(caught.value)
    assert dict(os.environ) == before

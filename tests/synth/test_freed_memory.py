import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from synth.basics.malloc import keep_freed_memory
assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.ones(2, 2**20).mul(2).add(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # page faults; 150 tensors of 8 MiB are 307,200 pages of 4 KiB


RELEASE = """
import torch
from synth.basics.free_memory import PROC, numbers_in
from synth.basics.malloc import keep_freed_memory, release_freed_memory
def resident():
    return numbers_in(PROC / "self" / "status")["VmRSS"]
keep_freed_memory()
tensors = [torch.ones(2**20) for _ in range(32)]
before = resident()
del tensors
kept = resident()
release_freed_memory()
print(before - kept, before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_given_back_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True)
    kept, released = map(int, done.stdout.split())  # KiB of 128 MiB
    assert kept < 2**14 < 2**16 < released

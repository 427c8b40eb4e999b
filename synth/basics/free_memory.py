"""How much memory this process may still take: of the machine, of its container, and within its own limits."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from synth.basics.byte_sizes import in_gib
from synth.basics.malloc import c_function

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # bytes; cgroup version 1 writes a number near 2**63 where there is no limit

# How many processes share this machine's memory, and this one's share of a GPU; the executor says both.
processes, gpu_share = 1, 1.0


@dataclass(frozen=True)
class Free:
    """The bytes that are free, and in words what limits them."""

    size: int
    limit: str


def share_memory(among: int, of_gpu: float = 1.0) -> None:
    """From now on `among` processes like this one share the machine's memory equally, and this one has a share of the
    GPU.
    """
    global processes, gpu_share
    processes, gpu_share = among, of_gpu


def free_memory(device: str = "cpu") -> Free:
    """The memory that is free for this process on the device: the least of what all limits leave.

    On a CPU the limits are those of `ulimit -v` and `ulimit -d`, of each control group (a container's), and the memory
    that the system calls available. Where there is no /proc, as on macOS, it is the machine's memory without this
    process's own. On CUDA it is what the driver calls free, and what PyTorch holds without need.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return Free(min(free + reserved - used, int(gpu_share * total) - used), f"the GPU has {in_gib(total)}")
    return min(host_limits(), key=lambda free: free.size)


def host_limits() -> Iterator[Free]:
    """What each limit leaves to this process. Memory that it freed but keeps counts as free."""
    kept, status = kept_by_malloc(), numbers_in(PROC / "self" / "status")
    size, data, resident = (1024 * status.get(name, 0) for name in ("VmSize", "VmData", "VmRSS"))
    resident = resident or resident_before()
    limits = ((resource.RLIMIT_AS, size, "-v"), (resource.RLIMIT_DATA, data, "-d"))
    for which, used, option in limits:
        limit = resource.getrlimit(which)[0]
        if limit != resource.RLIM_INFINITY and used:
            yield Free(limit - used + kept, f"'ulimit {option}' allows {in_gib(limit)}")
    for limit, used in control_groups():
        mine = limit // processes - resident
        yield Free(min(limit - used, mine) + kept, f"the container's limit is {in_gib(limit)}")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = 1024 * numbers_in(PROC / "meminfo").get("MemAvailable", (machine - resident) // 1024)
    mine = machine // processes - resident if processes > 1 else available
    yield Free(min(available, mine) + kept, f"this machine has {in_gib(machine)}")


def control_groups() -> Iterator[tuple[int, int]]:
    """The limit and the use, in bytes, of this process's control group and of those around it, where there is a limit.

    File contents that the system can drop at once do not count as used. Versions 1 and 2 of the interface are read.
    """
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cached = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            limit, usage, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        place = root / path.strip("/")
        for group in (place, *place.parents):
            if not group.is_relative_to(root):
                break
            most, used = number_in(group / limit), number_in(group / usage)
            if most is not None and used is not None and most < UNLIMITED:
                yield most, used - min(used, numbers_in(group / "memory.stat").get(cached, 0))


def number_in(path: Path) -> int | None:
    """The number in a file of the system; None if there is no such file, or no number in it (`max`)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def numbers_in(path: Path) -> Mapping[str, int]:
    """The numbers in a file of the system with lines such as `VmRSS:  1024 kB`; empty if there is no such file."""
    try:
        words = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def resident_before() -> int:
    """The most memory that this process ever had, in bytes, for systems that do not say what it has now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class HeapInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def kept_by_malloc() -> int:
    """The bytes that the C library keeps for the next use (see `keep_freed_memory`); 0 where it cannot say.

    glibc says so since 2.33.
    """
    ask = c_function("mallinfo2")
    if ask is None:
        return 0
    ask.restype = HeapInfo
    kept: int = ask().fordblks
    return kept

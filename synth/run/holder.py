"""Who holds a lock: the process that the lock's content describes, and whether that process still runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.basics.foreign_json import parse_object


def facts_in(content: bytes | None) -> dict[str, Any]:
    """What a lock says about its holder; empty if there is no lock, or its content is not one of ours."""
    try:
        return parse_object(content or b"")
    except ValueError:
        return {}


def holder_words(seen: bytes) -> str:
    """Who holds a lock. Anyone can write a lock, so only printable characters of it are shown."""
    holder = facts_in(seen)
    command, pid, host = (printable(holder.get(name)) for name in ("command", "pid", "host"))
    if "pid" not in holder:
        return "an unknown process"
    return f"{repr(command) if 'command' in holder else 'another command'} (process {pid} on {host})"


def printable(value: Any) -> str:
    return "".join(filter(str.isprintable, str(value)))[:100]


def runs_here(holder: Mapping[str, Any]) -> bool:
    """Whether the holder of a lock is a process that runs on this machine."""
    here = process_facts(holder.get("pid", 0))
    return here["begun"] is not None and all(holder.get(name) == here[name] for name in ("machine", "begun"))


def process_facts(pid: Any) -> dict[str, Any]:
    """The machine, the process's number, and when the process began; None if there is no such process."""
    return {"machine": this_machine(), "pid": pid, "begun": process_begun(pid)}


def this_machine() -> str:
    """This machine's boot and container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def process_begun(pid: Any) -> str | None:
    """When a process began, in ticks since the machine's start; None if there is no such process.

    On a system without /proc it is "unknown" for every process that exists.
    """
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie counts as dead
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"

"""What one input costs, and whether it touched anything: processor time, memory, files outside its folder, programs.

Runs in a child process, because Python keeps an audit hook for the rest of a process's life.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from synth.basics.errors import UserError
from synth.basics.malloc import release_freed_memory

SECONDS = 1.0  # of the processor, for one input, beyond what a valid file takes
SLOW = "more than a second"
MEMORY = 2**30  # bytes that one input may add
HEADROOM = 3 * 2**30  # bytes after which the system refuses more
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
PROGRAMS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Seen:
    """What happened to one input. `fault` is empty if it was read or refused as it should be."""

    refused: bool
    fault: str
    detail: str
    seconds: float
    memory: int  # bytes


class Watch:
    """Reads inputs in `folder` and watches what else happens."""

    def __init__(self, folder: Path) -> None:
        self.inside = f"{folder.resolve()}{os.sep}"
        self.touched: list[str] = []
        self.watching = False
        sys.addaudithook(self.hook)

    def limit_memory(self) -> None:
        """Refuse what exceeds the headroom, so that a faulty reader does not take the machine down."""
        release_freed_memory()  # or an input that uses freed memory again would not show
        limit = figures()["VmSize"] + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int) and self.outside(path):
                self.touched.append(f"wrote {path!r}")
        elif event in CHANGES and any(self.outside(path) for path in arguments if isinstance(path, (str, bytes, Path))):
            self.touched.append(f"{event} {arguments}")
        elif event in PROGRAMS:
            self.touched.append(f"{event} {str(arguments)[:200]}")

    def outside(self, path: object) -> bool:
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        return not (name + os.sep).startswith(self.inside) and name != os.devnull

    def see(self, read: Callable[[], object], usual: float) -> Seen:
        """Call the reader, and judge how it ended. `usual` are the seconds that it takes for a valid file."""
        release_freed_memory()  # or an input that uses freed memory again would not show
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before = figures()
        started, self.touched, self.watching = time.process_time(), [], True
        fault, detail, refused = "", "", False
        try:
            read()
        except (UserError, click.ClickException):
            refused = True
        except Exception as error:
            fault, detail = name_of(error), "".join(traceback.format_exception(error, limit=-12))[-6000:]
        finally:
            self.watching = False
        seconds, after = time.process_time() - started, figures()
        memory = max(after["VmHWM"] - before["VmRSS"], after["VmPeak"] - before["VmPeak"])
        if not fault and self.touched:
            fault, detail = "touched something outside its folder", "\n".join(self.touched)
        elif not fault and memory > MEMORY:
            fault, detail = "more than 1 GB", f"{memory / 2**20:.0f} MiB"
        elif not fault and seconds > SECONDS + usual:
            fault, detail = SLOW, f"{seconds:.2f} s"
        return Seen(refused, fault, detail, seconds, memory)


def name_of(error: Exception) -> str:
    """The type of the error and the last line of this project that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    ours = [f for f in frames if "/synth/" in f.filename or "/unlearn/" in f.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} in {where}"


def figures() -> dict[str, int]:
    """Bytes of this process by the names of /proc/self/status."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[0].startswith("Vm")}

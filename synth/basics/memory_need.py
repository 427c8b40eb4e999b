"""How much memory a computation takes, measured on a few images and extrapolated to many."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synth.basics.ticks import unheard

FEW = 2  # images of the smaller measurement; the larger one has twice as many; batch norm needs two


@dataclass(frozen=True)
class Need:
    """The bytes that a computation on N images takes at its peak: `fixed` + N `each`."""

    fixed: int
    each: int

    def of(self, images: int) -> int:
        return self.fixed + self.each * images


def need_of(compute: Callable[[int], object], device: str, few: int = FEW) -> Need:
    """What `compute(images)` takes, from its peaks with `few` images and with twice as many.

    On a CPU the tensors are counted that its operations make. This is the same number on every machine, and it does
    not depend on what the process did before, as the resident memory does. The buffers inside a kernel are not counted;
    whoever uses the result leaves room for them.
    """
    with unheard():
        less, more = (peak(partial(compute, images), device) for images in (few, 2 * few))
    each = max(0, more - less) // few
    return Need(max(0, less - few * each), each)


def peak(compute: Callable[[], object], device: str) -> int:
    """The most bytes of tensors that live at one time because of `compute()`."""
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        compute()
        return torch.cuda.max_memory_allocated() - before
    with Counting() as counting:
        compute()
    return counting.peak


class Counting(TorchDispatchMode):
    """Counts the bytes of the tensors that this thread's operations make inside the `with` block, while they live.

    Tensors from before count nothing, nor do views of them. Backward passes are seen too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known: set[int] = set()  # addresses of the storages that live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note((args, kwargs), made=False)
        found = func(*args, **(kwargs or {}))
        self.note(found, made=True)
        return found

    def note(self, values: object, made: bool) -> None:
        for storage in storages(tree_leaves(values)):
            address = storage._cdata
            if address in self.known:
                continue
            self.known.add(address)
            size = storage.nbytes() if made else 0
            weakref.finalize(storage, self.release, address, size).atexit = False
            self.bytes += size
            self.peak = max(self.peak, self.bytes)

    def release(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.bytes -= size


def storages(values: Iterable[object]) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in values if isinstance(value, Tensor)]

"""Dropping the patches of a transformer that matter least while images are optimised (SMI, Hu et al. 2024).

A step costs in proportion to the patches. After a few steps most of what the class needs lies in some of them, so the
others, the background, are left out of the teacher's blocks and keep their pixels. The paper ranks patches by the class
token's attention. Here the gradient of their pixels ranks them, which every transformer has, and which crops, shifts
and mirror images of the images do not disturb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.checkpoint.classifier import Classifier

STAGES = (0.1, 0.25, 0.5)  # shares of the steps after which a third of the patches to drop is dropped
MOST_PREFIX = 8  # tokens before those of the patches: class token, distillation token, registers


@dataclass(frozen=True)
class Blocks:
    """The first of a transformer's equal blocks, and the patches of its tokens: (rows, columns) after the prefix."""

    first: nn.Module
    rows: int
    columns: int
    prefix: int


def find_blocks(teacher: Classifier) -> Blocks | None:
    """The blocks whose tokens can be dropped; None where there are none, as in Swin, whose windows need all patches.

    The blocks are a list of modules of one class through which all tokens pass in one shape. A forward pass with half
    of the patches shows that dropping works.
    """
    x_norm = torch.zeros(2, *teacher.card.input_shape, device=teacher.mean.device)
    for container in teacher.net.modules():
        children = list(container.children())
        if not isinstance(container, (nn.Sequential, nn.ModuleList)) or len({type(child) for child in children}) != 1:
            continue
        shapes = token_shapes(teacher, children, x_norm)
        if len(shapes) != len(children) or len(set(shapes)) != 1:
            continue
        blocks = blocks_for(children[0], shapes[0], teacher.card.input_shape)
        if blocks and works(teacher, blocks, x_norm):
            return blocks
    return None


@torch.no_grad()
def token_shapes(teacher: Classifier, modules: list[nn.Module], x_norm: Tensor) -> list[torch.Size]:
    """The shapes of the tokens (B, T, C) that each module gets in a forward pass."""
    shapes: list[torch.Size] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 3:
            shapes.append(inputs[0].shape)

    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        teacher.logits(x_norm)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def blocks_for(first: nn.Module, shape: torch.Size, image_shape: tuple[int, int, int]) -> Blocks | None:
    """The blocks with square patches whose tokens, after a short prefix, are this many."""
    _, height, width = image_shape
    for side in range(1, min(height, width) + 1):
        rows, columns = height // side, width // side
        prefix = shape[1] - rows * columns
        if height % side == width % side == 0 and rows * columns > 1 and 0 <= prefix <= MOST_PREFIX:
            return Blocks(first, rows, columns, prefix)
    return None


@torch.no_grad()
def works(teacher: Classifier, blocks: Blocks, x_norm: Tensor) -> bool:
    """Whether the network computes finite logits from half of the patches."""
    dropping = Dropping(blocks, share=0.5)
    dropping.kept = torch.arange(blocks.rows * blocks.columns // 2, device=x_norm.device).expand(len(x_norm), -1)
    try:
        with dropping.hooked():
            return bool(torch.isfinite(teacher.logits(x_norm)).all())
    except (RuntimeError, ValueError, AssertionError):  # the network needs all tokens
        return False


class Dropping:
    """Which pixels of the images are still optimised, and which patches the teacher computes."""

    def __init__(self, blocks: Blocks | None, share: float) -> None:
        self.blocks = blocks
        self.share = share if blocks else 0.0  # of the patches that are dropped in the end
        self.dropped = 0  # patches of each image
        self.mask: Tensor | None = None  # (B, 1, H, W): 1 where pixels are optimised
        self.kept: Tensor | None = None  # (B, K): the patches that the next forward pass computes
        self.importance: Tensor | None = None  # (B, rows x columns)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """The teacher's blocks compute only the kept patches inside the `with` block."""
        if self.blocks is None or not self.share:
            yield
            return
        handle = self.blocks.first.register_forward_pre_hook(self.drop)
        try:
            yield
        finally:
            handle.remove()

    def drop(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.kept is None or self.blocks is None:
            return inputs
        tokens, prefix = inputs[0], self.blocks.prefix
        places = (self.kept + prefix)[:, :, None].expand(-1, -1, tokens.shape[2])
        return (torch.cat([tokens[:, :prefix], tokens.gather(1, places)], 1), *inputs[1:])

    def resize(self, x: Tensor) -> None:
        """Fit the mask to images (B, C, H, W) of another size. The dropped patches stay dropped."""
        if self.mask is not None:
            self.mask = F.interpolate(self.mask, size=x.shape[-2:])

    def look(self, x: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
        """The view of the images. Where patches are dropped, the mask takes the same view and says which."""
        if self.mask is None or self.blocks is None:
            return view(x)
        both = view(torch.cat([x, self.mask], 1))
        seen, mask = both[:, :-1], both[:, -1:].detach()
        covered = F.adaptive_avg_pool2d(mask, (self.blocks.rows, self.blocks.columns)).flatten(1)
        self.kept = covered.topk(covered.shape[1] - self.dropped, dim=1).indices.sort(1).values
        return seen

    def learn(self, x: Tensor, done: float) -> None:
        """Note how much each patch's pixels matter, keep the others as they are, and drop more patches after a stage.

        Args:
            x: the images with their gradient.
            done: the share of the steps that are taken.
        """
        if self.blocks is None or not self.share or x.grad is None:
            return
        grid = (self.blocks.rows, self.blocks.columns)
        now = F.adaptive_avg_pool2d(x.grad.abs().mean(1, keepdim=True), grid).flatten(1)
        now = now / now.sum(1, keepdim=True).clamp_min(1e-20)
        self.importance = now if self.importance is None else 0.8 * self.importance + 0.2 * now
        stages = sum(done >= stage for stage in STAGES)
        dropped = int(self.share * now.shape[1] * stages / len(STAGES))
        if dropped > self.dropped:
            self.dropped = dropped
            lasting = torch.ones_like(now).scatter(1, self.importance.topk(dropped, dim=1, largest=False).indices, 0.0)
            self.mask = F.interpolate(lasting.view(-1, 1, *grid), size=x.shape[-2:])
        if self.mask is not None:
            x.grad.mul_(self.mask)
            self.importance = self.importance * F.adaptive_avg_pool2d(self.mask, grid).flatten(1)

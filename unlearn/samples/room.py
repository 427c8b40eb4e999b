"""Decoded shards in memory. Threads decode shards ahead of the training.

The memory is one array per field, with a slot for each shard, and is taken once: a shard that is no longer used leaves
its slot to the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from synth.basics.phases import phase
from synth.shards.view_recipes import COLUMNS, PARTNER, SHARE, WHOLE
from synth.shards.views import plain_views
from unlearn.samples.batch import Batch
from unlearn.samples.filters import Filter, View, apply, view_of
from unlearn.samples.memory import Share
from unlearn.samples.runs import Runs

AT_ONCE = 2**21  # logits that the filters look at together


class Room:
    """Memory for `share.slots` shards, with the samples that pass the filters.

    An image has the id `shard * size + its row in the shard`, where `size` is the number of images of the largest
    shard.

    Args:
        seed: of the order in which an image shows its views.
    """

    def __init__(self, runs: Runs, share: Share, filters: Mapping[str, Filter], seed: int) -> None:
        self.runs, self.filters, self.seed = runs, filters, seed
        self.size, views, card = runs.most_images, 1 + runs.most_views, runs.card
        self.holds_all = share.slots >= runs.planned
        rows = share.slots * self.size
        self.images = torch.empty(rows, *card.image_shape, dtype=torch.uint8)
        self.labels = torch.empty(rows, dtype=torch.long)
        self.logits = torch.empty(rows, views, card.num_classes, dtype=torch.float16)
        self.recipes = torch.empty(rows, views, COLUMNS, dtype=torch.int32)  # partners are rows of this room
        # The views of each image that pass the filters, in the order in which they are shown; and their number.
        self.shown = torch.empty(rows, views, dtype=torch.int16)
        self.passed = torch.zeros(rows, dtype=torch.long)
        self.slot_of = torch.full((runs.planned,), -1)  # of each shard
        self.free = list(range(share.slots))
        self.coming: dict[int, Future[Counter[str]]] = {}  # shards that are being decoded, or were
        self.readers = ThreadPoolExecutor(share.readers, thread_name_prefix="shards")

    def close(self) -> None:
        """Stop decoding ahead."""
        self.readers.shutdown(wait=False, cancel_futures=True)

    def request(self, shards: Iterable[int]) -> None:
        """Begin to decode these shards, as far as there is room."""
        for shard in shards:
            if shard not in self.coming and self.free:
                slot = self.free.pop()
                self.slot_of[shard] = slot
                self.coming[shard] = self.readers.submit(self.fill, shard, slot)

    def keep(self, shards: Iterable[int]) -> None:
        """Make room: only these shards stay. Does nothing if the room holds all shards."""
        if self.holds_all:
            return
        for shard in set(self.coming).difference(shards):
            future = self.coming.pop(shard)
            if not future.cancel():
                future.exception()  # waits, so that the slot is not written to any more
            self.free.append(int(self.slot_of[shard]))
            self.slot_of[shard] = -1

    def need(self, shards: Sequence[int]) -> dict[int, Counter[str]]:
        """Wait until these shards are decoded. How many samples of each were kept, and dropped by each filter.

        Raises UserError if a shard is missing or damaged.
        """
        with phase("wait for shards"):
            self.request(shards)
            return {shard: self.coming[shard].result() for shard in shards}

    def fill(self, shard: int, slot: int) -> Counter[str]:
        """Decode a shard into a slot. It runs in a thread."""
        samples = self.runs.read(shard)
        count, views = samples.logits.shape[:2]
        start = slot * self.size
        mine = slice(start, start + count)
        self.images[mine] = torch.from_numpy(samples.images)
        self.labels[mine] = torch.from_numpy(samples.labels)
        self.logits[mine, :views] = torch.from_numpy(samples.logits)
        self.recipes[mine, 0] = plain_views(torch.arange(mine.start, mine.stop), self.runs.card.image_shape[1:])
        self.recipes[mine, 1:views] = torch.from_numpy(samples.views)
        self.recipes[mine, 1:views, PARTNER] += start - int(samples.numbers[0])
        passed, dropped = self.filtered(view_of(samples, self.runs.plan_of(shard)))
        passed = passed.view(count, views)
        # Views that pass come first, in random order: the image shows the next one in each epoch.
        draws = np.random.default_rng((self.seed, shard)).random((count, views))
        self.shown[mine, :views] = (torch.from_numpy(draws) + ~passed).argsort(1).short()
        self.passed[start : start + self.size] = 0
        self.passed[mine] = passed.sum(1)
        return Counter(kept=int(passed.sum()), **dropped)

    def filtered(self, view: View) -> tuple[Tensor, Counter[str]]:
        """The mask of the samples that pass, and how many each filter dropped. A few samples at once, for the memory of
        the filters' own numbers.
        """
        many = max(1, AT_ONCE // view.logits.shape[1])
        masks, dropped = [], Counter(dict.fromkeys(self.filters, 0))
        for start in range(0, len(view.labels), many):
            mask, counts = apply(self.filters, view.part(slice(start, start + many)))
            masks.append(mask)
            dropped.update(counts)
        return torch.cat(masks), dropped

    def ids(self, shards: Iterable[int]) -> Tensor:
        """The images of decoded shards that have a sample to learn, in the order of their ids."""
        found = [torch.empty(0, dtype=torch.long)]
        for shard in shards:
            start = int(self.slot_of[shard]) * self.size
            found.append(self.passed[start : start + self.size].nonzero()[:, 0] + shard * self.size)
        return torch.cat(found)

    def batch(self, ids: Tensor, epoch: int) -> Batch:
        """These images, each as the view that it shows in this epoch."""
        rows = self.slot_of[ids // self.size] * self.size + ids % self.size
        views = self.shown[rows, epoch % self.passed[rows]].long()
        recipes, own = self.recipes[rows, views], self.images[rows]
        mixed = bool((recipes[:, SHARE] != WHOLE).any())
        partners = self.images[recipes[:, PARTNER].long()] if mixed else own
        return Batch(own, partners, recipes, self.labels[rows], self.logits[rows, views].float(), ids)

"""A run's index: its shards, their hashes, and everything that determined their content.

`index.json` is a valid wids index with additional fields, and is written last. `index.part.json` has the same form and
grows during the run. Neither holds a time, so equal runs have equal indexes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.checkpoint.card import check_classifier, check_notes, sha256_in
from synth.checkpoint.target import Target
from synth.checkpoint.wiring import Wiring, with_wiring
from synth.shards.plan import Plan, ShardJob
from synth.shards.read import DamagedShardError, decode_shard
from synth.shards.samples import LARGEST_SHARD, PIXEL_MODES, Layout, Samples
from synth.shards.store import Store

FORMAT_VERSION = 2
INDEX, PART = "index.json", "index.part.json"
GENERATOR = "generator.safetensors"
SHARD_NAME = re.compile(r"shard-([0-9]{6,9})\.tar")
CLASS = re.compile(r"[0-9]{1,6}")
LARGEST_INDEX = 2**28  # bytes; some 25,000 shards of 1,000 classes, or a million of ten


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What determines a run's content. The versions are for information only: they may differ when a run is resumed."""

    teacher_sha256: str
    architecture: str
    width: float
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    settings: Mapping[str, Any]
    plan: Plan
    device: str
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    wiring: Wiring = field(default_factory=Wiring)
    target: Target | None = None  # of a regressor, whose classes are its bins

    def __post_init__(self) -> None:
        if not self.image_shape or self.image_shape[0] not in PIXEL_MODES:
            raise ValueError(f"image shape {list(self.image_shape)} is not (1 or 3, height, width)")
        check_classifier(
            architecture=self.architecture,
            width=self.width,
            class_names=self.class_names,
            input_shape=self.image_shape,
            mean=self.mean,
            std=self.std,
            target=self.target,
        )
        if not all(text.isprintable() and len(text) <= 200 for text in (self.method, self.device)):
            raise ValueError("its method or device is not printable text of at most 200 characters")
        check_notes({"settings": self.settings, "versions": self.versions}, "its settings and versions")
        sha256_in(self.teacher_sha256, "its teacher's")
        if max(self.plan.classes) >= len(self.class_names):
            raise ValueError(f"class {max(self.plan.classes)} has no name")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def layout(self) -> Layout:
        """What every sample of the run has in common."""
        return Layout(self.image_shape, self.num_classes, self.plan.views, self.plan.image_format, self.target)

    def to_json(self) -> dict[str, Any]:
        raw = with_wiring(dataclasses.asdict(self), self.wiring)
        if self.target is None:
            del raw["target"]
        return raw

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RunCard:
        """The card in `raw`. Raises KeyError, TypeError or ValueError if it is not a card."""
        plan = raw["plan"]
        return cls(
            teacher_sha256=str(raw["teacher_sha256"]),
            architecture=str(raw["architecture"]),
            width=float(raw["width"]),
            image_shape=tuple(int(n) for n in raw["image_shape"]),  # type: ignore[arg-type]
            class_names=tuple(raw["class_names"]),
            mean=tuple(float(v) for v in raw["mean"]),
            std=tuple(float(v) for v in raw["std"]),
            method=str(raw["method"]),
            settings=dict(raw["settings"]),
            plan=Plan(
                classes=tuple(int(c) for c in plan["classes"]),
                per_class=int(plan["per_class"]),
                shard_size=int(plan["shard_size"]),
                views=int(plan["views"]),
                view_crop=float(plan["view_crop"]),
                image_format=str(plan["image_format"]),
                seed=int(plan["seed"]),
            ),
            device=str(raw["device"]),
            versions=dict(raw["versions"]),
            wiring=Wiring.from_json(raw.get("wiring", {})),
            target=Target.from_json(raw.get("target")),
        )


@dataclass(frozen=True)
class GateCounts:
    """What was counted while one shard was made: by the quality gate, if there is one, and of its images' copies."""

    again: int | None = None  # tries beyond each image's first
    missed: int | None = None  # images whose last try still misses a bound
    recognised: int | None = None  # copies of some images that the teacher called by their class
    judged: int | None = None  # copies of these images


@dataclass(frozen=True)
class ShardEntry:
    """One published shard."""

    number: int
    samples: int
    size: int  # bytes
    sha256: str
    class_counts: Mapping[int, int]
    counts: GateCounts = field(default_factory=GateCounts)

    @property
    def name(self) -> str:
        return shard_name(self.number)

    @classmethod
    def of(cls, job: ShardJob, data: bytes, gate: GateCounts | None = None) -> ShardEntry:
        """The entry of a job's shard. `gate` comes from whoever made the shard."""
        return cls.of_file(job, len(data), sha256_of(data), gate)

    @classmethod
    def of_file(cls, job: ShardJob, size: int, sha256: str, gate: GateCounts | None = None) -> ShardEntry:
        """The entry of a job's shard that somebody else has written, `size` bytes long."""
        return cls(job.number, job.images, size, sha256, job.class_counts, gate or GateCounts())

    @property
    def line(self) -> str:
        """The entry as a line of the index."""
        return "".join(self.pieces)

    @cached_property
    def pieces(self) -> tuple[str, str, str]:
        """The line before, in and after its class counts, encoded once. Equal counts of many shards share one text."""
        raw = self.to_json()
        counts = json.dumps(raw["class_counts"], sort_keys=True)
        before, _, after = json.dumps(raw | {"class_counts": 0}, sort_keys=True).partition('"class_counts": 0')
        return f'{before}"class_counts": ', shared(counts), after

    def to_json(self) -> dict[str, Any]:
        counts = {name: count for name, count in dataclasses.asdict(self.counts).items() if count is not None}
        return counts | {
            "url": self.name,
            "nsamples": self.samples,
            "filesize": self.size,
            "sha256": self.sha256,
            "class_counts": {str(c): n for c, n in self.class_counts.items()},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ShardEntry:
        match = SHARD_NAME.fullmatch(raw["url"])
        if match is None:
            raise ValueError(f"shard url {str(raw['url'])[:80]!r} is not a file of the run")
        hashed = sha256_in(raw["sha256"], "a shard's")
        counts = {class_in(c): count_in(n, "a class count") for c, n in raw["class_counts"].items()}
        others = {
            each.name: count_in(raw[each.name], f"'{each.name}'")
            for each in dataclasses.fields(GateCounts)
            if raw.get(each.name) is not None
        }
        if others.get("recognised", 0) > others.get("judged", 0):
            raise ValueError("more copies are recognised than judged")
        return cls(int(match[1]), int(raw["nsamples"]), int(raw["filesize"]), hashed, counts, GateCounts(**others))


@lru_cache(maxsize=4096)
def shared(text: str) -> str:
    """The same text, but the first object that had this content."""
    return text


def class_in(raw: str) -> int:
    """The class number that a count stands for. Raises ValueError if it is none."""
    if not CLASS.fullmatch(raw):
        raise ValueError(f"{raw[:20]!r} is not a class number")
    return int(raw)


def count_in(raw: object, whose: str) -> int:
    """A count in an index from elsewhere. Raises ValueError if it is none, such as text of 4,300 digits."""
    if type(raw) is not int or raw < 0:
        raise ValueError(f"{whose} is not a count")
    return raw


@dataclass(frozen=True)
class Index:
    """The content of a run's index. `complete` once every planned shard is published."""

    card: RunCard
    entries: Mapping[int, ShardEntry]
    complete: bool
    generator_sha256: str | None = None  # of the file GENERATOR, which made the run's images

    @property
    def samples(self) -> int:
        return sum(entry.samples for entry in self.entries.values())

    @property
    def judged(self) -> tuple[int, int]:
        """Copies of images that the teacher recognised while the shards were made, and those that it judged."""
        counts = [entry.counts for entry in self.entries.values()]
        return sum(each.recognised or 0 for each in counts), sum(each.judged or 0 for each in counts)

    def to_bytes(self) -> bytes:
        raw = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "name": f"{self.card.method}-{self.card.teacher_sha256[:12]}",
            "format_version": FORMAT_VERSION,
            "complete": self.complete,
            "run": self.card.to_json(),
        }
        if self.generator_sha256 is not None:
            raw["generator"] = {"url": GENERATOR, "sha256": self.generator_sha256}
        # One line per shard, encoded only once: long runs have long lists, and a growing list is written often.
        head = json.dumps(raw, indent=1, sort_keys=True).removesuffix("\n}")
        lines = (self.entries[number].line for number in sorted(self.entries))
        return (head + ',\n "shardlist": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n").encode()

    @classmethod
    def parse(cls, data: bytes, name: str) -> Index:
        """The index in `data`. Raises UserError if it is not an index, or one of a newer format."""
        try:
            raw = parse_object(data)
            version = int(raw["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            why = f" ({str(error)[:80]})" if isinstance(error, ValueError) else ""
            raise UserError(f"{name} is not an index of 'synth generate'{why}: make the run again") from error
        if version < FORMAT_VERSION:
            raise UserError(old_format(version, name))
        if version > FORMAT_VERSION:
            raise UserError(f"{name} has format version {version}, newer than {FORMAT_VERSION}: update this package")
        try:
            card = RunCard.from_json(raw["run"])
            listed = [ShardEntry.from_json(entry) for entry in raw["shardlist"]]
            complete = bool(raw["complete"])
            generator = sha256_in(raw["generator"]["sha256"], "its generator's") if "generator" in raw else None
            check_entries(card, listed, complete)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{name} is damaged ({str(error)[:200]}): make the run again") from error
        return cls(card, {entry.number: entry for entry in listed}, complete, generator)


def old_format(version: int, name: str) -> str:
    """What to say of a run in an older format. Its index holds all options that make the run again."""
    remote = "://" in name
    config = "index.json" if remote else shlex.quote(name)
    return (
        f"{name} has format version {version}, which is no longer read: make the run again in a new place with "
        f"'synth generate --config {config} --teacher T --out NEW', where T is the run's teacher"
        f"{' and index.json a copy of this index' if remote else ''}"
    )


def check_entries(card: RunCard, listed: list[ShardEntry], complete: bool) -> None:
    """Raise ValueError if the listed shards are not those of the plan, or larger than its samples can be."""
    plan = card.plan
    numbers = [entry.number for entry in listed]
    if len(set(numbers)) != len(numbers):
        raise ValueError("a shard is listed twice")
    if complete and len(numbers) != plan.shards:
        raise ValueError(f"{plan.shards} shards are planned, {len(numbers)} listed")
    for entry in listed:
        if entry.number >= plan.shards:
            raise ValueError(f"{entry.name} is listed, but only {plan.shards} shards are planned")
        if entry.samples != plan.images_in(entry.number):
            raise ValueError(
                f"{entry.name} is listed with {entry.samples} samples, but {plan.images_in(entry.number)} are planned"
            )
        largest = min(LARGEST_SHARD, card.layout.largest_shard(entry.samples))
        if not 0 < entry.size <= largest:
            raise ValueError(
                f"{entry.name} is listed with {entry.size} bytes, but {entry.samples} samples take at most {largest}"
            )


def find_index(store: Store) -> Index | None:
    """The run's index, complete or growing; None if the store holds no run."""
    for name in (INDEX, PART, INDEX):  # the second time for a run that became complete meanwhile
        try:
            return Index.parse(store.read(name, LARGEST_INDEX), f"{store}/{name}")
        except FileNotFoundError:
            continue
    return None


def index_sha256(store: Store) -> str:
    """The sha256 of a complete run's index. Raises FileNotFoundError if the run is not complete."""
    return sha256_of(store.read(INDEX, LARGEST_INDEX))


def read_index(store: Store) -> Index:
    """The run's index, complete or growing. Raises UserError if the store holds no run."""
    index = find_index(store)
    if index is None:
        raise UserError(
            f"there is no run in {store}: make one with 'synth generate --teacher T --per-class 100 --out {store}'"
        )
    return index


def read_shard(store: Store, index: Index, entry: ShardEntry) -> Samples:
    """A shard's samples. Raises DamagedShardError if size, hash, keys or labels differ from the index and the plan."""
    where = f"{store}/{entry.name}"
    cure = "make it again with the run's own 'synth generate' options and --resume"
    try:
        data = store.fetch(entry.name, entry.size, entry.sha256)
        if len(data) != entry.size:
            raise DamagedShardError(f"{where} has {store.size(entry.name):,} bytes instead of {entry.size:,}: {cure}")
    except FileNotFoundError:
        raise DamagedShardError(f"{where} is missing: {cure}") from None
    if sha256_of(data) != entry.sha256:
        raise DamagedShardError(f"{where} is damaged (its sha256 differs from the index): {cure}")
    samples = decode_shard(data, where, index.card.layout)
    job = index.card.plan.job(entry.number)
    if samples.keys != job.keys:
        raise DamagedShardError(f"{where} holds other keys than planned: {cure}")
    if samples.labels.tolist() != job.labels:
        raise DamagedShardError(f"{where} holds other classes than planned: {cure}")
    return samples


def read_shards(store: Store, index: Index) -> Iterator[Samples]:
    """The samples of each published shard, in the order of the shards. Raises as `read_shard` does."""
    for number in sorted(index.entries):
        yield read_shard(store, index, index.entries[number])

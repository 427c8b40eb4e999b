"""Reading the shard format, version 2. Nothing but png, jpg, cls, npy and json is ever decoded.

A shard is a plain tar. Each image has one 9-digit key, its number in the run, and five members: `KEY.png` or `KEY.jpg`
(the image), `KEY.cls` (its class index), `KEY.views.npy` (the recipes of its V views, int32 (V, COLUMNS)),
`KEY.logits.npy` (the teacher's logits on the decoded image and on each view, float16 (1 + V, K)) and `KEY.json`
(method, seed, confidence, entropy in nats). The bytes depend on the samples only. A shard from elsewhere may be
hostile.

A regressor's images have `KEY.target.npy` in place of `KEY.cls`: the middle of a bin, a float32 in the target's unit.
Their logits are those of the bins' masses (`synth.checkpoint.masses`).
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterator
from tokenize import TokenError
from typing import Any

import numpy as np

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.image_files import UnreadableImageError
from synth.basics.settings import require
from synth.checkpoint.target import Target
from synth.shards.images import PILLOW_NAMES, decode_file
from synth.shards.samples import LARGEST_MEMBER, LARGEST_NUMBER, LARGEST_SHARD, Layout, Samples
from synth.shards.view_recipes import COLUMNS, first_fault
from synth.shards.write import label_kind, npy_header

LARGEST_RECORD = 65536  # bytes
MEMBERS = ("json", "logits.npy", "views.npy")  # and the image, and its class or target
NEAR = 1e-3  # of a bin's width: float32 rounds a target


class DamagedShardError(UserError):
    """A shard that breaks the format, or differs from its index."""


def decode_shard(data: bytes, name: str, layout: Layout) -> Samples:
    """The samples in a shard's bytes.

    Raises:
        DamagedShardError: a member, name, type, size or value that the format does not allow. It calls the shard
        `name`.
    """
    members = read_members(data, name, (kind := label_kind(layout.target), *MEMBERS, layout.image_format))
    keys = sorted(members)
    if len(keys) * layout.largest_sample > LARGEST_SHARD:
        raise DamagedShardError(
            f"{name}: {len(keys):,} images of {layout.image_shape} take more than {LARGEST_SHARD:,} bytes"
        )
    count, views, classes = len(keys), layout.views, layout.num_classes
    samples = Samples(
        keys=keys,
        images=np.empty((count, *layout.image_shape), dtype=np.uint8),
        labels=np.empty(count, dtype=np.int64),
        logits=np.empty((count, 1 + views, classes), dtype=np.float16),
        views=np.empty((count, views, COLUMNS), dtype=np.int32),
        records=[],
    )
    for row, key in enumerate(keys):
        kinds, where = members[key], f"{name}, image {key}"
        label = kinds[kind]
        samples.labels[row] = (
            decode_label(label, where, classes) if layout.target is None else decode_target(label, where, layout.target)
        )
        samples.records.append(decode_record(kinds["json"], where))
        samples.logits[row] = decode_npy(kinds["logits.npy"], f"{where}: its logits", "<f2", (1 + views, classes))
        samples.views[row] = decode_npy(kinds["views.npy"], f"{where}: its views", "<i4", (views, COLUMNS))
        samples.images[row] = decode_image(kinds[layout.image_format], where, layout)
    check_values(samples, name, layout)
    return samples


def check_values(samples: Samples, name: str, layout: Layout) -> None:
    """Raise DamagedShardError for logits that are not finite, or recipes that no view can have."""
    finite = np.isfinite(samples.logits).all((1, 2))
    if not finite.all():
        raise DamagedShardError(f"{name}, image {samples.keys[int(finite.argmin())]}: its logits hold NaN or infinity")
    fault = first_fault(samples.views, samples.numbers, layout.image_shape[1:])
    if fault is not None:
        raise DamagedShardError(f"{name}, image {samples.keys[fault[0]]}, {fault[1]}")


def read_members(data: bytes, name: str, kinds: tuple[str, ...]) -> dict[str, dict[str, bytes]]:
    """The tar's members by key and kind. Each key has all kinds."""
    allowed = re.compile(rf"([0-9]{{9}})\.({'|'.join(map(re.escape, kinds))})")
    members: dict[str, dict[str, bytes]] = {}
    for member, content in tar_files(data, name):
        match = allowed.fullmatch(member)
        if match is None:
            raise DamagedShardError(f"{name}: member {member[:80]!r} is not allowed; only {', '.join(kinds)} are read")
        key, kind = match.groups()
        if kind in members.setdefault(key, {}):
            raise DamagedShardError(f"{name}: member {member} is there twice")
        members[key][kind] = content
    for key, found in members.items():
        if missing := [kind for kind in kinds if kind not in found]:
            raise DamagedShardError(f"{name}, image {key}: its {missing[0]} is missing")
    return members


def tar_files(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of a tar's plain files, up to its end marker.

    Reads header by header. `tarfile.open` would also read pax, GNU and sparse extensions: they are not part of the
    format, and a crafted pax header of one megabyte keeps it busy for a quarter of an hour.
    """
    offset = 0
    while any(block := data[offset : offset + tarfile.BLOCKSIZE]):
        member, size = our_header(block) or foreign_header(block, name)
        start = offset + tarfile.BLOCKSIZE
        content = data[start : start + size]
        if len(content) != size:
            raise DamagedShardError(f"{name}: member {member[:80]!r} is cut short")
        yield member, content
        offset = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if not block:
        raise DamagedShardError(f"{name} is cut short: the end of its tar is missing")


def our_header(block: bytes) -> tuple[str, int] | None:
    """Name and size from a header of our own writer, three times as fast as `tarfile`; None for any other header."""
    name, _, filling = block[:100].partition(b"\0")
    size, checksum = block[124:135], block[148:154]
    plain = block[156:157] == tarfile.REGTYPE and not any(filling) and not any(block[345:])
    plain = plain and block[135:136] == block[154:155] == b"\0"
    if not (plain and len(block) == tarfile.BLOCKSIZE and size.isdigit() and checksum.isdigit() and name.isascii()):
        return None
    try:
        found, claimed = int(size, 8), int(checksum, 8)
    except ValueError:  # an 8 or a 9
        return None
    if found > LARGEST_MEMBER or sum(block) - sum(block[148:156]) + 8 * ord(" ") != claimed:
        return None
    return name.decode(), found


def foreign_header(block: bytes, name: str) -> tuple[str, int]:
    """Name and size from any header of a plain file, read by `tarfile`. Raises DamagedShardError for anything else."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise DamagedShardError(f"{name} is not a readable tar ({error})") from error
    shown = repr(info.name[:80])
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise DamagedShardError(f"{name}: member {shown} is not a plain file")
    if not 0 <= info.size <= LARGEST_MEMBER:
        raise DamagedShardError(f"{name}: member {shown} claims {info.size:,} bytes")
    return info.name, info.size


def decode_label(content: bytes, where: str, num_classes: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,6}", content) or int(content) >= num_classes:
        raise DamagedShardError(f"{where}: its class {content[:20]!r} is not within 0 and {num_classes - 1}")
    return int(content)


def decode_target(content: bytes, where: str, target: Target) -> int:
    """The bin whose middle the target is."""
    value = float(decode_npy(content, f"{where}: its target", "<f4", ()))
    place = (value - target.low) / target.width - 0.5
    if not (math.isfinite(place) and 0 <= round(place) < target.bins and abs(place - round(place)) < NEAR):
        raise DamagedShardError(f"{where}: its target {value:g} is the middle of none of the {target.bins} bins")
    return round(place)


def decode_record(content: bytes, where: str) -> dict[str, Any]:
    try:
        require(len(content) <= LARGEST_RECORD, f"it has {len(content):,} bytes")
        record = parse_object(content)
    except ValueError as error:
        raise DamagedShardError(f"{where}: its json is not one small object ({str(error)[:80]})") from error
    for name in ("confidence", "entropy"):
        value = record.get(name)
        if not isinstance(value, float | int) or not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise DamagedShardError(f"{where}: its {name} is not a finite number")
    return record


def decode_npy(content: bytes, what: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of this type and shape in C order. Raises DamagedShardError, which begins with `what`, for any other
    content.
    """
    size, head = np.dtype(dtype).itemsize * math.prod(shape), npy_header(dtype, shape)
    start = len(head) if content.startswith(head) else foreign_head(content, what, dtype, shape)
    if len(content) - start != size:
        raise DamagedShardError(f"{what} have {len(content) - start} bytes, not {size}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def foreign_head(content: bytes, what: str, dtype: str, shape: tuple[int, ...]) -> int:
    """The length of an npy header that another writer wrote. Raises DamagedShardError for another type or shape."""
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("npy version is not 1.0")
        found_shape, columns_first, found = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TokenError, TypeError, LookupError, RecursionError, MemoryError) as error:
        raise DamagedShardError(f"{what} are not a plain npy array ({str(error)[:80]})") from error
    if found != np.dtype(dtype) or found_shape != shape or columns_first:
        order = " in Fortran order" if columns_first else ""
        raise DamagedShardError(f"{what} are {found} {found_shape}{order}, expected {np.dtype(dtype)} {shape}")
    return stream.tell()


def decode_image(content: bytes, where: str, layout: Layout) -> np.ndarray:
    try:
        return decode_file(content, layout.image_shape, layout.image_format)
    except UnreadableImageError as error:
        raise DamagedShardError(f"{where}: its {PILLOW_NAMES[layout.image_format]} is refused ({error})") from error

"""Reading the shard format, version 1. Nothing but png, cls, npy and json is ever decoded.

A shard is a plain tar. Each sample has one 9-digit key and four members: `KEY.cls` (class index), `KEY.json` (method,
seed, confidence, entropy in nats; for a blend also its share, and its partner's number and class), `KEY.logits.npy`
(the teacher's logits on the decoded PNG, shape (K,)) and `KEY.png`. The bytes depend on the samples only. A shard from
elsewhere may be hostile.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from tokenize import TokenError
from typing import Any

import numpy as np
from PIL import Image

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.image_files import UnreadableImageError, decode_image
from synth.basics.settings import require
from synth.shards.plan import LARGEST_RUN
from synth.shards.samples import LARGEST_MEMBER, LARGEST_NUMBER, LARGEST_SHARD, PIXEL_MODES, Samples
from synth.shards.write import npy_header

MEMBER_NAME = re.compile(r"([0-9]{9})\.(cls|json|logits\.npy|png)")
LARGEST_RECORD = 65536  # bytes
MEMBERS = ("cls", "json", "logits.npy", "png")


class DamagedShardError(UserError):
    """A shard that breaks the format, or differs from its index."""


def decode_shard(data: bytes, name: str, image_shape: tuple[int, int, int], num_classes: int) -> Samples:
    """The samples in a shard's bytes.

    Raises:
        DamagedShardError: a member, name, type, size or value that the format does not allow. It calls the shard
        `name`.
    """
    members = read_members(data, name)
    keys = sorted(members)
    if len(keys) * (math.prod(image_shape) + 4 * num_classes) > LARGEST_SHARD:
        raise DamagedShardError(f"{name}: {len(keys):,} images of {image_shape} take more than {LARGEST_SHARD:,} bytes")
    images = np.empty((len(keys), *image_shape), dtype=np.uint8)
    labels = np.empty(len(keys), dtype=np.int64)
    logits = np.empty((len(keys), num_classes), dtype=np.float32)
    records = []
    for row, key in enumerate(keys):
        sample = members[key]
        where = f"{name}, sample {key}"
        missing = [kind for kind in MEMBERS if kind not in sample]
        if missing:
            raise DamagedShardError(f"{where}: its {missing[0]} is missing")
        labels[row] = decode_label(sample["cls"], where, num_classes)
        records.append(decode_record(sample["json"], where, num_classes))
        logits[row] = decode_logits(sample["logits.npy"], where, num_classes)
        images[row] = decode_png(sample["png"], where, image_shape)
    return Samples(keys, images, labels, logits, records)


def read_members(data: bytes, name: str) -> dict[str, dict[str, bytes]]:
    """The tar's members by key and kind."""
    members: dict[str, dict[str, bytes]] = {}
    for member, content in tar_files(data, name):
        match = MEMBER_NAME.fullmatch(member)
        if match is None:
            raise DamagedShardError(
                f"{name}: member {member[:80]!r} is not allowed; only {', '.join(MEMBERS)} are read"
            )
        key, kind = match.groups()
        if kind in members.setdefault(key, {}):
            raise DamagedShardError(f"{name}: member {member} is there twice")
        members[key][kind] = content
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


def decode_record(content: bytes, where: str, num_classes: int) -> dict[str, Any]:
    try:
        require(len(content) <= LARGEST_RECORD, f"it has {len(content):,} bytes")
        record = parse_object(content)
    except ValueError as error:
        raise DamagedShardError(f"{where}: its json is not one small object ({str(error)[:80]})") from error
    for name in ("confidence", "entropy"):
        value = record.get(name)
        if not isinstance(value, float | int) or not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise DamagedShardError(f"{where}: its {name} is not a finite number")
    for name, bound in (("partner_class", num_classes), ("partner", LARGEST_RUN)):
        value = record.get(name, 0)
        if not isinstance(value, int) or not 0 <= value < bound:
            raise DamagedShardError(f"{where}: its {name} is not within 0 and {bound - 1}")
    return record


def decode_logits(content: bytes, where: str, num_classes: int) -> np.ndarray:
    head = npy_head(num_classes)
    if len(content) == len(head) + 4 * num_classes and content.startswith(head):  # as our writer writes it
        return finite(np.frombuffer(content, dtype="<f4", offset=len(head)), where)
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("npy version is not 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TokenError, TypeError, LookupError, RecursionError, MemoryError) as error:
        raise DamagedShardError(f"{where}: its logits are not a plain npy array ({str(error)[:80]})") from error
    if dtype not in (np.dtype("<f2"), np.dtype("<f4")) or shape != (num_classes,):
        raise DamagedShardError(
            f"{where}: its logits are {dtype} {shape}, expected float16 or float32 ({num_classes},)"
        )
    body = content[stream.tell() :]
    if len(body) != dtype.itemsize * num_classes:
        raise DamagedShardError(f"{where}: its logits have {len(body)} bytes, not {dtype.itemsize * num_classes}")
    return finite(np.frombuffer(body, dtype=dtype).astype(np.float32), where)


@lru_cache(maxsize=8)
def npy_head(num_classes: int) -> bytes:
    """The bytes before the numbers in a sample's logits."""
    return npy_header((num_classes,))


def finite(logits: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise DamagedShardError(f"{where}: its logits hold NaN or infinity")
    return logits


def decode_png(content: bytes, where: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = image_shape

    def check(image: Image.Image) -> None:
        if image.size != (width, height) or image.mode != PIXEL_MODES[channels]:
            raise DamagedShardError(
                f"{where}: its PNG is {image.size[0]}x{image.size[1]} {image.mode}, "
                f"expected {width}x{height} {PIXEL_MODES[channels]}"
            )

    try:
        pixels = np.asarray(decode_image(content, ("PNG",), check))
    except UnreadableImageError as error:
        raise DamagedShardError(f"{where}: its PNG cannot be decoded ({error})") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

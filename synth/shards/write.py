"""Writing the shard format: from samples to a ustar tar of images, JSON, npy and text, without a library's cost per
member.

With small teachers, a library's tar writer would take a large part of a run's time, because it builds each header anew.
Here a header is a template in which only name, size and checksum change. Tests compare the tar with webdataset's
writer, byte by byte.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from synth.basics.phases import phase
from synth.basics.threads import Threads
from synth.shards.plan import PNG

if TYPE_CHECKING:
    from synth.checkpoint.target import Target
    from synth.shards.samples import Samples

RECORD = 20 * tarfile.BLOCKSIZE  # a tar is padded to a multiple of this


def encode_shard(
    parts: Iterable[tuple[Samples, Iterable[bytes]]], image_format: str = PNG, target: Target | None = None
) -> bytes:
    """The tar of the samples of all parts, each with the files of its images (`encode_images`). `target` is a
    regressor's.

    The same samples give the same bytes, whatever the parts. A thread encodes one part while the caller's iterator
    computes the next.
    """
    with Threads(1) as thread:
        encoded = [thread.submit(members_of, samples, files, image_format, target) for samples, files in parts]
        tar = b"".join(part.result() for part in encoded)
    end = 2 * tarfile.BLOCKSIZE
    return tar + bytes(end + -(len(tar) + end) % RECORD)


def members_of(samples: Samples, files: Iterable[bytes], image_format: str, target: Target | None) -> bytes:
    """The tar members of the samples, without the end of the tar."""
    with phase("encode"):
        return b"".join(pieces_of(samples, files, image_format, target))


def pieces_of(samples: Samples, files: Iterable[bytes], image_format: str, target: Target | None) -> list[bytes]:
    """The headers, contents and paddings of the samples' members, in order."""
    pieces: list[bytes] = []
    for key, label, logits, views, record, file in zip(
        samples.keys, samples.labels.tolist(), samples.logits, samples.views, samples.records, files, strict=True
    ):
        content = {
            label_kind(target): str(label).encode() if target is None else encode_target(label, target),
            "json": json.dumps(record, sort_keys=True).encode(),
            "logits.npy": encode_npy(logits),
            "views.npy": encode_npy(views),
            image_format: file,
        }
        for kind in sorted(content):
            pieces += member(f"{key}.{kind}", content[kind])
    return pieces


def label_kind(target: Target | None) -> str:
    """The member that says what an image was made for: its class, or its target."""
    return "cls" if target is None else "target.npy"


def encode_target(label: int, target: Target) -> bytes:
    """The middle of a bin in the target's unit, a float32 without dimensions."""
    return encode_npy(np.array(target.centres[label], dtype=np.float32))


def member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    """A tar member's header, content and padding."""
    header = bytearray(HEADER)
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % len(content)
    header[148:155] = b"%06o\0" % sum(header)  # the checksum is blank while it is computed, as in the template
    return bytes(header), content, bytes(-len(content) % tarfile.BLOCKSIZE)


def header_template() -> bytes:
    """A ustar header of a read-only file with no time and a fixed owner. Name, size and checksum are left out."""
    info = tarfile.TarInfo("")
    info.mtime, info.mode, info.uname, info.gname = 0, 0o444, "bigdata", "bigdata"
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[148:156] = b" " * 8
    return bytes(header)


HEADER = header_template()


def encode_npy(array: np.ndarray) -> bytes:
    """The array as npy, version 1.0, little-endian."""
    plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return npy_header(plain.dtype.str, plain.shape) + plain.tobytes()


@lru_cache
def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of an npy of this type, such as `<f2`, and shape, in C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()

"""WebDataset shards from elsewhere: tars with KEY.jpg (or another image) and KEY.cls (or KEY.txt, KEY.json) per sample.

Nothing but the image and the class is read, and nothing is unpickled. A tar from elsewhere may be hostile, so headers
are read one by one: `tarfile` would follow pax extensions that keep it busy for minutes.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import open_regular
from unlearn.data_sets.reading.found import LARGEST_FILE, Entry, Found, names_in_order
from unlearn.data_sets.reading.from_folder import ENDINGS, is_hidden

LARGEST_TAR = 2**40  # bytes
LARGEST_TEXT = 2**16  # bytes of a class, or of a long name
LABELS = ("cls", "label", "txt", "json")  # the kinds of member that may hold the class, the best first
LONG_NAMES = {tarfile.XHDTYPE: re.compile(rb"\d+ path=([^\n]*)\n"), tarfile.GNUTYPE_LONGNAME: re.compile(rb"([^\0]*)")}
Place = tuple[Path, int, int]  # a file, and where in it a member's bytes begin and end


def find_in_tars(tars: Sequence[Path], place: str) -> Found:
    """The images of the shards.

    Raises:
        UserError: a shard is damaged, has images that synth made, or has a sample without a class.
    """
    skipped: Counter[str] = Counter()
    entries = [entry for tar in tars for entry in entries_of(tar, skipped)]
    if not entries:
        raise UserError(f"{place} has no sample with an image and a class: each needs KEY.jpg or KEY.png, and KEY.cls")
    return Found(place=place, entries=entries, class_names=names_in_order(entries), all_classes=False, skipped=skipped)


def entries_of(tar: Path, skipped: Counter[str]) -> Iterator[Entry]:
    samples: dict[str, dict[str, Place]] = {}
    for name, place in members(tar):
        folder, _, file = name.rpartition("/")
        key, _, kind = file.partition(".")
        if is_hidden(file) or not kind:
            skipped["hidden" if is_hidden(file) else "without an ending"] += 1
        elif kind == "logits.npy":
            raise UserError(f"{tar} has images that synth made: name real images")
        else:
            samples.setdefault(f"{folder}/{key}", {})[kind.lower()] = place
    for key, kinds in samples.items():
        image = next((kind for kind in kinds if f".{kind}" in ENDINGS), None)
        if image is None:
            skipped["without an image"] += 1
            continue
        where = f"{tar}, sample {key.removeprefix('/')}"
        yield Entry(where, partial(read_place, kinds[image], LARGEST_FILE), label_of(kinds, where))


def label_of(kinds: dict[str, Place], where: str) -> str:
    """The class of a sample: its text, or the entry `label`, `cls` or `class` of its json."""
    for kind in LABELS:
        if kind not in kinds:
            continue
        try:
            text = read_place(kinds[kind], LARGEST_TEXT).decode().strip()
            if kind == "json":
                content = parse_object(text)
                text = next((str(content[name]) for name in ("label", "cls", "class") if name in content), "")
        except (ValueError, OSError):
            text = ""
        if text:
            return text
    raise UserError(f"{where} has no class: add a member KEY.cls with the class's number or name")


def read_place(place: Place, largest: int) -> bytes:
    path, start, end = place
    if end - start > largest:
        raise OSError(0, f"it is larger than {largest:,} bytes")
    with open_regular(path, LARGEST_TAR) as file:
        file.seek(start)
        return file.read(end - start)


def members(tar: Path) -> Iterator[tuple[str, Place]]:
    """The names and places of a tar's plain files. Links, devices and folders are passed over."""
    try:
        with open_regular(tar, LARGEST_TAR) as file:
            yield from members_in(file, tar)
    except OSError as error:
        raise UserError(f"cannot read {tar}: {error.strerror or error}") from error


def members_in(file: BinaryIO, tar: Path) -> Iterator[tuple[str, Place]]:
    length, long_name = os.fstat(file.fileno()).st_size, ""
    while any(block := file.read(tarfile.BLOCKSIZE)):
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise UserError(f"{tar} is not a readable tar ({error}): get it again from its source") from error
        start, end = file.tell(), file.tell() + header.size
        if header.size < 0 or end > length:
            raise UserError(f"{tar} is cut short: get it again from its source")
        if header.type in LONG_NAMES:
            match = LONG_NAMES[header.type].search(file.read(min(header.size, LARGEST_TEXT)))
            long_name = match[1].decode("utf-8", "replace") if match else ""
        elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield long_name or header.name, (tar, start, end)
            long_name = ""
        elif header.type not in (tarfile.XGLTYPE,):
            long_name = ""
        file.seek(start + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    if not block:
        raise UserError(f"{tar} is cut short: get it again from its source")

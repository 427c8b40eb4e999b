"""The sizes in a file of `torch.save`, which is a zip archive, before torch makes memory for them."""

from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

from synth.basics.errors import UserError


def refuse_compressed(file: BinaryIO, name: str) -> None:
    """Raise UserError for a zip archive whose members take more bytes than the file itself.

    `torch.save` compresses nothing. Compressed members, or members that share their bytes, can make a terabyte out of a
    small file. A file that is no zip archive passes: torch wrote another form before version 1.6. The file is at its
    start afterwards.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            content = sum(member.file_size for member in archive.infolist())
    except Exception:  # of a file in the older form, or a damaged one, which torch names
        content = 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if content > size:
        raise UserError(
            f"{name} has {size:,} bytes and unpacks to {content:,}, which torch.save does not do: get it again from "
            "its source"
        )

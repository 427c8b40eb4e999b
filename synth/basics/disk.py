"""Writing files, for every writer of this project. A file appears under its name complete or not at all.

Only regular files are ever replaced: never a device, a pipe or a socket. A symbolic link stays, and the file that it
leads to is replaced. An error is one line with cause and cure.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import KINDS

# How file systems without hard links answer: exFAT, SMB, and many that are mounted through FUSE.
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
# How file systems answer that cannot flush a folder, and folders that may be written but not read.
NO_FOLDER_SYNC = (*NO_HARD_LINKS, errno.EINVAL, errno.EACCES, errno.EBADF)


def sha256_of(data: bytes) -> str:
    """The SHA-256 of the bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def create_folder(path: Path) -> None:
    """Make the folder and those above it. Raises UserError if that is not possible."""
    with one_line_os_errors(path, writing=True):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, data: bytes, again: str = "try again") -> None:
    """Write the file, or replace it. Its folder must exist.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then get the name. `again` says
    what to do once a full disk has space. Raises UserError if the file cannot be written; the file is then as it was
    before.
    """
    with written_elsewhere(path, data, again) as (temporary, target):
        temporary.replace(target)


def write_new_file(path: Path, data: bytes, again: str = "try again") -> bool:
    """Write the file unless there is one, and return whether it was written: of several writers one succeeds.

    On a file system without hard links others may see the file empty for a moment, but never with a part of its
    content.
    """
    with written_elsewhere(path, data, again) as (temporary, target):
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            try:
                target.open("xb").close()
            except FileExistsError:
                return False
            temporary.replace(target)
    return True


def rename_file(old: Path, new: Path, again: str = "try again") -> None:
    """Give a regular file another name in its folder, and replace what has that name.

    Raises FileNotFoundError if there is no such file, and UserError if it cannot be renamed.
    """
    with one_line_os_errors(old):
        old.stat()
    refuse_to_replace(new)
    with one_line_os_errors(new, writing=True, again=again):
        old.replace(new)
        flush_folder(new.parent)


def append_to_file(path: Path, data: bytes, again: str = "try again") -> None:
    """Write the bytes at the end of the file, by one call of the operating system. The file is made if it is absent.

    Raises UserError if that is not possible.
    """
    with one_line_os_errors(path, writing=True, again=again):
        refuse_to_replace(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            file.write(data)


@contextmanager
def written_elsewhere(path: Path, data: bytes, again: str) -> Iterator[tuple[Path, Path]]:
    """A temporary file with the bytes, flushed to the disk, and the file beside it that `path` leads to.

    The temporary file is removed after the `with` block, and the folder is flushed.
    """
    with one_line_os_errors(path, writing=True, again=again):
        refuse_to_replace(path)
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary, target
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(target.parent)


def refuse_to_replace(path: Path) -> None:
    """Raise UserError if the path leads to anything but a regular file or an absent one."""
    with one_line_os_errors(path, writing=True):
        try:
            kind = stat.S_IFMT(os.stat(path).st_mode)
        except FileNotFoundError:
            return
    if kind == stat.S_IFDIR:
        raise UserError(f"{path}: it is a folder: name a file")
    if kind != stat.S_IFREG:
        raise UserError(f"{path} is {KINDS.get(kind, 'something else')}, not a file: name a file to write")


def prepare_output(path: Path, begins: bytes, kind: str) -> None:
    """Make the folder of a file that a command is going to write, and look at what it would replace.

    Args:
        begins: how every such file begins.
        kind: what the file is, in words, such as "a PNG image".

    Raises:
        UsageError: there is a file that begins otherwise. It may be a checkpoint, or an index of shards.
        UserError: the folder cannot be made.
    """
    create_folder(path.parent)
    refuse_to_replace(path)
    with one_line_os_errors(path, writing=True):
        if not path.exists():
            return
        with path.open("rb") as file:
            start = file.read(len(begins))
    if start and start != begins:
        raise UsageError(f"{path} is there already and is not {kind}: name another file, or remove this one first")


def flush_folder(folder: Path) -> None:
    """Flush the names in the folder to the disk, where the file system can do so."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def remove_temporaries(folder: Path, mark: str = "") -> None:
    """Remove what killed writers left in the folder, or only the files whose names contain `mark`."""
    for leftover in folder.glob(".*.tmp"):
        if mark in leftover.name:
            leftover.unlink(missing_ok=True)


@contextmanager
def one_line_os_errors(path: Path, writing: bool = False, again: str = "try again") -> Iterator[None]:
    """Raise an error of the operating system as a UserError that names the cause and the cure.

    A FileNotFoundError stays as it is while reading.
    """
    try:
        yield
    except ValueError as error:  # from `os`: a zero byte, or half of a UTF-16 pair
        raise UserError(f"{str(path)!r}: no file can have this name: choose another") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not writing:
            raise
        elsewhere, gone = "choose another folder", "its folder can't be made, or was removed meanwhile"
        cures = {
            errno.ENOENT: f"{gone}: {elsewhere}, or bring it back and {again}",
            errno.ENOSPC: f"the disk is full: free some space and {again}",
            errno.EDQUOT: f"the disk quota is used up: free some space and {again}",
            errno.EROFS: f"the file system is read-only: {elsewhere}, or make it writable and {again}",
            errno.EACCES: f"permission denied: {elsewhere}, or change its owner or mode and {again}",
            errno.EPERM: f"permission denied: {elsewhere}, or change its owner or mode and {again}",
            errno.ENOTDIR: f"a part of the path is a file, not a folder: {elsewhere}",
            errno.EISDIR: "it is a folder: name a file",
            errno.EEXIST: f"it is a file, not a folder: {elsewhere}",
        }
        if not writing:  # what `open_regular` refuses
            refused = f"{error.strerror}: remove it, or choose another folder"
            cures |= {errno.EINVAL: refused, errno.EFBIG: refused}
        other = f"{error.strerror or error}: check the disk and {again}"
        raise UserError(f"{path}: {cures.get(error.errno or 0, other)}") from error

"""What a file is that holds no weights, or not in a form that is read here, and the way on.

The commands below run on any machine that has the file and PyTorch. They need nothing of the machine or the code that
the file was made with, unless they say so.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

SAVE_WEIGHTS = "save the weights with torch.save(model.state_dict(), 'weights.pt')"
AGAIN = "get it again from its source"


def convert(load: str) -> str:
    """A command that writes weights.pt from what the expression loads."""
    return f"python -c \"import torch; torch.save({load}, 'weights.pt')\""


def what_it_is(data: bytes, path: Path) -> str | None:
    """What the file is, and the way on, in words that follow its name; None if it may be a file of `torch.save`."""
    if not data:
        return f"is empty: {AGAIN}"
    if data[:4] == b"PK\x03\x04":
        return what_zip_it_is(data, path)
    start = data[:512].lstrip().lower()
    for beginnings, words in BEGINNINGS.items():
        if start.startswith(beginnings) or data.startswith(beginnings):
            return words
    if is_onnx(data, path):
        return (
            "is an ONNX model. With 'pip install onnx2torch' a file mynet.py with 'import onnx2torch' and "
            f"'def net(): return onnx2torch.convert({str(path)!r})' builds it as a network with its weights: "
            "leave this file out and name --arch mynet:net"
        )
    if path.suffix in (".pb", ".tflite") or data[4:8] == b"TFL3":
        return f"is a TensorFlow model: {other_framework('TensorFlow')}"
    if start[:64].isascii() and start[:64].decode("ascii").isprintable():
        return f"is text, not weights: {AGAIN}"
    if is_tar(data):
        return "is a tar archive: unpack it with 'tar -xf', and name the file of weights in it"
    return None


def other_framework(name: str) -> str:
    return (
        f"no weights of {name} are read here. Build the same network in PyTorch, copy the weights into it, and "
        f"{SAVE_WEIGHTS}"
    )


def archive(kind: str) -> str:
    return f"is {kind} archive: unpack it, and name the file of weights in it"


# What files begin with that are easily known. Text is compared without its case.
BEGINNINGS: dict[tuple[bytes, ...], str] = {
    (b"version https://git-lfs",): (
        "is a pointer of Git LFS, not the weights: run 'git lfs pull' in the clone, or download the file itself"
    ),
    (b"<!doctype", b"<html", b"<?xml", b"<head"): (
        "is a web page, not weights: the download ended at a page (a login, a preview or an error). Download the file "
        "itself: GitHub's link has /raw/, Hugging Face's has /resolve/ in place of /blob/"
    ),
    (b"\x1f\x8b",): archive("a gzip"),
    (b"7z\xbc\xaf",): archive("a 7z"),
    (b"Rar!",): archive("a rar"),
    (b"\xfd7zXZ",): archive("an xz"),
    (b"\x89HDF",): f"is an HDF5 file, as Keras writes: {other_framework('Keras')}",
    (b"\x93NUMPY",): "is one NumPy array: save the arrays of all layers as a dict of tensors with torch.save",
}


def what_zip_it_is(data: bytes, path: Path) -> str | None:
    """The same for a zip archive, which PyTorch's files are, too."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except Exception:  # the reader raises any error for a damaged archive
        return f"is truncated ({len(data):,} bytes): {AGAIN}"
    shown = repr(path.name)
    parts = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in parts:
        return (
            "is a TorchScript archive, a compiled model. Its weights are in it: "
            + convert(f"torch.jit.load({shown}, map_location='cpu').state_dict()")
            + "; then import weights.pt with --arch for the network that was compiled"
        )
    if any("exported_program" in part or part == "archive_format" for part in parts):
        return (
            "is an exported program of torch.export. Its weights are in it: "
            + convert(f"dict(torch.export.load({shown}).state_dict)")
            + "; then import weights.pt with --arch for the network that was exported"
        )
    if any(part.endswith(".weights.h5") for part in parts):
        return f"is a Keras model: {other_framework('Keras')}"
    if names and all(name.endswith(".npy") for name in names):
        return (
            "is an archive of NumPy arrays: "
            + convert(f"{{k: torch.tensor(v) for k, v in __import__('numpy').load({shown}).items()}}")
            + ", and import weights.pt"
        )
    if "data.pkl" not in parts:
        return "is a zip archive without weights of PyTorch: unpack it, and name the file of weights in it"
    return None


def what_folder_it_is(path: Path) -> str:
    """What a folder is, and the way on, in words that follow its name."""
    names = {entry.name for entry in path.iterdir()}
    if "config.json" in names:
        return f"is a folder of transformers: import it with --weights transformers:{path}"
    if "saved_model.pb" in names:
        return f"is a TensorFlow model: {other_framework('TensorFlow')}"
    if ".metadata" in names:
        return (
            "is a distributed checkpoint of PyTorch: make one file of it with 'python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pt', and import weights.pt"
        )
    return "is a folder: name the file of weights in it"


def is_onnx(data: bytes, path: Path) -> bool:
    """ONNX has no magic number: it begins with its version (field 1) and the name of its producer (field 2)."""
    return path.suffix == ".onnx" or (data[:1] == b"\x08" and b"\0" < data[1:2] < b" " and data[2:3] == b"\x12")


def is_tar(data: bytes) -> bool:
    try:
        return tarfile.is_tarfile(io.BytesIO(data))
    except tarfile.TarError:
        return False

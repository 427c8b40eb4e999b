"""A file that is no file of weights is named for what it is, with a way on; and nothing in a file runs."""

import argparse
import io
import json
import os
import pickle
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synth.basics.errors import UserError
from synth.checkpoint.building import build
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.checkpoint.importing.weights_file import read_weights
from tests.imports import LENET5, card, imported, lenet5_state, same_weights


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in ({"weights": Evil()}, {"weights": lenet5_state(), "hook": Evil()}):
        with pytest.raises(UserError, match="it holds objects that only their own code can read"):
            imported(content, tmp_path)
    assert not (tmp_path / "owned").exists()


def gone(state: dict[str, Any]) -> nn.Module:
    """A whole network of a class that no longer exists when its file is read."""
    net = type("Gone", (nn.Module,), {"__module__": "gone_project.nets"})()
    for name, child in build("lenet5", 1, 10, 28).named_children():
        net.add_module(name, child)
    net.load_state_dict(state)
    net.register_buffer("scratch", torch.zeros(3), persistent=False)
    return net


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"model": n, "epoch": 3}, nn.DataParallel])
def test_a_whole_network_is_read_without_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrap: Any) -> None:
    state = lenet5_state()
    net = gone(state)
    package, nets = type(sys)("gone_project"), type(sys)("gone_project.nets")
    nets.Gone = type(net)  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gone_project", package)
        patch.setitem(sys.modules, "gone_project.nets", nets)
        torch.save(wrap(net), tmp_path / "whole.pt")
    model, said = imported(tmp_path / "whole.pt", tmp_path)
    assert same_weights(model, state)
    assert "gone_project.nets.Gone" in said
    assert "scratch" not in said


def test_objects_beside_the_weights_are_left_alone(tmp_path: Path) -> None:
    others = {
        "args": argparse.Namespace(lr=0.1, nested={"a": [1]}),
        "best": np.float64(0.9),
        "seen": {Path("x")},
    }
    model, said = imported({"state_dict": lenet5_state(), **others}, tmp_path)
    assert same_weights(model, lenet5_state())
    assert "not loaded, because only weights are read" in said


def test_objects_that_are_more_than_their_attributes_are_refused_in_one_line(tmp_path: Path) -> None:
    content = {"state_dict": lenet5_state(), "seen": defaultdict(list, a=[1])}
    with pytest.raises(UserError, match=r"only their own code can read \(where that code is installed, save"):
        imported(content, tmp_path)


def test_safetensors_are_read_by_whatever_name(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pt"):
        save_file(lenet5_state(), tmp_path / name)
        assert same_weights(imported(tmp_path / name, tmp_path)[0], lenet5_state())


def test_a_checkpoint_of_ours_is_not_imported_again(tmp_path: Path) -> None:
    save_checkpoint(Classifier.untrained(card(LENET5), 0), tmp_path / "ours.safetensors")
    with pytest.raises(UserError, match="is a checkpoint of this package already: use it as it is"):
        read_weights(tmp_path / "ours.safetensors")


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut short", b"\x80\x02junk", bytes(range(100)), b"\x08", b"\x80"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt is (truncated|text)"):
        read_weights(tmp_path / "model.pt")


def test_every_length_of_a_truncated_download_is_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "whole.pt")
    save_file({"a": torch.zeros(2)}, tmp_path / "whole.safetensors")
    for whole in ("whole.pt", "whole.safetensors"):
        data = (tmp_path / whole).read_bytes()
        for length in range(0, len(data), 61):
            (tmp_path / "cut.pt").write_bytes(data[:length])
            with pytest.raises(UserError, match=r"cut\.pt"):
                read_weights(tmp_path / "cut.pt")


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"))
    return file.getvalue()


KINDS: dict[str, tuple[bytes, str]] = {
    "empty.pt": (b"", "is empty"),
    "page.pth": (b"\n<!DOCTYPE html><html>sign in</html>", "is a web page, not weights: .* /raw/, .* /resolve/"),
    "pointer.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
        "is a pointer of Git LFS, .* run 'git lfs pull'",
    ),
    "error.pt": (b'{"message": "Not Found"}', "is text, not weights"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch", r"is an ONNX model\. .* onnx2torch.convert\(.*--arch mynet:net"),
    "named.pt": (b"\x08\x0a\x12\x07pytorch:", "is an ONNX model"),
    "model.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes: .* copy the weights"),
    "model.keras": (zipped(config__json=b"{}", **{"model.weights.h5": b""}), "is a Keras model"),
    "model.tflite": (b"\x1c\0\0\0TFL3", "is a TensorFlow model"),
    "model.npz": (zipped(**{"a.npy": b""}), "is an archive of NumPy arrays: python -c"),
    "model.npy": (b"\x93NUMPY\x01\0", "is one NumPy array"),
    "model.zip": (zipped(readme=b""), "is a zip archive without weights"),
    "model.tar": (tarred(), "is a tar archive: unpack it with 'tar -xf'"),
    "model.pt.gz": (b"\x1f\x8b\x08", "is a gzip archive: unpack it"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind_is_named_with_a_way_on(tmp_path: Path, name: str) -> None:
    content, words = KINDS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} {words}") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("config.json", "is a folder of transformers: import it with --weights transformers:"),
        ("saved_model.pb", "is a TensorFlow model"),
        (".metadata", "is a distributed checkpoint of PyTorch: .* dcp_to_torch .* weights.pt"),
        ("model.pt", "is a folder: name the file of weights in it"),
    ],
)
def test_a_folder_is_named_with_a_way_on(tmp_path: Path, inside: str, words: str) -> None:
    (tmp_path / inside).touch()
    with pytest.raises(UserError, match=words):
        read_weights(tmp_path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*: save the weights with torch\.save"):
        read_weights(tmp_path / "none.pt")


def way_on(file: Path) -> None:
    """Run the command in the error about the file, which lies in the working folder."""
    with pytest.raises(UserError) as caught:
        read_weights(file)
    exec(str(caught.value).partition('python -c "')[2].partition('"')[0])


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_the_way_on_from_a_torchscript_archive_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = lenet5_state()
    net = build("lenet5", 1, 10, 28).eval()
    net.load_state_dict(state)
    x = torch.rand(2, 1, 28, 28)
    torch.jit.save(torch.jit.trace(net, x), tmp_path / "script.pt")
    way_on(tmp_path / "script.pt")
    assert same_weights(imported(tmp_path / "weights.pt", tmp_path)[0], state)


@pytest.mark.long  # torch.export takes many seconds to load
def test_the_way_on_from_an_exported_program_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net, x = build("lenet5", 1, 10, 28).eval(), torch.rand(2, 1, 28, 28)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "program.pt2")
    way_on(tmp_path / "program.pt2")
    assert same_weights(imported(tmp_path / "weights.pt", tmp_path)[0], net.state_dict())


def test_a_pickle_of_python_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weight": np.zeros(3)}))
    with pytest.raises(UserError, match=r"model\.pkl is truncated or not a PyTorch file"):
        read_weights(tmp_path / "model.pkl")


def test_a_hostile_header_of_safetensors_is_one_line(tmp_path: Path) -> None:
    for header in (b"{" * 5000, b'{"__metadata__": 5}', json.dumps({"a": {"dtype": "F8"}}).encode()):
        (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
        with pytest.raises(UserError, match="is a damaged safetensors file"):
            read_weights(tmp_path / "m.safetensors")

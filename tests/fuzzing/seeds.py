"""Valid files of every kind that a reader takes, made as the product makes them. They are small and read quickly."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from synth.basics.way_on import WayOn
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.methods.networks import ClassGenerator, GeneratorCard, generator_bytes
from synth.run.lock import Lock
from synth.shards.images import encode_images
from synth.shards.index import read_index, read_shard
from synth.shards.plan import JPG
from synth.shards.store import Folder
from synth.shards.write import encode_shard
from unlearn.auditing.audit import AUDIT
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.report.file import CLOSE, OPEN, embed
from unlearn.run import carry_out

Files = dict[str, bytes]
FEW = ("accuracy-retain", "accuracy-forget", "confusion-distance", "probe-1", "relearn-5", "resurrection")
PICTURES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def read_all(folder: Path) -> Files:
    """The files directly in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def state_dicts(teacher: Path) -> Files:
    """State dicts as people save them, of the teacher's network."""
    state = load_checkpoint(teacher).net.state_dict()
    forms: dict[str, Any] = {
        "plain": state,
        "wrapped": {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        "half": {key: half(value) for key, value in state.items()},
        "parameters": OrderedDict((key, torch.nn.Parameter(v, requires_grad=False)) for key, v in state.items()),
    }
    files = {f"{name}.pt": saved(form) for name, form in forms.items()}
    return {**files, "older.pth": saved(state, _use_new_zipfile_serialization=False)}


def odd_state_dicts(teacher: Path) -> Files:
    """State dicts of tensors that hold no plain numbers in memory."""
    state = load_checkpoint(teacher).net.state_dict()
    with warnings.catch_warnings():  # torch calls some of these forms unfinished
        warnings.simplefilter("ignore")
        forms = odd_forms({key: value for key, value in state.items() if value.dim() > 1})
        return {f"{name}.pt": saved({**state, **form}) for name, form in forms.items()}


def odd_forms(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        "sparse": {key: value.to_sparse() for key, value in weights.items()},
        "rows": {key: value.flatten(1).to_sparse_csr() for key, value in weights.items()},
        "meta": {key: value.to("meta") for key, value in weights.items()},
        "complex": {key: value.to(torch.complex64) for key, value in weights.items()},
        "quantised": {key: torch.quantize_per_tensor(v, 0.1, 0, torch.quint8) for key, v in weights.items()},
        "expanded": {key: torch.zeros(()).expand(value.shape) for key, value in weights.items()},
    }


def half(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def generator(teacher: Classifier) -> bytes:
    card = teacher.card
    facts = GeneratorCard(
        z=4,
        channels=4,
        image_shape=card.input_shape,
        num_classes=card.num_classes,
        mean=card.mean,
        std=card.std,
        teacher_sha256=teacher.digest or "",
    )
    return generator_bytes(ClassGenerator.untrained(facts, 0))


def shards(run: Path) -> list[tuple[str, bytes]]:
    """The first shard of a run with PNG files, and the same with JPEG files, each named after its image format."""
    index = read_index(Folder(run))
    samples = read_shard(Folder(run), index, index.entries[0])
    jpegs = encode_shard([(samples, encode_images(samples.images, JPG))], JPG)
    return [("png.tar", (run / index.entries[0].name).read_bytes()), ("jpg.tar", jpegs)]


def indexes(run: Path) -> Files:
    """The index of a run: complete, growing, and with the counts of a quality gate and a generator."""
    whole = json.loads((run / "index.json").read_text())
    growing = {**whole, "complete": False, "shardlist": whole["shardlist"][:2]}
    gated = json.loads(json.dumps(whole))
    gated["run"]["settings"]["quality_gate"] = {"confidence": 0.9, "tries": 3}
    for entry in gated["shardlist"]:
        entry |= {"again": 3, "missed": 1, "judged": 6, "recognised": 5}
    gated["generator"] = {"url": "generator.safetensors", "sha256": "a" * 64}
    return {"index.json": dumped(whole), "index.part.json": dumped(growing), "gated/index.json": dumped(gated)}


def dumped(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


def locks(folder: Path) -> Files:
    """The lock of a process that is dead, and one of another machine."""
    lock = Lock(Folder(folder), WayOn(command="synth generate"))
    lock.facts["pid"] = 2**22 + 1
    here = lock.to_bytes()
    lock.facts |= {"machine": "another", "host": "elsewhere"}
    return {"here": here, "elsewhere": lock.to_bytes()}


def tables() -> Files:
    """Tables of the image a.png and its class."""
    rows = "".join(f"a.png,{name}\n" for name in ("cat", "dog", "cat"))
    return {"a.csv": f"path,label\n{rows}".encode(), "b.csv": b"file;class;split\na.png;cat;test\n"}


def foreign_shard(images: Files) -> bytes:
    """A WebDataset shard of somebody else: an image and its class per sample."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, kind in enumerate(("png", "jpeg")):
            members = {f"{number:03d}.{kind.replace('jpeg', 'jpg')}": images[f"a.{kind}"], f"{number:03d}.cls": b"1"}
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def parquet(images: Files) -> bytes:
    """A Parquet file with an image and its class per row."""
    import pyarrow
    from pyarrow import parquet as files

    rows = [{"image": {"bytes": images["a.png"], "path": None}, "label": number} for number in (0, 1, 0)]
    buffer = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def pictures() -> Files:
    """A small colour image in several formats."""
    image, files = Image.linear_gradient("L").resize((28, 20)).convert("RGB"), {}
    for kind in PICTURES:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files[f"a.{kind.lower()}"] = buffer.getvalue()
    buffer = io.BytesIO()
    image.convert("P").save(buffer, "PNG", transparency=0)
    return {**files, "palette.png": buffer.getvalue()}


def student_run(run: Path, out: Path) -> Files:
    """The files of a run of `unlearn distill`, and the checkpoint that an interrupted one leaves."""
    settings = DistillSettings(steps=4, batch_size=8, gate=1.0)
    request = carry_out.Request(
        method="distill", settings=settings, loop=LOOP, shards=str(run), forget=(0,), out=out, seed=3
    )
    carry_out.unlearn(request, lambda line: None)
    state = {"step": 2, "student": {"weight": torch.zeros(3)}, "rng": torch.Generator().get_state()}
    return {**read_all(out), "checkpoint.pt": saved(state)}


def record(audited: Path, run_files: Mapping[str, bytes]) -> dict[str, Any]:
    """An audit's record with the run of its student. One measurement of each kind is left, so that judging is quick."""
    found = json.loads((audited / AUDIT).read_text())
    found["measurements"] = [m for m in found["measurements"] if m["name"] in FEW]
    found["verdict"]["findings"] = [f for f in found["verdict"]["findings"] if f["name"] in FEW]
    found["origin"]["run"] = {
        "settings": json.loads(run_files["settings.json"]),
        "provenance": json.loads(run_files["provenance.json"]),
        "metrics": [json.loads(line) for line in run_files["metrics.jsonl"].splitlines()],
    }
    return found


def embedded(page: str, found: Mapping[str, Any]) -> bytes:
    """The page with another record in it."""
    start, end = page.index(OPEN), page.index(CLOSE, page.index(OPEN)) + len(CLOSE)
    return f"{page[:start]}{embed(found)}{page[end:]}".encode()


def idx(images: Tensor, labels: Tensor) -> Files:
    """The test images of MNIST, as its authors' files have them."""
    head = (2051).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in images.shape)
    pixels = head + images.numpy().tobytes()
    classes = (2049).to_bytes(4, "big") + len(labels).to_bytes(4, "big") + labels.to(torch.uint8).numpy().tobytes()
    files = {"t10k-images-idx3-ubyte": pixels, "t10k-labels-idx1-ubyte": classes}
    return {**files, "train-images-idx3-ubyte": pixels, "train-labels-idx1-ubyte": classes}

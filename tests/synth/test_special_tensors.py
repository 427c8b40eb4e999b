"""What a file of weights may hold: plain tensors, and no more bytes than the file itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.checkpoint.file import check_state
from synth.checkpoint.pytorch_zip import refuse_compressed

PLAIN = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("special", "kind"),
    [
        (lambda: PLAIN.to_sparse(), "sparse"),
        (lambda: PLAIN.to_sparse_csr(), "sparse"),
        (lambda: PLAIN.to("meta"), "meta"),
        (lambda: torch.quantize_per_tensor(PLAIN, 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.nested.nested_tensor([PLAIN, torch.ones(1, 2)]), "nested"),
    ],
    ids=["sparse", "csr", "meta", "quantized", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_numbers_are_refused(special: Callable[[], Tensor], kind: str) -> None:
    check_state({"w": PLAIN}, {"w": PLAIN}, "model.pt", "lenet5")
    with pytest.raises(UserError, match=f"model.pt holds w as a {kind} tensor: save it again as a plain one"):
        check_state({"w": PLAIN}, {"w": special()}, "model.pt", "lenet5")


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused() -> None:
    plain, older, bomb = io.BytesIO(), io.BytesIO(), io.BytesIO()
    weights = {"w": torch.zeros(10_000)}
    torch.save(weights, plain)
    torch.save(weights, older, _use_new_zipfile_serialization=False)
    for file in (plain, older):
        file.seek(7)
        refuse_compressed(file, "model.pt")
        assert torch.equal(torch.load(file, weights_only=True)["w"], weights["w"])
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(
        UserError, match=r"model.pt has [0-9,]+ bytes and unpacks to [0-9,]+, which torch.save does not"
    ):
        refuse_compressed(bomb, "model.pt")

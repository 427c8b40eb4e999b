import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from synth.basics.errors import UsageError
from synth.checkpoint.architectures import names
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.building import AUXILIARY_HEADS, build
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from tests.runs import digits_card


@pytest.mark.parametrize(("architecture", "size"), [("lenet5", 28), ("lenet5", 32), ("allcnn", 32), ("resnet20", 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_architecture_maps_images_to_logits_and_sends_a_gradient_back(
    architecture: str, size: int, channels: int
) -> None:
    net = build(architecture, channels, 7, size, width=0.25).eval()
    x = torch.rand(2, channels, size, size, requires_grad=True)
    logits = net(x)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert batch_norm_layers(net)


@pytest.mark.parametrize(("architecture", "millions"), [("lenet5", 0.062), ("allcnn", 1.6), ("resnet20", 0.27)])
def test_the_sizes_are_those_of_the_papers(architecture: str, millions: float) -> None:
    channels, size = (1, 28) if architecture == "lenet5" else (3, 32)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build(architecture, channels, 10, size).parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.15)


def test_resnet20_has_twenty_weighted_layers_on_its_longest_path() -> None:
    with torch.device("meta"):
        net = build("resnet20", 3, 10, 32)
    weighted = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(weighted) == 20


def test_width_scales_each_of_our_own_architectures() -> None:
    for architecture in names():
        with torch.device("meta"):
            sizes = [sum(p.numel() for p in build(architecture, 3, 10, 32, width=w).parameters()) for w in (0.5, 1, 2)]
        assert sizes[0] < sizes[1] < sizes[2]


def test_a_torchvision_model_and_a_users_function_are_found_by_name() -> None:
    with torch.device("meta"):
        assert build("resnet18", 3, 5, 32).fc.out_features == 5  # type: ignore[union-attr]
        own = build("torch.nn:Linear", 4, 6, 32)
    assert isinstance(own, nn.Linear)
    assert own.out_features == 6


@pytest.mark.parametrize("architecture", AUXILIARY_HEADS)
def test_a_network_has_one_output_in_training_too(architecture: str) -> None:
    with torch.device("meta"):
        logits = build(architecture, 3, 5, 96).train()(torch.rand(2, 3, 96, 96))
    assert logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("architecture", "channels", "size", "width", "words"),
    [
        ("lenet6", 1, 28, 1.0, "unknown architecture 'lenet6': choose one of lenet5, allcnn, resnet20"),
        ("mobilenet_v3_smal", 3, 64, 1.0, "; the nearest are mobilenet_v3_small"),
        ("lenet5", 1, 64, 1.0, "takes 28x28 or 32x32 images, not 64x64"),
        ("resnet18", 1, 28, 1.0, "takes images with 3 channels, not 1"),
        ("resnet18", 3, 32, 0.5, "resnet18 has one width only, unlike lenet5, allcnn, resnet20: leave the width out"),
        ("no.such.module:net", 1, 28, 1.0, "cannot find the architecture 'no.such.module:net'"),
        ("math:net", 1, 28, 1.0, "cannot find the architecture 'math:net'"),
    ],
)
def test_an_impossible_architecture_is_refused_with_a_cure(
    architecture: str, channels: int, size: int, width: float, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        build(architecture, channels, 10, size, width)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("nowhere:net", "cannot find the architecture 'nowhere:net'"),
        ("os:nothing", "cannot find the architecture 'os:nothing'"),
        ("os:getpid", "'os:getpid' made a int, not a torch.nn.Module"),
        ("os:rename", r"'os:rename', called with \(1, 10\) for channels and classes, failed"),
        (".nowhere:net", r"cannot find the architecture '.nowhere:net' \(TypeError: "),
        ("operator:add", "made a int, not a torch.nn.Module"),
    ],
)
def test_code_that_makes_no_network_is_an_error_of_one_line(architecture: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(architecture, 1, 10, 28)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def net(:", r"cannot find the architecture '.*:net' \(SyntaxError: .*\): correct the module"),
        ("1 / 0", r"cannot find the architecture '.*:net' \(ZeroDivisionError: division by zero\): correct the module"),
        ("def net(a, b): from no_such import x", "called with .* failed: No module named 'no_such'"),
    ],
)
def test_a_users_module_that_fails_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    name = f"failing_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        build(f"{name}:net", 1, 10, 28)


def test_a_module_in_the_working_folder_is_found_and_the_path_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net_here.py").write_text(
        "import torch\ndef net(a, b):\n    import part_of_net_here\n    return torch.nn.Linear(a, b)\n"
    )
    (tmp_path / "part_of_net_here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    before = list(sys.path)
    assert isinstance(build("net_here:net", 1, 10, 28), nn.Linear)
    assert sys.path == before


def test_an_architecture_of_an_installed_package_is_trusted_and_built_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_net.py").write_text(
        "from torch import nn\n"
        "def build(in_channels, num_classes, image_size, width):\n"
        "    pixels = in_channels * image_size**2\n"
        "    hidden = round(8 * width)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.Linear(hidden, num_classes))\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[data_free_unlearning.architectures]\ninstalled_net = installed_net\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert names() == ("lenet5", "allcnn", "resnet20", "installed_net")
    card = digits_card(architecture="installed_net", width=2.0)
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "t.safetensors")
    model = load_checkpoint(tmp_path / "t.safetensors")  # no --arch is needed, as the user installed the code
    assert predict(model, torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert model.net[1].out_features == 16  # type: ignore[index]


def test_the_names_are_known_without_torch() -> None:
    script = "import sys; from synth.checkpoint.architectures import names; print(*names(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["lenet5", "allcnn", "resnet20", "False"]


# The first bytes of the hash of each network's state dict, keys and initial weights of seed 0, before they had a file
# each.
INITIAL = {"lenet5": "2c57d84a0312", "allcnn": "5b5171f673e9", "resnet20": "7fcefcb6cf68"}


@pytest.mark.parametrize("architecture", INITIAL)
def test_keys_and_initial_weights_are_those_of_earlier_versions(architecture: str) -> None:
    card = digits_card(architecture=architecture, width=0.25, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    digest = hashlib.sha256()
    for key, value in Classifier.untrained(card, 0).net.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    assert digest.hexdigest()[:12] == INITIAL[architecture]


def test_a_checkpoint_whose_card_names_other_images_than_its_network_takes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    card = digits_card(architecture="tests.runs:for_32", width=1.0)  # of 28 x 28 grey images
    save_checkpoint(Classifier(build(card.architecture, 1, 10, 32), card), path)
    with pytest.raises(
        UsageError, match=rf"does not accept images \[1, 28, 28\] .*: name another file than {path}, or import it"
    ):
        load_checkpoint(path, card.architecture)

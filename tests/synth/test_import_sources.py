"""Published weights by name, from files that are on this machine: no test uses the network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.building import build
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import checkpoint_bytes, load_checkpoint, parse_checkpoint
from synth.checkpoint.importing import from_timm, from_torchvision
from synth.checkpoint.importing.from_transformers import normalisation_of, shape_of
from synth.checkpoint.importing.import_checkpoint import ImportRequest, import_checkpoint
from synth.checkpoint.importing.sources import find_source
from tests.imports import imported, same_weights
from tests.runs import digits_card


def fetched(weights: str, folder: Path, **options: Any) -> tuple[Classifier, str]:
    lines: list[str] = []
    import_checkpoint(ImportRequest(weights=weights, **options), folder / "teacher.safetensors", lines.append)
    return load_checkpoint(folder / "teacher.safetensors"), "\n".join(lines)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch keeps what it downloaded."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_weights_of_torchvision_bring_size_normalisation_and_names(hub: Path, tmp_path: Path) -> None:
    net = models.squeezenet1_1()
    torch.save(net.state_dict(), hub / models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2])
    model, said = fetched("torchvision:squeezenet1_1", tmp_path)
    assert same_weights(model, net.state_dict())
    assert model.card.input_shape == (3, 224, 224)
    assert (model.card.mean, model.card.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert model.card.class_names[0] == "tench"
    assert len(set(model.card.class_names)) == 1000  # torchvision has two that are called maillot
    assert model.card.origin["source"] == "torchvision:squeezenet1_1.IMAGENET1K_V1"
    assert "images of 224x224, 1000 classes, mean 0.485,0.456,0.406" in said


def test_each_version_of_torchvisions_weights_has_its_own_size(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_torchvision, "downloaded", lambda url: Path(url))
    swag = find_source("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert swag.facts.input_shape == (3, 384, 384)
    assert "swag" in str(swag.file)
    assert find_source("torchvision:vit_b_16").facts.input_shape == (3, 224, 224)


def test_the_published_inception_gets_the_pixels_that_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its weights torchvision's network changes the normalisation itself; ours has that normalisation."""
    monkeypatch.setattr(from_torchvision, "downloaded", lambda url: Path(url))
    facts = find_source("torchvision:googlenet").facts
    transforms = models.GoogLeNet_Weights.DEFAULT.transforms()
    x = torch.rand(2, 3, 8, 8)
    theirs = models.GoogLeNet(2, aux_logits=False, transform_input=True, init_weights=False)._transform_input(
        (x - torch.tensor(transforms.mean).view(3, 1, 1)) / torch.tensor(transforms.std).view(3, 1, 1)
    )
    assert facts.mean
    assert facts.std
    torch.testing.assert_close((x - facts.mean[0]) / facts.std[0], theirs)


FOR_32 = {"input_shape": "3,32,32", "classes": "3", "mean": "0.5", "std": "0.5"}


def test_keys_of_old_densenets_are_read(tmp_path: Path) -> None:
    with torch.no_grad():
        state = build("densenet121", 3, 3, 32).state_dict()
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): state[key] for key in state}
    assert set(old) != set(state)
    model, _ = imported(old, tmp_path, {**FOR_32, "architecture": "densenet121"})
    assert same_weights(model, state)


@pytest.mark.long  # 88 million weights
def test_keys_that_a_network_renames_itself_are_read(tmp_path: Path) -> None:
    state = build("vit_b_32", 3, 3, 32).state_dict()
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): state[key] for key in state}
    assert set(old) != set(state)
    model, _ = imported(old, tmp_path, {**FOR_32, "architecture": "vit_b_32"})
    assert same_weights(model, state)


def test_a_download_that_fails_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    words = r"cannot download https://download\.pytorch\.org/.*resnet50-.*pth \(Temporary failure.*\): .* save it as "
    with pytest.raises(UserError, match=words):
        find_source("torchvision:resnet50")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("resnet50", "--weights 'resnet50' is not known: write torchvision:NAME"),
        ("torchvision:", "is not known"),
        ("torchvision:resnet51", "torchvision has no classification network 'resnet51': choose one such as resnet5"),
        ("torchvision:resnet50.V9", "has no weights 'resnet50.V9': it has IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_weights_that_do_not_exist_are_refused(weights: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_source(weights)


def test_weights_name_their_architecture_themselves(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--weights names the architecture too: leave out --arch"):
        fetched("torchvision:resnet18", tmp_path, architecture="resnet18")
    with pytest.raises(UsageError, match="exclude each other"):
        fetched("torchvision:resnet18", tmp_path, file=tmp_path / "model.pt")


@pytest.mark.parametrize(("name", "library"), [("timm:resnet18", "timm"), ("transformers:folder", "transformers")])
def test_a_library_that_is_not_installed_is_one_line(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(UsageError, match=f"needs the {library} library, which is not installed: pip install"):
        find_source(name)


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed")


def test_timms_weights_bring_size_and_normalisation(timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    net = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []
    monkeypatch.setattr(from_timm, "downloaded", lambda name: asked.append(name) or tmp_path / "model.safetensors")
    model, _ = fetched("timm:test_resnet", tmp_path)
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert model.card.architecture == "timm:test_resnet"
    assert model.card.input_shape == (3, 160, 160)
    assert model.card.class_names[1] == "goldfish"
    x = torch.rand(1, 3, 160, 160)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (net.pretrained_cfg["mean"], net.pretrained_cfg["std"]))
    torch.testing.assert_close(model(x), net.eval()((x - mean) / std))


def test_a_fine_tuned_timm_network_needs_only_its_classes(timm: Any, tmp_path: Path) -> None:
    for name, channels, size in (
        ("test_resnet", 3, None),
        ("test_vit", 3, "3,64,96"),
        ("test_efficientnet", 1, "1,32,32"),
    ):
        options = {"img_size": (64, 96)} if name == "test_vit" else {}
        net = timm.create_model(name, pretrained=False, num_classes=3, in_chans=channels, **options)
        facts = {"architecture": f"timm:{name}", "classes": "a,b,c"}
        if size:
            facts |= {"input_shape": size, "mean": "0.5", "std": "0.25"}
        model, _ = imported(net.state_dict(), tmp_path, facts)
        assert same_weights(model, net.state_dict())
        assert model(torch.rand(1, *model.card.input_shape)).shape == (1, 3)


def test_what_timm_states_in_place_of_the_user_is_shown(timm: Any, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", pretrained=False, num_classes=3).state_dict()
    asked = {"architecture": "timm:test_resnet", "classes": "a,b,c"}
    _, said = imported(state, tmp_path, asked)
    assert "taken from timm: --input-shape 3,160,160 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5;" in said
    _, said = imported(state, tmp_path, asked | {"input_shape": "3,32,32"})
    assert "taken from timm: --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5;" in said
    _, said = imported(state, tmp_path, asked | {"input_shape": "3,32,32", "mean": "0.5", "std": "0.5"})
    assert "taken from timm" not in said


def test_a_name_of_timm_without_its_prefix_gets_the_prefix_as_the_cure(timm: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown architecture 'resnet10t': .*; the nearest are timm:resnet10t"):
        build("resnet10t", 3, 4, 32)


def test_timm_is_asked_for_plain_names_only(timm: Any) -> None:
    for name in ("hf-hub:someone/net", "local-dir:/tmp", "resnet_18"):
        with pytest.raises(UsageError, match="timm has no network"):
            build(f"timm:{name}", 3, 4, 32)


def test_the_cache_of_the_hub_is_used_without_a_network(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls: list[bool] = []

    def hub_without_network(repository: str, filename: str, local_files_only: bool = False) -> str:
        calls.append(local_files_only)
        if local_files_only and "cached" in repository:
            return str(tmp_path / filename)
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_without_network)
    assert from_timm.downloaded("timm/cached") == tmp_path / "model.safetensors"
    assert calls == [True]
    with pytest.raises(UserError, match=r"cannot download https://huggingface\.co/timm/other \(offline\): download"):
        from_timm.downloaded("timm/other")


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed")


def saved(transformers: Any, folder: Path, **changes: Any) -> nn.Module:
    """A small classifier of transformers in a folder, with a processor for 32x48 images."""
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "cat", 1: "big, black dog", 2: "bird"},
        label2id={"cat": 0, "big, black dog": 1, "bird": 2},
        **changes,
    )
    torch.manual_seed(0)
    net = transformers.AutoModelForImageClassification.from_config(config).eval()
    net.save_pretrained(folder)
    processor = {"size": {"height": 32, "width": 48}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return net


def test_a_folder_of_transformers_brings_everything(transformers: Any, tmp_path: Path) -> None:
    net = saved(transformers, tmp_path / "folder")
    model, said = fetched(f"transformers:{tmp_path / 'folder'}", tmp_path)
    assert model.card.architecture == "transformers:resnet"
    assert model.card.class_names == ("cat", "big, black dog", "bird")
    assert model.card.input_shape == (3, 32, 48)
    x = torch.rand(2, 3, 32, 48)
    x_norm = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(model(x), net(x_norm).logits)
    assert "the logits are its 'logits'" in said
    assert Classifier.untrained(model.card, 1)(x).shape == (2, 3)


def processed_alike(transformers: Any, folder: Path, network: nn.Module, processor: Any, side: int) -> None:
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    facts = find_source(f"transformers:{folder}").facts
    image = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8)
    theirs = processor(images=image.numpy(), return_tensors="pt")["pixel_values"][0]
    assert facts.input_shape == (3, side, side)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (facts.mean, facts.std))
    torch.testing.assert_close((image.permute(2, 0, 1) / 255 - mean) / std, theirs, atol=1e-4, rtol=1e-4)


def test_images_are_normalised_as_the_folders_own_processor_does(transformers: Any, tmp_path: Path) -> None:
    size = {"height": 64, "width": 64}
    efficient = transformers.EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=1280, num_labels=3
    )
    twice = transformers.EfficientNetImageProcessor(size=size, image_std=[0.4785, 0.4733, 0.4743])  # divides twice
    network = transformers.EfficientNetForImageClassification(efficient)
    processed_alike(transformers, tmp_path / "efficient", network, twice, 64)
    vit = transformers.ViTConfig(
        image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    usual = transformers.ViTImageProcessor(size=size)
    processed_alike(transformers, tmp_path / "vit", transformers.ViTForImageClassification(vit), usual, 64)


def test_a_network_that_takes_blue_before_red_is_refused(transformers: Any, tmp_path: Path) -> None:
    config = transformers.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_labels=3
    )
    transformers.MobileViTForImageClassification(config).save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    transformers.MobileViTImageProcessor(**size).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"takes blue before red: turn the inputs of its first convolution"):
        find_source(f"transformers:{tmp_path}")
    transformers.MobileViTImageProcessor(do_flip_channel_order=False, **size).save_pretrained(tmp_path)
    facts = find_source(f"transformers:{tmp_path}").facts
    assert facts.mean == pytest.approx([0, 0, 0])  # it only rescales
    assert facts.std == pytest.approx([1, 1, 1])


def test_one_number_for_all_channels_is_a_list_of_one() -> None:
    assert normalisation_of({"image_mean": 0.5, "image_std": 0.25}) == {"mean": (0.5,), "std": (0.25,)}


@pytest.mark.parametrize(
    "settings", [{"image_mean": 0.5, "image_std": None}, {"rescale_factor": None}, {"rescale_factor": 0}]
)
def test_a_processor_with_no_numbers_is_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"has a normalisation that is none .*: save the processor again, or remove"):
        normalisation_of(settings)


def test_a_folder_that_is_no_classifier_is_refused(transformers: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        find_source(f"transformers:{tmp_path}")
    saved(transformers, tmp_path, problem_type="multi_label_classification")
    with pytest.raises(UsageError, match="is a multi-label classifier"):
        find_source(f"transformers:{tmp_path}")
    saved(transformers, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors: write it with model\.save_pretrained"):
        find_source(f"transformers:{tmp_path}")


def test_a_configuration_that_fits_no_network_is_one_line(transformers: Any) -> None:
    with pytest.raises(UsageError, match="cannot build transformers:no-such-kind"):
        build("transformers:no-such-kind", 3, 3, 32, config={})


@pytest.mark.parametrize(
    ("processor", "shape"),
    [
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 9}, "do_center_crop": True},
            (224, 9),
        ),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384)),
        ({"size": 224}, (224, 224)),
        ({"size": {"height": 30, "width": 40}, "crop_size": 9, "do_center_crop": False}, (30, 40)),
        ({}, (64, 64)),
    ],
)
def test_the_size_is_read_from_the_processor(processor: dict[str, Any], shape: tuple[int, int]) -> None:
    assert shape_of(processor, {"image_size": 64}) == (3, *shape)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"image_mean": [0.5], "image_std": [0.25]}, (0.5,), (0.25,)),
        ({"do_normalize": False}, (0.0,), (1.0,)),
        ({"do_rescale": False, "do_normalize": False}, (0.0,), (0.003922,)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, (0.5,), (0.5,)),
    ],
)
def test_the_normalisation_is_read_from_the_processor(processor: dict[str, Any], mean: Any, std: Any) -> None:
    assert normalisation_of(processor) == {"mean": mean, "std": std}
    value = SimpleNamespace(byte=100.0)  # what the processor makes of a byte is what the card makes of it
    rescaled = value.byte * (processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1)
    rescaled -= bool(processor.get("rescale_offset"))
    if processor.get("do_normalize", True):
        rescaled = (rescaled - processor["image_mean"][0]) / processor["image_std"][0]
    assert (value.byte / 255 - mean[0]) / std[0] == pytest.approx(rescaled, rel=1e-3)


@pytest.mark.parametrize(
    ("wiring", "words"),
    [
        ({"outputs": "magic"}, "outputs 'magic' is none of logits, probabilities"),
        ({"logits_at": "__class__"}, "the name of the logits is no name"),
        ({"logits_at": [1]}, "neither a number nor a name"),
        ({"config": {"num_hidden_layers": 10**7}}, "num_hidden_layers of 10000000, more than 1000"),
        ({"config": {"backbone_config": {"depths": [999, 2]}}}, "depths of 1001"),
        ({"config": {"x": "y" * 200_000}}, "its configuration has more than 100,000 characters"),
        ({"config": [1]}, ""),
        ({"other": 1}, "other"),
        (5, ""),
    ],
)
def test_a_wiring_that_no_import_writes_is_refused_as_a_broken_card(wiring: Any, words: str) -> None:
    raw = {**json.loads(digits_card().to_json()), "version": 2, "wiring": wiring}
    data = checkpoint_bytes(Classifier.untrained(digits_card(), 0))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["model_card"] = json.dumps(raw)
    text = json.dumps(header).encode()
    with pytest.raises(UserError, match=f"broken model card: .*{words}"):
        parse_checkpoint(len(text).to_bytes(8, "little") + text + data[8 + length :], "t")

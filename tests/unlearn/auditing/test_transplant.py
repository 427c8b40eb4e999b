import torch

from synth.checkpoint.answers import outputs
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.layers import last_layer
from unlearn.auditing.measures.head import head_of
from unlearn.auditing.measures.probe import probe
from unlearn.auditing.measures.transplant import apply_head, stitch
from unlearn.data import load_images
from unlearn.methods.masking import mask_logits


def test_features_and_last_layer_give_the_models_own_logits(tiny_teacher: Classifier) -> None:
    images = load_images("digits", "test").images[:20]
    found = outputs(tiny_teacher, images)
    again = apply_head(last_layer(tiny_teacher), found.features)
    torch.testing.assert_close(again, found.logits)


def test_stitching_finds_a_linear_map() -> None:
    rng = torch.Generator().manual_seed(0)
    x, weights = torch.randn(500, 6, generator=rng), torch.randn(6, 4, generator=rng)
    judged = torch.randn(9, 6, generator=rng)
    found = stitch(x, x @ weights + 3, judged)
    torch.testing.assert_close(found.float(), judged @ weights + 3, atol=0.15, rtol=0.05)


def test_the_last_layer_knows_every_class_on_its_own_features(tiny_teacher: Classifier) -> None:
    data = load_images("digits", "test")
    features = outputs(tiny_teacher, data.images).features
    called = apply_head(last_layer(tiny_teacher), features).argmax(1)
    assert (called == data.labels).double().mean() > 0.9


def test_a_mask_shows_in_the_numbers_of_the_last_layer(tiny_teacher_path: object) -> None:
    model = load_checkpoint(tiny_teacher_path)  # type: ignore[arg-type]
    retain = tuple(range(1, 10))
    norm, bias = head_of(model, (0,), retain)
    assert 0.5 < norm < 2
    mask_logits(model, (0,))
    norm, masked_bias = head_of(model, (0,), retain)
    assert norm == 0
    assert bias is not None
    assert masked_bias is not None
    assert masked_bias < -1000 < bias


def test_a_probe_reads_a_separable_class_and_nothing_from_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(25)
    clear = torch.eye(4)[labels] * 9 + torch.randn(100, 4, generator=rng)
    noise = torch.randn(100, 4, generator=rng)
    judged = labels[40:].numpy()
    assert (probe(clear[:40].numpy(), labels[:40].numpy(), clear[40:].numpy()) == judged).all()
    assert (probe(noise[:40].numpy(), labels[:40].numpy(), noise[40:].numpy()) == judged).mean() < 0.6

import pytest
import torch

from synth.checkpoint.augment import shift_and_flip
from unlearn.methods.mixing import mixed, mixup, pairing


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_image_is_a_shift_of_itself() -> None:
    x = torch.zeros(64, 2, 9, 9)
    x[:, :, 4, 4] = 1
    moved = shift_and_flip(x, 2, flip=False, rng=rng())
    places = [tuple((image[0] == 1).nonzero()[0].tolist()) for image in moved]
    assert moved.sum() == x.sum()
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert set(places) <= {(r, c) for r in range(2, 7) for c in range(2, 7)}
    assert len(set(places)) > 15


def test_flips_mirror_about_half_of_the_images() -> None:
    x = torch.arange(4.0).expand(100, 1, 4, 4)
    mirrored = shift_and_flip(x, 0, flip=True, rng=rng())[:, 0, 0, 0] == 3
    assert 30 < int(mirrored.sum()) < 70


def test_nothing_asked_changes_nothing() -> None:
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(shift_and_flip(x, 0, flip=False, rng=rng()), x)
    assert mixup(x, torch.eye(4), 0.0, rng())[0] is x


def test_mixup_blends_images_and_targets_alike() -> None:
    targets = torch.eye(8)
    x, blended = mixup(targets[:, None, None, :].clone(), targets, 1.0, rng())
    assert torch.allclose(x[:, 0, 0], blended)
    assert torch.allclose(blended.sum(1), torch.ones(8))
    assert not torch.equal(blended, targets)


def test_images_alone_are_blended_as_with_targets() -> None:
    x, ours, theirs = torch.rand(8, 1, 4, 4), rng(), rng()
    for alpha in (0.0, 0.5):
        assert torch.equal(mixed(x, alpha, ours), mixup(x, torch.eye(8), alpha, theirs)[0])
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_shares_are_beta_variates_from_the_given_source_alone() -> None:
    ours, x = rng(), torch.zeros(3, 1, 1, 1)
    before = torch.get_rng_state()
    shares = torch.tensor([pairing(x, 0.5, ours)[0] for _ in range(2000)])
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / 8) < 0.01  # of Beta(a, a): 1 / (8 a + 4)
    again = rng()
    assert [pairing(x, 0.5, again)[0] for _ in range(5)] == shares[:5].tolist()
    assert shares[:3].tolist() == pytest.approx([0.017564604, 0.303637773, 0.378026336])  # of earlier versions, too


def test_bytes_are_shifted_as_floats_are() -> None:
    images = torch.randint(0, 256, (8, 3, 6, 9), generator=rng(), dtype=torch.uint8)
    moved = shift_and_flip(images, 3, True, rng())
    assert moved.dtype == torch.uint8
    assert torch.equal(moved.float(), shift_and_flip(images.float(), 3, True, rng()))

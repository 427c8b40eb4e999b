"""The count of real images that a run's provenance reports."""

from __future__ import annotations

import pytest

from synth.basics.errors import UsageError
from unlearn.data import DataSource, load_images
from unlearn.real_images import count_real_images


def test_every_load_of_real_images_is_counted() -> None:
    with count_real_images() as real:
        assert real.count == 0
        train = load_images("digits", "train")
        assert real.count == len(train)
        test = DataSource("digits", None, False, 32).load("test")
        assert real.count == len(train) + len(test)
        load_images("digits", "test")  # the same images again
    assert real.count == len(train) + 2 * len(test)


def test_images_that_were_loaded_outside_the_block_are_not_counted() -> None:
    images = load_images("digits", "test")
    with count_real_images() as real:
        assert len(images.without((0,))) < len(images)
    load_images("digits", "test")
    assert real.count == 0


def test_nested_blocks_count_each_for_itself() -> None:
    with count_real_images() as outer:
        load_images("digits", "test")
        with count_real_images() as inner:
            pass
        with count_real_images() as second:
            load_images("digits", "test")
    assert (outer.count, inner.count, second.count) == (900, 0, 450)


def test_a_block_that_an_error_ends_counts_no_longer() -> None:
    with pytest.raises(UsageError), count_real_images() as real:
        load_images("no such data", "test")
    load_images("digits", "test")
    assert real.count == 0

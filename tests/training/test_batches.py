from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from edgecnn.data.labelled import ArrayPictures, LabelledSet
from edgecnn.spec import Preprocess
from edgecnn.training.batches import Batches, part, shifted

from .conftest import stripes

GREY = Preprocess(32, (32, 32), (0.5,), (0.5,))
COLOUR = Preprocess(32, (32, 32), (0.5,) * 3, (0.5,) * 3)


def test_an_epoch_has_every_image_once_and_is_the_same_again() -> None:
    array = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1) * np.ones((1, 32, 32, 1), np.uint8)
    labels = np.arange(20)
    data = LabelledSet("n", tuple(map(str, labels)), labels, ArrayPictures(array, labels, "n"))
    batches = Batches(data, GREY, 6, seed=1)
    first = list(batches.epoch(1))
    assert [len(images) for images, _ in first] == [6, 6, 6]
    seen = torch.cat([labels for _, labels in first])
    assert len(set(seen.tolist())) == 18
    for images, names in first:
        # Each image holds its own number: order of images and labels is one.
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), names)
    for (images, names), (again, names_again) in zip(first, batches.epoch(1), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(names, names_again)
    assert not torch.equal(torch.cat([n for _, n in batches.epoch(2)]), seen)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    [(images, labels)] = Batches(stripes(5, 0), GREY, 64, seed=0).epoch(1)
    assert images.shape == (5, 1, 32, 32)
    assert labels.shape == (5,)


def test_values_lie_from_0_to_1_in_channels_last() -> None:
    images, _ = next(iter(Batches(stripes(8, 0), COLOUR, 8, seed=0).epoch(1)))
    assert images.dtype == torch.float32
    assert images.shape == (8, 3, 32, 32)
    assert 0 <= images.min() < images.max() <= 1
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_shifting_moves_and_mirrors_and_changes_no_pixel_otherwise() -> None:
    image = np.arange(64 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    centre = np.array([[0.5, 0.5, 0.9]], np.float32)
    assert np.array_equal(shifted(image, centre), image)
    mirrored = np.array([[0.5, 0.5, 0.1]], np.float32)
    assert np.array_equal(shifted(image, mirrored), image[:, :, ::-1])
    down = np.array([[0.99, 0.5, 0.9]], np.float32)
    assert np.array_equal(shifted(image, down)[:, :-1], image[:, 1:])


def test_a_part_lies_in_the_image_and_has_the_networks_size() -> None:
    image = Image.fromarray(np.arange(40 * 90 * 3, dtype=np.int64).reshape(40, 90, 3).astype(np.uint8))
    recipe = Preprocess(16, (16, 24), (0.5,) * 3, (0.5,) * 3)
    for chances in np.random.default_rng(0).random((20, 5), np.float32):
        assert part(image, recipe, chances).shape == (16, 24, 3)
    whole = part(image, Preprocess(40, (40, 90), (0.5,) * 3, (0.5,) * 3), np.ones(5, np.float32))
    assert whole.shape == (40, 90, 3)


def test_grey_images_serve_networks_of_many_channels() -> None:
    recipe = Preprocess(16, (16, 16), (0.5,) * 5, (0.5,) * 5)
    images, _ = next(iter(Batches(stripes(4, 0), recipe, 4, seed=0).epoch(1)))
    assert images.shape == (4, 5, 16, 16)
    assert torch.equal(images[:, 0], images[:, 3])

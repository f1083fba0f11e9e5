from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data.labelled import ArrayPictures, LabelledSet


def stripes(count: int, seed: int) -> LabelledSet:
    """Grey images of 32x32 whose class is the direction of their stripes, of random phase, with noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    phase = random.uniform(0, 6, (count, 1, 1))
    along = np.broadcast_to(np.arange(32.0)[:, None], (32, 32))
    waves = np.stack([along, along.T])[labels] / 2 + phase
    pixels = 128 + 80 * np.sin(waves) + random.normal(0, 20, waves.shape)
    array = pixels.clip(0, 255).astype(np.uint8)[..., None]
    pictures = ArrayPictures(array, np.arange(count), "stripes")
    return LabelledSet("stripes", ("level", "upright"), labels.astype(np.int64), pictures)


@pytest.fixture(scope="session")
def striped_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as PNG files in class folders, 60 of them."""
    folder = tmp_path_factory.mktemp("images") / "stripes"
    data = stripes(60, seed=5)
    for index, label in enumerate(data.labels):
        place = folder / data.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        image: Image.Image = data.pictures.open(index, 1)
        image.save(place / f"{index:02}.png")
    return folder

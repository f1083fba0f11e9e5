"""Classifiers and labelled images that are small, exact and known through and through."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecnn.accuracy.classifier import Classifier
from edgecnn.data.labelled import ArrayPictures, LabelledSet
from edgecnn.source.recipes import RECIPES
from edgecnn.spec import Preprocess

COLOURS = {
    "red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "grey": (140, 140, 140),
    "black": (20, 20, 20), "dark": (60, 60, 60), "dim": (100, 100, 100), "light": (180, 180, 180),
}  # fmt: skip
"""The greys are apart by so little that another normalisation makes one of another."""
FOUR = ("red", "green", "blue", "grey")
SIDE = 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def coloured(images: int, classes: Sequence[str] = FOUR, seed: int = 0) -> LabelledSet:
    """Images of nearly one colour each, no two alike."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % len(classes)
    pixels = np.array([COLOURS[classes[label]] for label in labels])[:, None, None, :]
    array = (pixels + random.integers(-9, 10, (images, SIDE, SIDE, 3))).astype(np.uint8)
    return LabelledSet("colours", tuple(classes), labels, ArrayPictures(array, np.arange(images), "colours"))


def fingerprints(data: LabelledSet) -> list[str]:
    return [data.pictures.fingerprint(index) for index in range(len(data))]


def by_colour(
    recipe: Preprocess,
    trained: Preprocess | None = None,
    *,
    name: str = "colours fp32",
    bgr: bool = False,
    shift: int = 0,
    ran: list[int] | None = None,
) -> Classifier:
    """A classifier that names the colour whose mean is nearest, once it is fed as it was "trained".

    ``ran`` gets an entry for each inference, ``shift`` unused classes stand before the first.
    """
    trained = trained or recipe
    scaled = np.array(list(COLOURS.values()), np.float32) / 255
    known = (scaled - np.array(trained.mean, np.float32)) / np.array(trained.std, np.float32)
    known = known[:, ::-1] if bgr else known

    def load() -> Callable[[np.ndarray], list[np.ndarray]]:
        def run(x: np.ndarray) -> list[np.ndarray]:
            if ran is not None:
                ran.append(1)
            near = -np.square(known - x.mean(axis=(2, 3))).sum(axis=1)
            return [np.concatenate([np.full(shift, -1e9, np.float32), near]).astype(np.float32)[None]]

        return run

    identity = hashlib.sha256(f"{name}{trained}{bgr}{shift}".encode()).hexdigest()
    labels = (*("nothing",) * shift, *COLOURS)
    return Classifier(name, identity, load, 1000, recipe, labels, len(labels))


def recipe(name: str) -> Preprocess:
    return RECIPES[name].fitted(3, SIDE, SIDE)

"""Training batches: shuffled, augmented, the same again for the same seed.

Images of the network's own size are shifted by up to an eighth and mirrored, as is usual for CIFAR
(arXiv:1512.03385, section 4.2). Others give a random part, of 35 to 100 % of their area, resized to the input
and mirrored, the augmentation of Inception (arXiv:1409.4842, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from edgecnn.data.labelled import ArrayPictures, LabelledSet
from edgecnn.spec import Preprocess

_LEAST_AREA = 0.35
_ASPECT = 4 / 3
# Decoding leaves the interpreter to others.
_WORKERS = 4
_AHEAD = 3


@dataclass(frozen=True)
class Batches:
    """The training images of one epoch after another, as tensors."""

    data: LabelledSet
    """Images and labels."""
    recipe: Preprocess
    """The network's input: its size, channels and interpolation; values stay from 0 to 1 here."""
    size: int
    """Images a batch; the few that are left over at the end of an epoch wait for the next shuffle."""
    seed: int
    """With the epoch's number it decides order and augmentation."""

    def __len__(self) -> int:
        return max(1, len(self.data) // self.size)

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of images (B, C, H, W), float32 from 0 to 1, and labels (B,), int64."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self.data))
        chances = random.random((len(self.data), 5), np.float32)
        starts = range(0, len(self) * self.size, self.size)
        with ThreadPoolExecutor(_WORKERS) as pool:
            waiting: list[Future[npt.NDArray[np.uint8]]] = []
            chosen = [order[start : start + self.size] for start in starts]
            for ahead in range(len(chosen) + _AHEAD):
                if ahead < len(chosen):
                    rows = chosen[ahead]
                    waiting.append(pool.submit(self._images, rows, chances[rows]))
                if ahead >= _AHEAD:
                    # NHWC in memory is what torch calls channels_last: no value moves. Not in the pool, where
                    # torch would start threads of its own for each of its threads.
                    pixels = torch.from_numpy(waiting.pop(0).result()).permute(0, 3, 1, 2)
                    labels = torch.from_numpy(self.data.labels[chosen[ahead - _AHEAD]])
                    yield pixels.to(torch.float32).div_(255), labels

    def _images(self, rows: npt.NDArray[np.int64], chances: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Augmented pixels (B, H, W, C)."""
        pictures, channels = self.data.pictures, len(self.recipe.mean)
        if isinstance(pictures, ArrayPictures) and pictures.array.shape[1:] == (*self.recipe.crop, channels):
            return shifted(pictures.array[pictures.indices[rows]], chances)
        pixels = np.stack(
            [
                part(pictures.open(int(row), min(channels, 3)), self.recipe, chance)
                for row, chance in zip(rows, chances, strict=True)
            ]
        )
        return np.ascontiguousarray(pixels[:, :, :, np.arange(channels) % pixels.shape[3]])


def shifted(images: npt.NDArray[np.uint8], chances: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Images (B, H, W, C), each moved by up to an eighth of its side, its border mirrored in, and half of
    them mirrored. ``chances`` (B, >= 3) lie in [0, 1)."""
    count, height, width, _ = images.shape
    rows, columns = height // 8, width // 8
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), "reflect")
    y = (chances[:, 0] * (2 * rows + 1)).astype(int)[:, None] + np.arange(height)
    x = (chances[:, 1] * (2 * columns + 1)).astype(int)[:, None] + np.arange(width)
    x = np.where(chances[:, 2:3] < 0.5, x[:, ::-1], x)
    moved: npt.NDArray[np.uint8] = padded[np.arange(count)[:, None, None], y[:, :, None], x[:, None, :]]
    return moved


def part(image: Image.Image, recipe: Preprocess, chances: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A random part of an image at the network's size, (H, W, C). ``chances`` (5,) lie in [0, 1)."""
    height, width = recipe.crop
    area = image.width * image.height * (_LEAST_AREA + (1 - _LEAST_AREA) * float(chances[0]))
    aspect = width / height * _ASPECT ** (2 * float(chances[1]) - 1)
    w = min(math.sqrt(area * aspect), image.width)
    h = min(math.sqrt(area / aspect), image.height)
    left, top = float(chances[2]) * (image.width - w), float(chances[3]) * (image.height - h)
    resized = image.resize(
        (width, height), Image.Resampling[recipe.interpolation.upper()], box=(left, top, left + w, top + h)
    )
    pixels = np.asarray(resized).reshape(height, width, -1)
    return pixels[:, ::-1] if chances[4] < 0.5 else pixels

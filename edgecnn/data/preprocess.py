"""From a decoded image to a network input, exactly as torchvision's transforms would."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgecnn.data.images import MAX_PIXELS
from edgecnn.errors import ConfigError, DataError
from edgecnn.spec import Preprocess

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def preprocess(image: Image.Image, recipe: Preprocess) -> npt.NDArray[np.float32]:
    """One network input from an image in mode ``RGB`` or ``L``: float32, NCHW, shape (1, C, height, width).

    The same arithmetic as torchvision's ``Resize(resize)``, ``CenterCrop(crop)``, ``ToTensor()`` and
    ``Normalize(mean, std)`` on a PIL image: the shorter side becomes ``resize`` and the longer one is
    truncated to whole pixels; crop offsets are rounded half to even; smaller images are scaled up. A crop
    that is no square is cut from an image that just covers it, ``resize / min(crop)`` times enlarged.

    Raises:
        ConfigError: an unknown interpolation, a crop larger than what is resized to, or an image whose
            channels are not those of the recipe.
        DataError: an image so long and narrow that resizing it would take ``MAX_PIXELS`` or more.
    """
    if recipe.interpolation not in _RESAMPLING:
        raise ConfigError(
            f"unknown interpolation '{recipe.interpolation}'", hint=f"known: {', '.join(_RESAMPLING)}"
        )
    height, width = recipe.crop
    if not 1 <= min(height, width) <= recipe.resize:
        raise ConfigError(f"a crop of {height} x {width} pixels does not fit into {recipe.resize}")
    channels = len(recipe.mean)
    if len(recipe.std) != channels or image.mode != ("L" if channels == 1 else "RGB"):
        raise ConfigError(
            f"an image of mode {image.mode} does not fit {channels} means, {len(recipe.std)} deviations"
        )
    size = _resized_size(image.size, recipe)
    # A strip of one pixel by some thousands would grow to gigabytes.
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{image.width}x{image.height} pixels are too narrow to be resized to {size}")
    # Pillow's `draft` and `reducing_gap` would be faster on large JPEGs, but change the pixels.
    resized = image.resize(size, _RESAMPLING[recipe.interpolation])
    left = round((resized.width - width) / 2)
    top = round((resized.height - height) / 2)
    cut = resized.crop((left, top, left + width, top + height))
    hwc = np.asarray(cut, dtype=np.float32).reshape(height, width, -1)
    if channels != hwc.shape[2]:
        hwc = hwc[:, :, np.arange(channels) % hwc.shape[2]]
    scaled = hwc / np.float32(255)
    normalized = (scaled - np.array(recipe.mean, dtype=np.float32)) / np.array(recipe.std, dtype=np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[np.newaxis])


def _resized_size(size: tuple[int, int], recipe: Preprocess) -> tuple[int, int]:
    """(width, height) of the image that just covers the crop, enlarged by ``resize / min(crop)``."""
    width, height = size
    rows, columns = (round(recipe.resize * side / min(recipe.crop)) for side in recipe.crop)
    if width * rows <= height * columns:
        return columns, max(rows, int(columns * height / width))
    return max(columns, int(rows * width / height)), rows

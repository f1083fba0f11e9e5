"""What a model is and how an image becomes its input: the two values that travel with every artifact."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """One variant of a zoo architecture."""

    name: str
    """Canonical family member, such as ``mobilenet_v2`` or ``resnet18``."""
    width: float
    """Multiplier on the channel counts; 1.0 is the paper's network."""
    resolution: int
    """Height and width of the square input, in pixels."""
    classes: int
    """Number of outputs."""
    in_channels: int
    """Channels of the input: 3 for RGB, 1 for grey."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one input in NCHW."""
        return (1, self.in_channels, self.resolution, self.resolution)


@dataclass(frozen=True)
class Preprocess:
    """From an image file to a network input; belongs to the weights, not to the architecture.

    The image is resized, its proportions kept, the centre is cut out, and the tensor is
    ``(value / 255 - mean) / std`` in RGB order. With one channel it is grey; with more than three, red, green
    and blue repeat.
    """

    resize: int
    """Length of the shorter side after resizing, in pixels. Where the crop is no square: the side that goes
    with the crop's shorter one, in an image just large enough in both directions."""
    crop: tuple[int, int]
    """Height and width of the centre crop, in pixels: the network's input."""
    mean: tuple[float, ...]
    """One value a channel, on the scale 0..1."""
    std: tuple[float, ...]
    """One value a channel, on the scale 0..1."""
    interpolation: str = "bilinear"
    """``bilinear`` or ``bicubic``, with antialiasing as Pillow does it."""

    def fitted(self, channels: int, height: int, width: int) -> Preprocess:
        """The same recipe for another input, with the ratio of resize to crop kept.

        Grey takes the mean of the channels' values; more channels than the recipe has repeat them.
        """
        known = len(self.mean)
        mean, std = self.mean, self.std
        if channels != known:
            if channels == 1:
                mean, std = (round(sum(mean) / known, 4),), (round(sum(std) / known, 4),)
            else:
                mean, std = (tuple(v[c % known] for c in range(channels)) for v in (mean, std))
        resize = round(min(height, width) * self.resize / min(self.crop))
        return replace(self, resize=resize, crop=(height, width), mean=mean, std=std)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``preprocess.json``."""
        fields = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @staticmethod
    def from_json(value: Any) -> Preprocess:
        """The recipe that ``to_json`` gave.

        Raises:
            ValueError: it is none, or one that cannot be.
        """
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(Preprocess)}:
            raise ValueError("a preprocessing has other keys")
        if not _is_sound(value):
            raise ValueError("a preprocessing cannot have these values")
        height, width = value["crop"]
        mean, std = tuple(map(float, value["mean"])), tuple(map(float, value["std"]))
        return Preprocess(value["resize"], (height, width), mean, std, value["interpolation"])


def _is_sound(value: dict[str, Any]) -> bool:
    def numbers(field: str, least: float) -> bool:
        given = value[field]
        return (
            isinstance(given, list)
            and bool(given)
            and all(isinstance(x, (int, float)) and math.isfinite(x) and x > least for x in given)
        )

    return (
        isinstance(value["resize"], int)
        and numbers("crop", 0)
        and len(value["crop"]) == 2
        and all(isinstance(side, int) for side in value["crop"])
        and value["resize"] >= min(value["crop"])
        and numbers("mean", -math.inf)
        and numbers("std", 0)
        and len(value["mean"]) == len(value["std"])
        and value["interpolation"] in ("bilinear", "bicubic")
    )

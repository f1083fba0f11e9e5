"""What a model is and how an image becomes its input: the two values that travel with every artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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
    def variant(self) -> str:
        """The full name used in file names: ``mobilenet_v2-1.0-224``."""
        return (
            f"{self.name}-{self.width:g}-{self.resolution}"
            if self.width % 1
            else (f"{self.name}-{self.width:.1f}-{self.resolution}")
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one input in NCHW."""
        return (1, self.in_channels, self.resolution, self.resolution)


@dataclass(frozen=True)
class Preprocess:
    """From an image file to a network input; belongs to the weights, not to the architecture.

    The shorter side is resized to ``resize`` pixels, the centre ``crop`` x ``crop`` is cut out, and the
    tensor is ``(value / 255 - mean) / std`` in RGB order (grey where there is one channel).
    """

    resize: int
    """Length of the shorter side after resizing, in pixels."""
    crop: int
    """Side of the centre crop, in pixels: the network's resolution."""
    mean: tuple[float, ...]
    """One value a channel, on the scale 0..1."""
    std: tuple[float, ...]
    """One value a channel, on the scale 0..1."""
    interpolation: str = "bilinear"
    """``bilinear`` or ``bicubic``, with antialiasing as Pillow does it."""

    def at(self, resolution: int) -> Preprocess:
        """The same recipe for another resolution, with the ratio of resize to crop kept."""
        return replace(self, resize=round(resolution * self.resize / self.crop), crop=resolution)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``preprocess.json``."""
        fields = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

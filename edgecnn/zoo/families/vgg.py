"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014.

arXiv:1409.1556, table 1, columns A (11 layers), B (13), D (16) and E (19). The variants named ``_bn`` have
batch norm behind each convolution; they are torchvision's, as are the names in the state dict. Instead of its
adaptive pooling, which does nothing at 224, the first dense layer has as many inputs as the last map has
values.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

_CHANNELS = (64, 128, 256, 512, 512)
# How many convolutions have that many channels; 2x2 max pooling follows the last of them.
_REPEATS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each with 2x2 max pooling at its end, and three dense layers."""

    def __init__(
        self,
        repeats: tuple[int, ...],
        batch_norm: bool,
        in_channels: int,
        classes: int,
        width: float,
        resolution: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = in_channels
        for channels, repeat in zip(_CHANNELS, repeats, strict=True):
            outputs = scale_channels(channels, width)
            for _ in range(repeat):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outputs))
                layers.append(nn.ReLU(inplace=True))
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        side = resolution // 2 ** len(_CHANNELS)
        hidden = scale_channels(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * side * side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        )
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, resolution, resolution)``."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """A VGG with random weights.

    Input ``(N, in_channels, resolution, resolution)``, output logits ``(N, classes)``.
    """
    repeats = _REPEATS[spec.name.removesuffix("_bn")]
    batch_norm = spec.name.endswith("_bn")
    return VGG(repeats, batch_norm, spec.in_channels, spec.classes, spec.width, spec.resolution)

"""SqueezeNet: Iandola et al., "AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016.

arXiv:1602.07360, table 1, and version 1.1 of its authors' repository (DeepScale/SqueezeNet), which pools
earlier and starts with fewer and smaller filters: 2.4 times less work. The form and the names in the state
dict are torchvision's. The class scores come out of a ReLU and an average over the map, so none is negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

# Channels of fire2 to fire9: s1x1, and e1x1 = e3x3 of table 1.
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class _Version(NamedTuple):
    first_channels: int
    first_kernel: int
    pool_after: tuple[int, ...]
    """How many fire modules stand before each max pooling."""


_VERSIONS = {
    "squeezenet1_0": _Version(96, 7, (0, 3, 7)),
    "squeezenet1_1": _Version(64, 3, (0, 2, 4)),
}


class Fire(nn.Module):
    """1x1 down to a few channels, then 1x1 and 3x3 side by side; ReLU behind each of the three."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, 2 expanded, H, W)`` of maps ``(N, inputs, H, W)``."""
        y = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(y)), self.relu(self.expand3x3(y))], 1)


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules, a 1x1 convolution to the classes, average pooling."""

    def __init__(self, version: _Version, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        channels = scale_channels(version.first_channels, width)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, version.first_kernel, 2),
            nn.ReLU(inplace=True),
        ]
        for index, (squeezed, expanded) in enumerate(_FIRES):
            if index in version.pool_after:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            expanded = scale_channels(expanded, width)
            layers.append(Fire(channels, scale_channels(squeezed, width), expanded))
            channels = 2 * expanded
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(channels, classes, 1), nn.ReLU(inplace=True)
        )
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        scores = self.classifier(self.features(x))
        return nn.functional.adaptive_avg_pool2d(scores, (1, 1)).flatten(1)


def build(spec: ModelSpec) -> nn.Module:
    """A SqueezeNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return SqueezeNet(_VERSIONS[spec.name], spec.in_channels, spec.classes, spec.width)

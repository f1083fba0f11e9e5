"""ZFNet: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013, arXiv:1311.2901.

The wide network: figure 3 with 512, 1024 and 512 maps in layers 3, 4 and 5, the best single network of
table 2 (the one in figure 3 itself has 384, 384 and 256). The paper gives no padding. The sizes in its
figure, 110, 55, 26, 13 and 6, follow at 224 from a padding of 1 in the first convolution, none in the second,
1 in the 3x3 ones, and pooling of 3x3 windows two apart that takes in a last incomplete window, as Caffe does.
That makes 107.6 M parameters and 2.48 G multiply-accumulates.

Contrast normalisation across maps stands behind the first two poolings, as in the figure. The paper does not
print its constants; they are AlexNet's here, the network that it starts from.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import alexnet_classifier, init_weights, local_response_norm, scale_channels


class ZFNet(nn.Module):
    """Five convolutions, three of them followed by overlapping max pooling, and three dense layers."""

    def __init__(self, in_channels: int, classes: int, width: float, resolution: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scale_channels(channels, width) for channels in (96, 256, 512, 1024, 512))
        hidden = scale_channels(4096, width)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 7, 2, 1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            local_response_norm(),
            nn.Conv2d(c1, c2, 5, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            local_response_norm(),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        # With its incomplete last window, each pooling halves its map, rounding down.
        second = ((resolution - 5) // 2 + 1) // 2
        third = ((second - 5) // 2 + 1) // 2
        side = third // 2
        self.classifier = alexnet_classifier(c5 * side * side, hidden, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, resolution, resolution)``."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """ZFNet with random weights.

    Input ``(N, in_channels, resolution, resolution)``, output logits ``(N, classes)``.
    """
    return ZFNet(spec.in_channels, spec.classes, spec.width, spec.resolution)

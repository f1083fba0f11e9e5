"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", 2014, arXiv:1409.4842, table 1.

The form and the names in the state dict are torchvision's: batch norm behind each convolution
instead of the paper's local response normalisation, and a 3x3 kernel where the paper has 5x5 (torchvision's
issue 906). The two auxiliary heads, which serve training only, are left out.

torchvision runs its weights with ``transform_input``: it undoes the usual preparation of the image and
prepares it with mean 0.5 and standard deviation 0.5. Here the weights' own preparation says so from the
start, and the network takes its input as it comes.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import ConvBnRelu, init_weights, scale_channels


class Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; again 1x1 and 3x3; pooling and 1x1. Figure 2 (b)."""

    def __init__(
        self,
        inputs: int,
        ones: int,
        reduced_threes: int,
        threes: int,
        reduced_fives: int,
        fives: int,
        pooled: int,
    ) -> None:
        super().__init__()
        self.outputs = ones + threes + fives + pooled
        self.branch1 = ConvBnRelu(inputs, ones, 1)
        self.branch2 = nn.Sequential(
            ConvBnRelu(inputs, reduced_threes, 1), ConvBnRelu(reduced_threes, threes, 3)
        )
        self.branch3 = nn.Sequential(
            ConvBnRelu(inputs, reduced_fives, 1), ConvBnRelu(reduced_fives, fives, 3)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBnRelu(inputs, pooled, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H, W)`` of maps ``(N, inputs, H, W)``."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


# Channels of each module: "#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5", "pool proj" of table 1.
_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """Three convolutions, nine inception modules, average pooling, one dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        c1, c3 = scale_channels(64, width), scale_channels(192, width)
        self.conv1 = ConvBnRelu(in_channels, c1, 7, 2)
        self.conv2 = ConvBnRelu(c1, c1, 1)
        self.conv3 = ConvBnRelu(c1, c3, 3)
        channels = c3
        for name, counts in _INCEPTIONS.items():
            inception = Inception(channels, *(scale_channels(count, width) for count in counts))
            self.add_module(f"inception{name}", inception)
            channels = inception.outputs
        # Pooling that halves a map takes in a last incomplete window.
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        for name in _INCEPTIONS:
            if name == "4a":
                x = self.maxpool3(x)
            elif name == "5a":
                x = self.maxpool4(x)
            x = self.get_submodule(f"inception{name}")(x)
        pooled = nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        logits: torch.Tensor = self.fc(self.dropout(pooled))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """GoogLeNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return GoogLeNet(spec.in_channels, spec.classes, spec.width)

"""DenseNet: Huang et al., "Densely Connected Convolutional Networks", 2016, arXiv:1608.06993, table 1.

The DenseNet-BC networks: bottlenecks of four times the growth rate, transitions that halve the channels.
DenseNet-161, whose growth rate is 48, is in the earlier versions of the table. The names in the state dict
are torchvision's. The width, which scales the growth rate and the first convolution, is not in the paper.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

_BOTTLENECK = 4

# Growth rate, channels of the first convolution, layers of the four dense blocks.
_PLANS = {
    "densenet121": (32, 64, (6, 12, 24, 16)),
    "densenet161": (48, 96, (6, 12, 36, 24)),
    "densenet169": (32, 64, (6, 12, 32, 32)),
    "densenet201": (32, 64, (6, 12, 48, 32)),
}


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1; batch norm, ReLU, 3x3: ``growth`` new maps from all maps before."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, _BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(_BOTTLENECK * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(_BOTTLENECK * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, inputs + growth, H, W)``: those of ``x``, then the new ones."""
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return torch.cat((x, y), 1)


class DenseNet(nn.Module):
    """A 7x7 convolution, max pooling, four dense blocks, average pooling, one dense layer."""

    def __init__(
        self, growth: int, stem: int, blocks: tuple[int, ...], in_channels: int, classes: int
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv0=nn.Conv2d(in_channels, stem, 7, 2, 3, bias=False),
                norm0=nn.BatchNorm2d(stem),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, 2, 1),
            )
        )
        channels = stem
        for number, layers in enumerate(blocks, start=1):
            self.features.add_module(f"denseblock{number}", _dense_block(channels, growth, layers))
            channels += layers * growth
            if number < len(blocks):
                self.features.add_module(f"transition{number}", _transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = nn.functional.relu(self.features(x), inplace=True)
        logits: torch.Tensor = self.classifier(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """A DenseNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    growth, stem, blocks = _PLANS[spec.name]
    return DenseNet(
        scale_channels(growth, spec.width),
        scale_channels(stem, spec.width),
        blocks,
        spec.in_channels,
        spec.classes,
    )


def _dense_block(channels: int, growth: int, layers: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            (f"denselayer{index + 1}", DenseLayer(channels + index * growth, growth))
            for index in range(layers)
        )
    )


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )

"""EfficientNet: Tan and Le 2019, arXiv:1905.11946, table 1, B0 to B4.

"EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks". The names in the state dict are
torchvision's, so that its checkpoints load as they are. Stochastic depth, which acts in training only, is
left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import SqueezeExcitation, conv_bn, init_weights, round_channels


class Stage(NamedTuple):
    """One row of table 1, MBConv blocks of one size."""

    expansion: int
    kernel: int
    stride: int
    """Of the first block; the others have 1."""
    outputs: int
    repeats: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
"""Stages 2 to 8 of table 1: the blocks of B0."""

SCALES = {"0": (1.0, 1.0), "1": (1.0, 1.1), "2": (1.1, 1.2), "3": (1.2, 1.4), "4": (1.4, 1.8)}
"""Width and depth coefficients by the last character of a variant's name."""


class MBConv(nn.Module):
    """Expand 1x1, filter depthwise, squeeze and excite, project 1x1; add to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn(inputs, hidden, 1, activation=nn.SiLU))
        layers += [
            conv_bn(hidden, hidden, kernel, stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcitation(hidden, inputs // 4, nn.SiLU(inplace=True), nn.Sigmoid()),
            conv_bn(hidden, outputs, 1, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y: torch.Tensor = self.block(x)
        return x + y if self.has_shortcut else y


class EfficientNet(nn.Module):
    """A 3x3 convolution, seven stages of MBConv, a 1x1 convolution, average pooling, one dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float, depth: float) -> None:
        super().__init__()
        channels = round_channels(32 * width)
        layers: list[nn.Module] = [conv_bn(in_channels, channels, 3, 2, activation=nn.SiLU)]
        for expansion, kernel, first_stride, outputs, repeats in STAGES:
            blocks = []
            for repeat in range(math.ceil(repeats * depth)):
                stride = first_stride if repeat == 0 else 1
                scaled = round_channels(outputs * width)
                blocks.append(MBConv(channels, scaled, kernel, stride, expansion))
                channels = scaled
            layers.append(nn.Sequential(*blocks))
        last = 4 * channels
        layers.append(conv_bn(channels, last, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """An EfficientNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``.

    The spec's width multiplies the variant's own coefficient.
    """
    width, depth = SCALES[spec.name[-1]]
    return EfficientNet(spec.in_channels, spec.classes, width * spec.width, depth)

"""MobileNetV2: Sandler et al. 2018, arXiv:1801.04381, table 2.

"MobileNetV2: Inverted Residuals and Linear Bottlenecks". The names in the state dict
are torchvision's, so that its checkpoints load as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import conv_bn_relu6, init_weights, round_channels

# Expansion, outputs, repeats, stride of the first repeat: t, c, n, s of table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1, filter 3x3 depthwise, project 1x1 without activation; add to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_bn_relu6(inputs, hidden, 1)]
        layers += [
            conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """A 3x3 convolution, seventeen inverted residuals, a 1x1 convolution, average pooling, a dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        channels = round_channels(32 * width)
        layers: list[nn.Module] = [conv_bn_relu6(in_channels, channels, 3, stride=2)]
        for expansion, outputs, repeats, first_stride in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, round_channels(outputs * width), stride, expansion))
                channels = round_channels(outputs * width)
        # Section 4.1: multipliers below one leave the last convolution as it is.
        last = round_channels(1280 * max(1.0, width))
        layers.append(conv_bn_relu6(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """MobileNetV2 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return MobileNetV2(spec.in_channels, spec.classes, spec.width)

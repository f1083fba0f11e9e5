"""MNASNet: Tan et al. 2018, arXiv:1807.11626, MnasNet-B1, the variant without squeeze-and-excitation.

"MnasNet: Platform-Aware Neural Architecture Search for Mobile". The paper draws only A1; the blocks of B1 are
those of the authors' repository, tensorflow/tpu, models/official/mnasnet. The names in the state dict are
torchvision's, so that its checkpoints load as they are. A variant's number is its depth multiplier, and a
width multiplies it once more: ``mnasnet1_0`` at width 0.5 is ``mnasnet0_5``.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, round_channels

_MULTIPLIERS = {"mnasnet0_5": 0.5, "mnasnet1_0": 1.0}

# Kernel, expansion, outputs, repeats, stride of the first repeat.
_STAGES = (
    (3, 3, 24, 3, 2),
    (5, 3, 40, 3, 2),
    (5, 6, 80, 3, 2),
    (3, 6, 96, 2, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
# Outputs of the last convolution: the same for every multiplier.
_LAST = 1280


class InvertedResidual(nn.Module):
    """Expand 1x1, filter depthwise, project 1x1 without activation; add to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            *_conv(inputs, hidden, 1),
            *_conv(hidden, hidden, kernel, stride, groups=hidden),
            *_conv(hidden, outputs, 1)[:2],
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class MNASNet(nn.Module):
    """A 3x3 and a depthwise separable convolution, inverted residuals, a 1x1 convolution, a dense layer."""

    def __init__(self, in_channels: int, classes: int, multiplier: float) -> None:
        super().__init__()
        first, channels = round_channels(32 * multiplier), round_channels(16 * multiplier)
        layers = [
            *_conv(in_channels, first, 3, 2),
            *_conv(first, first, 3, groups=first),
            *_conv(first, channels, 1)[:2],
        ]
        for kernel, expansion, outputs, repeats, first_stride in _STAGES:
            stage = []
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                scaled = round_channels(outputs * multiplier)
                stage.append(InvertedResidual(channels, scaled, kernel, stride, expansion))
                channels = scaled
            layers.append(nn.Sequential(*stage))
        self.layers = nn.Sequential(*layers, *_conv(channels, _LAST, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_LAST, classes))
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        pooled = nn.functional.adaptive_avg_pool2d(self.layers(x), 1)
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """An MNASNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return MNASNet(spec.in_channels, spec.classes, _MULTIPLIERS[spec.name] * spec.width)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU as a list: torchvision numbers them flat, not in blocks."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]

"""MobileNetV1: Howard et al. 2017, arXiv:1704.04861, table 1.

"MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications". Width and resolution are
its two multipliers. Activations are ReLU6, as in the published checkpoints; the paper writes ReLU. For 32x32
images the first convolution keeps the size, so that five halvings become four.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import conv_bn_relu6, init_weights, round_channels

# Outputs and stride of each depthwise separable block. Table 1 prints stride 2 for the last depthwise layer
# too, a slip: its output is 7x7 like its input.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
_STEM_STRIDE = {"mobilenet_v1": 2, "mobilenet_v1_cifar": 1}


class MobileNetV1(nn.Module):
    """A 3x3 convolution, thirteen depthwise separable blocks, global average pooling and one dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float, stem_stride: int) -> None:
        super().__init__()
        channels = round_channels(32 * width)
        layers = [conv_bn_relu6(in_channels, channels, 3, stem_stride)]
        for outputs, stride in _BLOCKS:
            layers.append(conv_bn_relu6(channels, channels, 3, stride, groups=channels))
            layers.append(conv_bn_relu6(channels, round_channels(outputs * width), 1))
            channels = round_channels(outputs * width)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """MobileNetV1 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return MobileNetV1(spec.in_channels, spec.classes, spec.width, _STEM_STRIDE[spec.name])

"""ShuffleNet V2: Ma et al. 2018, arXiv:1807.11164, table 5.

"ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design". The names in the state dict are
torchvision's. Table 5 gives each of the four variants its own channels; the width scales those once more.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import conv_bn, init_weights, scale_channels

# Outputs of the first convolution, of stages 2, 3 and 4, and of the last convolution.
_CHANNELS = {
    "shufflenet_v2_x0_5": (24, 48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (24, 116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (24, 176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (24, 244, 488, 976, 2048),
}
_REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Two branches of half the outputs each, their channels shuffled: figure 3 (c) and, with stride 2, (d).

    With stride 1 the first branch is one half of the input as it is, the second filters the other half; with
    stride 2 both filter the whole input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.has_split = stride == 1
        self.branch1 = nn.Sequential()
        if not self.has_split:
            self.branch1 = nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                *conv_bn(inputs, half, 1),
            )
        self.branch2 = nn.Sequential(
            *conv_bn(half if self.has_split else inputs, half, 1),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            *conv_bn(half, half, 1),
        )
        self.half_channels = half

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        if self.has_split:
            # Not chunk: the exporter would have the graph compute the size of a half.
            kept, filtered = torch.split(x, self.half_channels, 1)
            return _shuffle(torch.cat((kept, self.branch2(filtered)), 1))
        return _shuffle(torch.cat((self.branch1(x), self.branch2(x)), 1))


class ShuffleNetV2(nn.Module):
    """A 3x3 convolution, max pooling, three stages of units, a 1x1 convolution, pooling, a dense layer."""

    def __init__(self, channels: tuple[int, ...], in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        first, last = scale_channels(channels[0], width), scale_channels(channels[-1], width)
        # Of two halves, each a multiple of 8.
        stages = [scale_channels(outputs, width, 16) for outputs in channels[1:-1]]
        self.conv1 = conv_bn(in_channels, first, 3, stride=2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage2 = _stage(first, stages[0], _REPEATS[0])
        self.stage3 = _stage(stages[0], stages[1], _REPEATS[1])
        self.stage4 = _stage(stages[1], stages[2], _REPEATS[2])
        self.conv5 = conv_bn(stages[2], last, 1)
        self.fc = nn.Linear(last, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        pooled = nn.functional.adaptive_avg_pool2d(self.conv5(x), (1, 1))
        logits: torch.Tensor = self.fc(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """ShuffleNet V2 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return ShuffleNetV2(_CHANNELS[spec.name], spec.in_channels, spec.classes, spec.width)


def _stage(inputs: int, outputs: int, repeats: int) -> nn.Sequential:
    rest = [ShuffleUnit(outputs, outputs, 1) for _ in range(1, repeats)]
    return nn.Sequential(ShuffleUnit(inputs, outputs, 2), *rest)


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    # The channels of the two branches take turns.
    n, channels, height, width = x.shape
    return x.reshape(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)

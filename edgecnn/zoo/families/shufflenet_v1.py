"""ShuffleNet: Zhang et al. 2017, arXiv:1707.01083, table 1, column g = 3.

"ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices". As the paper says
below the table, the first 1x1 convolution of stage 2 has no groups, and a bottleneck has a quarter of the
unit's output channels. The width is the paper's "s x", which scales all channels: 0.25, 0.5, 1 and 2 give the
complexities of tables 2 and 5. At 1.5 the authors' code keeps the 24 channels of the first convolution, which
are 36 here.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

_GROUPS = 3
_BOTTLENECK = 4
# Outputs of stage 2; they double with every stage.
_STAGE2 = 240
# Units of stages 2, 3 and 4.
_REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, 3x3 depthwise, grouped 1x1; figure 2 (b) and, with stride 2, (c).

    With stride 1 the result is added to the input, with stride 2 it is put beside its 3x3 average.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, first_groups: int) -> None:
        super().__init__()
        hidden = outputs // _BOTTLENECK
        added = outputs if stride == 1 else outputs - inputs
        self.conv1 = nn.Conv2d(inputs, hidden, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, added, 1, groups=_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(added)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y = _shuffle(nn.functional.relu(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return nn.functional.relu(x + y if self.pool is None else torch.cat((self.pool(x), y), 1))


class ShuffleNetV1(nn.Module):
    """A 3x3 convolution, max pooling, three stages of shuffle units, average pooling, a dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        # Both the bottleneck and what a strided unit adds to its input divide by the groups.
        divisor = _GROUPS * _BOTTLENECK
        channels = scale_channels(24, width, divisor)
        outputs = max(2 * channels, scale_channels(_STAGE2, width, divisor))
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage2 = _stage(channels, outputs, _REPEATS[0], first_groups=1)
        self.stage3 = _stage(outputs, 2 * outputs, _REPEATS[1], _GROUPS)
        self.stage4 = _stage(2 * outputs, 4 * outputs, _REPEATS[2], _GROUPS)
        self.fc = nn.Linear(4 * outputs, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool(nn.functional.relu(self.bn1(self.conv1(x))))
        x = self.stage4(self.stage3(self.stage2(x)))
        logits: torch.Tensor = self.fc(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """ShuffleNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return ShuffleNetV1(spec.in_channels, spec.classes, spec.width)


def _stage(inputs: int, outputs: int, repeats: int, first_groups: int) -> nn.Sequential:
    rest = [ShuffleUnit(outputs, outputs, 1, _GROUPS) for _ in range(1, repeats)]
    return nn.Sequential(ShuffleUnit(inputs, outputs, 2, first_groups), *rest)


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    # Channel g * c + i goes to i * groups + g: the next convolution's groups get channels of all groups.
    n, channels, height, width = x.shape
    grouped = x.reshape(n, _GROUPS, channels // _GROUPS, height, width)
    return grouped.transpose(1, 2).reshape(n, channels, height, width)

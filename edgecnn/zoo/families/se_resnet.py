"""SE-ResNet-50: Hu et al., "Squeeze-and-Excitation Networks", 2017, arXiv:1709.01507, table 1.

Names and details are those of the PyTorch port of the authors' Caffe network (Cadene's pretrained-models):
a bottleneck strides in its first 1x1 convolution, as in the ResNet paper, the max pooling has a partial last
window (``ceil_mode``) instead of padding, and the two dense layers of an excitation are 1x1 convolutions.
The width is not in the paper.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import SqueezeExcitation, init_weights, scale_channels

_EXPANSION = 4
_REDUCTION = 16
_REPEATS = (3, 4, 6, 3)


class SEBottleneck(nn.Module):
    """1x1 down to ``planes``, 3x3, 1x1 up to four times as many, squeeze and excitation; a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, planes, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        squeezed = outputs // _REDUCTION
        self.se_module = SqueezeExcitation(outputs, squeezed, nn.ReLU(inplace=True), nn.Sigmoid())
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, 4 planes, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: torch.Tensor = self.relu(self.se_module(self.bn3(self.conv3(y))) + shortcut)
        return out


class SEResNet(nn.Module):
    """A 7x7 convolution, max pooling, four stages of blocks, average pooling, one dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        stem, *planes = [scale_channels(channels, width) for channels in (64, 64, 128, 256, 512)]
        self.layer0 = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(in_channels, stem, 7, 2, 3, bias=False),
                bn1=nn.BatchNorm2d(stem),
                relu1=nn.ReLU(inplace=True),
                pool=nn.MaxPool2d(3, 2, ceil_mode=True),
            )
        )
        self.layer1 = _stage(stem, planes[0], _REPEATS[0], 1)
        self.layer2 = _stage(planes[0] * _EXPANSION, planes[1], _REPEATS[1], 2)
        self.layer3 = _stage(planes[1] * _EXPANSION, planes[2], _REPEATS[2], 2)
        self.layer4 = _stage(planes[2] * _EXPANSION, planes[3], _REPEATS[3], 2)
        self.last_linear = nn.Linear(planes[3] * _EXPANSION, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(x)))))
        logits: torch.Tensor = self.last_linear(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """SE-ResNet-50 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return SEResNet(spec.in_channels, spec.classes, spec.width)


def _stage(inputs: int, planes: int, repeats: int, stride: int) -> nn.Sequential:
    rest = [SEBottleneck(planes * _EXPANSION, planes, 1) for _ in range(1, repeats)]
    return nn.Sequential(SEBottleneck(inputs, planes, stride), *rest)

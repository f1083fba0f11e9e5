"""ResNet: He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, table 1.

The names in the state dict are torchvision's. As there, a bottleneck strides in its 3x3 convolution instead
of its first 1x1 (often called ResNet v1.5). The width, which scales each stage, is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import round_channels


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, planes, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        out: torch.Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1 down to ``planes``, 3x3, 1x1 up to four times as many, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, 4 planes, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: torch.Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return out


# Block and repeats of the four stages: table 1 of the paper.
_DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A 7x7 convolution, max pooling, four stages of residual blocks, average pooling, one dense layer."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        repeats: tuple[int, int, int, int],
        in_channels: int,
        classes: int,
        width: float,
    ) -> None:
        super().__init__()
        planes = [round_channels(channels * width) for channels in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(in_channels, planes[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(block, planes[0], planes[0], repeats[0], 1)
        self.layer2 = _stage(block, planes[0] * block.expansion, planes[1], repeats[1], 2)
        self.layer3 = _stage(block, planes[1] * block.expansion, planes[2], repeats[2], 2)
        self.layer4 = _stage(block, planes[2] * block.expansion, planes[3], repeats[3], 2)
        self.fc = nn.Linear(planes[3] * block.expansion, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """A ResNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    block, repeats = _DEPTHS[spec.name]
    return ResNet(block, repeats, spec.in_channels, spec.classes, spec.width)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, repeats: int, stride: int
) -> nn.Sequential:
    outputs = planes * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    rest = [block(outputs, planes, 1, None) for _ in range(1, repeats)]
    return nn.Sequential(block(inputs, planes, stride, downsample), *rest)

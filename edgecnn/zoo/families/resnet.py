"""ResNet and its two relatives that share the plan of table 1, with torchvision's names in the state dict.

- ResNet: He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, table 1.
- Wide ResNet: Zagoruyko and Komodakis, "Wide Residual Networks", 2016, arXiv:1605.07146, table 8: the 3x3
  convolutions of ResNet-50 have twice the channels.
- ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2016,
  arXiv:1611.05431, table 1: they have 32 groups of 4 channels in the first stage, and twice the channels too.

As in torchvision, a bottleneck strides in its 3x3 convolution instead of its first 1x1 (often called
ResNet v1.5). The width, which scales each stage, is not in the papers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        out: torch.Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1 down to ``hidden`` channels, 3x3, in groups for ResNeXt, 1x1 up again, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: torch.Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return out


@dataclass(frozen=True)
class _Plan:
    block: type[BasicBlock] | type[Bottleneck]
    repeats: tuple[int, int, int, int]
    groups: int = 1
    # Channels inside the first stage's blocks; they double with every stage.
    hidden: int = 64


_PLANS = {
    "resnet18": _Plan(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Plan(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Plan(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Plan(Bottleneck, (3, 4, 23, 3)),
    "resnet152": _Plan(Bottleneck, (3, 8, 36, 3)),
    "wide_resnet50_2": _Plan(Bottleneck, (3, 4, 6, 3), hidden=128),
    "resnext50_32x4d": _Plan(Bottleneck, (3, 4, 6, 3), groups=32, hidden=128),
}


class ResNet(nn.Module):
    """A 7x7 convolution, max pooling, four stages of residual blocks, average pooling, one dense layer."""

    def __init__(self, plan: _Plan, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        stem = scale_channels(64, width)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        outputs = [scale_channels(64 << stage, width) * plan.block.expansion for stage in range(4)]
        self.layer1 = _stage(plan, 0, stem, outputs[0], width)
        self.layer2 = _stage(plan, 1, outputs[0], outputs[1], width)
        self.layer3 = _stage(plan, 2, outputs[1], outputs[2], width)
        self.layer4 = _stage(plan, 3, outputs[2], outputs[3], width)
        self.fc = nn.Linear(outputs[3], classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """A ResNet with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return ResNet(_PLANS[spec.name], spec.in_channels, spec.classes, spec.width)


def _stage(plan: _Plan, stage: int, inputs: int, outputs: int, width: float) -> nn.Sequential:
    # Inner channels have to divide by the groups at every width.
    hidden = scale_channels(plan.hidden << stage, width, max(8, plan.groups))
    blocks = [plan.block(inputs, hidden, outputs, 1 if stage == 0 else 2, plan.groups)]
    blocks += [plan.block(outputs, hidden, outputs, 1, plan.groups) for _ in range(1, plan.repeats[stage])]
    return nn.Sequential(*blocks)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    # Option B of section 4.1: a 1x1 convolution where the shapes differ, the input itself elsewhere.
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

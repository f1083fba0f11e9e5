"""ResNet for CIFAR-10: He et al. 2015, arXiv:1512.03385, section 4.2 and table 6.

6n + 2 layers for 32x32 images: one convolution, three stages of n blocks with 16, 32 and 64 channels, one
dense layer. Shortcuts have no weights: option A of the paper, where every second pixel and zeros for the new
channels stand for the input. The new channels are halved between front and back, and the names in the state
dict are chosen, as in the common PyTorch port (Idelbayev's), so that its checkpoints load as they are. The
width is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

# Blocks in each of the three stages: the paper's n.
_BLOCKS = {"resnet20_cifar": 3, "resnet56_cifar": 9}


class CifarBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nn.functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            front = self.new_channels // 2
            x = nn.functional.pad(x, (0, 0, 0, 0, front, self.new_channels - front))
        return x


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks, average pooling, one dense layer."""

    def __init__(self, blocks: int, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        stages = [scale_channels(channels, width) for channels in (16, 32, 64)]
        self.conv1 = nn.Conv2d(in_channels, stages[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stages[0])
        self.layer1 = _stage(stages[0], stages[0], blocks, 1)
        self.layer2 = _stage(stages[0], stages[1], blocks, 2)
        self.layer3 = _stage(stages[1], stages[2], blocks, 2)
        self.linear = nn.Linear(stages[2], classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """The network with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return CifarResNet(_BLOCKS[spec.name], spec.in_channels, spec.classes, spec.width)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [CifarBlock(outputs, outputs, 1) for _ in range(1, blocks)]
    return nn.Sequential(CifarBlock(inputs, outputs, stride), *rest)

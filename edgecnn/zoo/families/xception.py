"""Xception: Chollet 2016, arXiv:1610.02357, figure 5.

"Xception: Deep Learning with Depthwise Separable Convolutions". The names in the state dict are those of the
widely used PyTorch ports (tstandley's, Cadene's, timm's). As there, and unlike in the Keras original, maps of
even size are padded on both sides where a pooling strides, and batch norm has PyTorch's epsilon. The width,
which scales every count, is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

# The outputs of each separable convolution and the stride of blocks 1 to 12: entry, middle and exit flow.
_BLOCKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((128, 128), 2),
    ((256, 256), 2),
    ((728, 728), 2),
    *((((728, 728, 728), 1),) * 8),
    ((728, 1024), 2),
)


class SeparableConv(nn.Module):
    """A 3x3 depthwise convolution and a 1x1 convolution with nothing between (section 4.7 of the paper)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H, W)`` of maps ``(N, inputs, H, W)``."""
        y: torch.Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """Separable convolutions, each behind a ReLU and before batch norm, beside a shortcut.

    With stride 2 a max pooling follows them and the shortcut is a strided 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: list[int], stride: int, *, starts_with_relu: bool) -> None:
        super().__init__()
        self.skip = self.skipbn = None
        if stride != 1:
            self.skip = nn.Conv2d(inputs, outputs[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs[-1])
        layers: list[nn.Module] = []
        for before, after in zip([inputs, *outputs], outputs, strict=False):
            layers += [nn.ReLU(), SeparableConv(before, after), nn.BatchNorm2d(after)]
        if stride != 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.rep = nn.Sequential(*layers[0 if starts_with_relu else 1 :])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs[-1], H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        shortcut = x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x))
        y: torch.Tensor = self.rep(x) + shortcut
        return y


class Xception(nn.Module):
    """Two convolutions, twelve blocks, two separable convolutions, average pooling, a dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        c32, c64, c1536, c2048 = (scale_channels(channels, width) for channels in (32, 64, 1536, 2048))
        self.conv1 = nn.Conv2d(in_channels, c32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(c32)
        self.conv2 = nn.Conv2d(c32, c64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(c64)
        channels = c64
        for number, (counts, stride) in enumerate(_BLOCKS, 1):
            outputs = [scale_channels(count, width) for count in counts]
            # What block 1 reads has been through a ReLU already.
            block = Block(channels, outputs, stride, starts_with_relu=number > 1)
            self.add_module(f"block{number}", block)
            channels = outputs[-1]
        self.conv3 = SeparableConv(channels, c1536)
        self.bn3 = nn.BatchNorm2d(c1536)
        self.conv4 = SeparableConv(c1536, c2048)
        self.bn4 = nn.BatchNorm2d(c2048)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(c2048, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        for number in range(1, len(_BLOCKS) + 1):
            x = self.get_submodule(f"block{number}")(x)
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.bn4(self.conv4(x)))
        logits: torch.Tensor = self.fc(self.dropout(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """Xception with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return Xception(spec.in_channels, spec.classes, spec.width)

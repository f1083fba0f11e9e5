"""Inception-ResNet v2: Szegedy et al. 2016, arXiv:1602.07261.

"Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning". This is the network that
the authors published as code and checkpoint (TF-Slim's inception_resnet_v2), whose names in PyTorch (timm's
and Cadene's ports) stand here. It differs from the paper's figures: the stem is Inception v3's with one block
more (figure 3 has another), there are 10, 20 and 10 residual blocks (figure 15 has 5, 10 and 5), and their
maps have 320, 1088 and 2080 channels. The original batch norm learns no scale: it has 55,813,192 parameters
where the ports, and this network, have 55,843,464. The width, which scales every count, is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import ConvBnRelu, init_weights, scale_channels

Branch = tuple[tuple[int, int | tuple[int, int]], ...]
"""Outputs and kernel of one convolution after the other."""

_MIXED_5B: tuple[Branch, ...] = (((96, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)))
_MIXED_5B_POOLED = 64
_MIXED_6A: tuple[Branch, ...] = (((384, 3),), ((256, 1), (256, 3), (384, 3)))
_MIXED_7A: tuple[Branch, ...] = (((256, 1), (384, 3)), ((256, 1), (288, 3)), ((256, 1), (288, 3), (320, 3)))

# The residual blocks of figures 16, 17 and 19, by the size of their map for a 299x299 input.
_BLOCK35: tuple[Branch, ...] = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
_BLOCK17: tuple[Branch, ...] = (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1))))
_BLOCK8: tuple[Branch, ...] = (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))


class Branches(nn.Module):
    """Branches of convolutions over the same map, concatenated; ``pool`` is the last of them.

    With stride 2 the last convolution of every branch strides, without padding.
    """

    def __init__(
        self,
        inputs: int,
        branches: tuple[Branch, ...],
        width: float,
        stride: int = 1,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.names = [f"branch{index}" for index in range(len(branches))]
        self.outputs = 0
        for name, layers in zip(self.names, branches, strict=True):
            channels, convs = inputs, []
            for index, (count, kernel) in enumerate(layers):
                outputs = scale_channels(count, width)
                step = stride if index == len(layers) - 1 else 1
                convs.append(ConvBnRelu(channels, outputs, kernel, step, padded=step == 1))
                channels = outputs
            self.add_module(name, convs[0] if len(convs) == 1 else nn.Sequential(*convs))
            self.outputs += channels
        if pool is not None:
            self.names.append(f"branch{len(branches)}")
            self.add_module(self.names[-1], pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, C', H', W')`` of maps ``(N, inputs, H, W)``."""
        return torch.cat([self.get_submodule(name)(x) for name in self.names], 1)


class Residual(Branches):
    """Branches, brought to the input's channels by a 1x1 convolution, scaled and added to the input.

    Section 3.3 of the paper: unscaled, the sums of so wide a network make its training unstable.
    """

    def __init__(
        self, inputs: int, branches: tuple[Branch, ...], width: float, scale: float, *, relu: bool = True
    ) -> None:
        super().__init__(inputs, branches, width)
        self.conv2d = nn.Conv2d(self.outputs, inputs, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, inputs, H, W)`` of maps of the same shape."""
        y = torch.add(x, self.conv2d(super().forward(x)), alpha=self.scale)
        return nn.functional.relu(y) if self.relu else y


class InceptionResNetV2(nn.Module):
    """Inception v3's stem, three stages of residual blocks, a 1x1 convolution, pooling, a dense layer."""

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        c32, c64, c80, c192 = (scale_channels(channels, width) for channels in (32, 64, 80, 192))
        self.conv2d_1a = ConvBnRelu(in_channels, c32, 3, 2, padded=False)
        self.conv2d_2a = ConvBnRelu(c32, c32, 3, padded=False)
        self.conv2d_2b = ConvBnRelu(c32, c64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvBnRelu(c64, c80, 1)
        self.conv2d_4a = ConvBnRelu(c80, c192, 3, padded=False)
        self.maxpool_5a = nn.MaxPool2d(3, 2)

        pooled = scale_channels(_MIXED_5B_POOLED, width)
        average = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvBnRelu(c192, pooled, 1))
        self.mixed_5b = Branches(c192, _MIXED_5B, width, pool=average)
        channels = self.mixed_5b.outputs + pooled
        self.repeat = nn.Sequential(*(Residual(channels, _BLOCK35, width, 0.17) for _ in range(10)))
        self.mixed_6a = Branches(channels, _MIXED_6A, width, 2, nn.MaxPool2d(3, 2))
        channels += self.mixed_6a.outputs
        self.repeat_1 = nn.Sequential(*(Residual(channels, _BLOCK17, width, 0.10) for _ in range(20)))
        self.mixed_7a = Branches(channels, _MIXED_7A, width, 2, nn.MaxPool2d(3, 2))
        channels += self.mixed_7a.outputs
        self.repeat_2 = nn.Sequential(*(Residual(channels, _BLOCK8, width, 0.20) for _ in range(9)))
        self.block8 = Residual(channels, _BLOCK8, width, 1.0, relu=False)
        last = scale_channels(1536, width)
        self.conv2d_7b = ConvBnRelu(channels, last, 1)
        self.dropout = nn.Dropout(0.2)
        self.classif = nn.Linear(last, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat(self.mixed_5b(x))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.block8(self.repeat_2(self.mixed_7a(x)))
        pooled = nn.functional.adaptive_avg_pool2d(self.conv2d_7b(x), 1).flatten(1)
        logits: torch.Tensor = self.classif(self.dropout(pooled))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """Inception-ResNet v2 with random weights; input ``(N, in_channels, H, W)``, logits ``(N, classes)``."""
    return InceptionResNetV2(spec.in_channels, spec.classes, spec.width)

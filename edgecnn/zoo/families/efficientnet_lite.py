"""EfficientNet-Lite: Tan and Le 2019, arXiv:1905.11946, as Google published it in 2020 for phones.

The page is tensorflow/tpu, models/official/efficientnet/lite: no squeeze-and-excitation, ReLU6, and the
stem, the head and the repeats of the first and the last stage are not scaled from variant to variant. The
names in the state dict are those of efficientnet-lite-pytorch, so that its conversions of Google's
checkpoints load as they are. Convolutions are padded as TensorFlow's ``SAME``, which those checkpoints need.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.efficientnet import SCALES, STAGES
from edgecnn.zoo.layers import init_weights, round_channels

_EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution without bias on maps of one size, padded as TensorFlow's ``SAME``.

    The output is ``ceil(size / stride)`` pixels high and wide. Where the padding is an odd number of pixels,
    as at stride 2 on maps of even size, the larger half is at the bottom and at the right. ``size`` is the
    height and width of the input maps, in pixels.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, size: int, groups: int = 1
    ) -> None:
        padding = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
        before, after = padding // 2, padding - padding // 2
        even = before == after
        super().__init__(inputs, outputs, kernel, stride, before if even else 0, groups=groups, bias=False)
        self.uneven_padding = None if even else (before, after, before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, ceil(size / stride), ceil(size / stride))`` of ``(N, inputs, size, size)``."""
        if self.uneven_padding is not None:
            x = nn.functional.pad(x, self.uneven_padding)
        return super().forward(x)


class MBConv(nn.Module):
    """Expand 1x1, filter depthwise, project 1x1 without activation; add to the input where it fits."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, size: int
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=_EPS)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, size, groups=hidden)
        self._bn1 = nn.BatchNorm2d(hidden, eps=_EPS)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.relu6 = nn.ReLU6(inplace=True)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        hidden = self.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = self.relu6(self._bn1(self._depthwise_conv(hidden)))
        y: torch.Tensor = self._bn2(self._project_conv(hidden))
        return x + y if self.has_shortcut else y


class EfficientNetLite(nn.Module):
    """A 3x3 convolution, seven stages of MBConv, a 1x1 convolution, average pooling, one dense layer.

    Its padding is that of ``resolution``, the height and width of the input in pixels. ``width`` multiplies
    all channels, ``scale`` those of the stages only.
    """

    def __init__(
        self, in_channels: int, classes: int, resolution: int, width: float, scale: float, depth: float
    ) -> None:
        super().__init__()
        channels, size = round_channels(32 * width), resolution
        self._conv_stem = SameConv2d(in_channels, channels, 3, 2, size)
        self._bn0 = nn.BatchNorm2d(channels, eps=_EPS)
        size = math.ceil(size / 2)
        blocks = []
        for index, (expansion, kernel, first_stride, outputs, repeats) in enumerate(STAGES):
            is_scaled = 0 < index < len(STAGES) - 1
            for repeat in range(math.ceil(repeats * depth) if is_scaled else repeats):
                stride = first_stride if repeat == 0 else 1
                scaled = round_channels(outputs * scale * width)
                blocks.append(MBConv(channels, scaled, kernel, stride, expansion, size))
                channels, size = scaled, math.ceil(size / stride)
        self._blocks = nn.Sequential(*blocks)
        last = round_channels(1280 * width)
        self._conv_head = nn.Conv2d(channels, last, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(last, eps=_EPS)
        self._fc = nn.Linear(last, classes)
        self.relu6 = nn.ReLU6(inplace=True)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, resolution, resolution)``."""
        x = self._blocks(self.relu6(self._bn0(self._conv_stem(x))))
        x = self.relu6(self._bn1(self._conv_head(x)))
        logits: torch.Tensor = self._fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """An EfficientNet-Lite with random weights.

    Input ``(N, in_channels, resolution, resolution)``, output logits ``(N, classes)``.
    """
    scale, depth = SCALES[spec.name[-1]]
    return EfficientNetLite(spec.in_channels, spec.classes, spec.resolution, spec.width, scale, depth)

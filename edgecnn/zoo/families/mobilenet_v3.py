"""MobileNetV3: Howard et al. 2019, arXiv:1905.02244, tables 1 and 2.

"Searching for MobileNetV3", Large and Small. The names in the state dict are torchvision's, so that its
checkpoints load as they are. As in torchvision, and unlike table 2, the last convolution of Small has no
squeeze-and-excitation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import SqueezeExcitation, conv_bn, init_weights, round_channels

# What the published checkpoints of TensorFlow add to the variance in batch norm, and torchvision with them.
_EPS = 1e-3


class _Row(NamedTuple):
    """One row of the tables: the columns ``bneck``, ``exp size``, ``#out``, ``SE``, ``NL``, ``s``."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: bool
    activation: type[nn.ReLU] | type[nn.Hardswish]
    stride: int


_RE, _HS = nn.ReLU, nn.Hardswish

# Rows of the blocks, and the outputs of the dense layer before the last (the tables' ``conv2d 1x1, NBN``).
_NETWORKS: dict[str, tuple[tuple[_Row, ...], int]] = {
    "mobilenet_v3_large": (
        (
            _Row(3, 16, 16, False, _RE, 1),
            _Row(3, 64, 24, False, _RE, 2),
            _Row(3, 72, 24, False, _RE, 1),
            _Row(5, 72, 40, True, _RE, 2),
            _Row(5, 120, 40, True, _RE, 1),
            _Row(5, 120, 40, True, _RE, 1),
            _Row(3, 240, 80, False, _HS, 2),
            _Row(3, 200, 80, False, _HS, 1),
            _Row(3, 184, 80, False, _HS, 1),
            _Row(3, 184, 80, False, _HS, 1),
            _Row(3, 480, 112, True, _HS, 1),
            _Row(3, 672, 112, True, _HS, 1),
            _Row(5, 672, 160, True, _HS, 2),
            _Row(5, 960, 160, True, _HS, 1),
            _Row(5, 960, 160, True, _HS, 1),
        ),
        1280,
    ),
    "mobilenet_v3_small": (
        (
            _Row(3, 16, 16, True, _RE, 2),
            _Row(3, 72, 24, False, _RE, 2),
            _Row(3, 88, 24, False, _RE, 1),
            _Row(5, 96, 40, True, _HS, 2),
            _Row(5, 240, 40, True, _HS, 1),
            _Row(5, 240, 40, True, _HS, 1),
            _Row(5, 120, 48, True, _HS, 1),
            _Row(5, 144, 48, True, _HS, 1),
            _Row(5, 288, 96, True, _HS, 2),
            _Row(5, 576, 96, True, _HS, 1),
            _Row(5, 576, 96, True, _HS, 1),
        ),
        1024,
    ),
}


class InvertedResidual(nn.Module):
    """Expand 1x1, filter depthwise, squeeze and excite, project 1x1; add to the input where it fits."""

    def __init__(self, inputs: int, hidden: int, outputs: int, row: _Row) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_bn(inputs, hidden, 1, activation=row.activation, eps=_EPS))
        layers.append(conv_bn(hidden, hidden, row.kernel, row.stride, hidden, row.activation, _EPS))
        if row.squeeze:
            squeezed = round_channels(hidden // 4)
            layers.append(SqueezeExcitation(hidden, squeezed, nn.ReLU(inplace=True), nn.Hardsigmoid()))
        layers.append(conv_bn(hidden, outputs, 1, activation=None, eps=_EPS))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = row.stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y: torch.Tensor = self.block(x)
        return x + y if self.has_shortcut else y


class MobileNetV3(nn.Module):
    """A 3x3 convolution, inverted residuals, a 1x1 convolution, average pooling, two dense layers."""

    def __init__(
        self, rows: tuple[_Row, ...], last: int, in_channels: int, classes: int, width: float
    ) -> None:
        super().__init__()
        channels = round_channels(16 * width)
        layers: list[nn.Module] = [conv_bn(in_channels, channels, 3, 2, activation=_HS, eps=_EPS)]
        before = 16
        for row in rows:
            outputs = round_channels(row.outputs * width)
            hidden = round_channels(channels * row.hidden / before)
            layers.append(InvertedResidual(channels, hidden, outputs, row))
            before, channels = row.outputs, outputs
        layers.append(conv_bn(channels, 6 * channels, 1, activation=_HS, eps=_EPS))
        self.features = nn.Sequential(*layers)
        # Multipliers below one leave the layer before the last as it is: without that the published costs of
        # width 0.75 are not met.
        last = round_channels(last * max(1.0, width))
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, classes)
        )
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """A MobileNetV3 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    rows, last = _NETWORKS[spec.name]
    return MobileNetV3(rows, last, spec.in_channels, spec.classes, spec.width)

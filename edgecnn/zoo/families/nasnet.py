"""NASNet-A for mobile devices: Zoph et al. 2017, arXiv:1707.07012, figure 4 and appendix A.

"Learning Transferable Architectures for Scalable Image Recognition": the network that the paper's table 3
writes as NASNet-A (4 @ 1056), for four normal cells a stage and 1056 channels in the last map. What the paper
leaves open follows its authors' TensorFlow code (TF-Slim's nasnet_mobile), except that strided windows are
padded alike on both sides, where TensorFlow pads maps of even size at the far end only. The auxiliary head,
which serves training only and is not part of the published parameter count, is left out. The names in the
state dict are this project's own. The width, which scales every count, is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import init_weights, scale_channels

_STEM_CHANNELS = 32
# Channels within the cells, and whether a cell is a reduction cell: two in the stem, one between the stages.
_CELLS: tuple[tuple[int, bool], ...] = (
    (11, True),
    (22, True),
    *(((44, False),) * 4),
    (88, True),
    *(((88, False),) * 4),
    (176, True),
    *(((176, False),) * 4),
)


class Separable(nn.Sequential):
    """A depthwise separable convolution applied twice, each time with batch norm (appendix A of the paper).

    The ReLU that the paper has in front is the caller's, because most of its maps have several readers.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        half = kernel // 2
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, stride, half, groups=inputs, bias=False),
            *_pointwise(inputs, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, kernel, 1, half, groups=outputs, bias=False),
            *_pointwise(outputs, outputs),
        )


class FactorizedReduction(nn.Module):
    """Half the outputs from the even pixels of a map, half from the odd ones: stride 2 without loss.

    The published code shifts the map by one pixel to reach the odd ones and normalises both halves together.
    Here padding shifts it, whose row and column are cropped afterwards, and each half has its own batch norm:
    the same numbers, for 0.2 % more multiply-accumulates of the network, without a batch norm that no
    convolution can absorb.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.even = nn.Sequential(nn.Conv2d(inputs, half, 1, 2, bias=False), _batch_norm(half))
        self.odd = nn.Sequential(nn.Conv2d(inputs, half, 1, 2, 1, bias=False), _batch_norm(half))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, ceil(H / 2), ceil(W / 2))`` of maps ``(N, inputs, H, W)``."""
        return torch.cat([self.even(x), self.odd(x)[:, :, 1:, 1:]], 1)


class Cell(nn.Module):
    """What both cells begin with: two 1x1 convolutions that give both inputs ``channels`` channels."""

    def __init__(self, inputs: int, channels: int, adjust: nn.Module) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(*_pointwise(inputs, channels))
        self.adjust = adjust


class NormalCell(Cell):
    """The cell on the left of figure 4, which keeps the map's size; six times ``channels`` outputs."""

    def __init__(self, inputs: int, channels: int, adjust: nn.Module) -> None:
        super().__init__(inputs, channels, adjust)
        self.current5 = Separable(channels, channels, 5)
        self.previous3 = Separable(channels, channels, 3)
        self.previous5 = Separable(channels, channels, 5)
        self.previous3_again = Separable(channels, channels, 3)
        self.current3 = Separable(channels, channels, 3)

    def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, 6 channels, H, W)`` of what the two cells before gave."""
        h, p = self.squeeze(current), self.adjust(previous)
        active_h, active_p = nn.functional.relu(h), nn.functional.relu(p)
        average = _average(p)
        states = [
            p,
            self.current5(active_h) + self.previous3(active_p),
            self.previous5(active_p) + self.previous3_again(active_p),
            _average(h) + p,
            average + average,
            self.current3(active_h) + h,
        ]
        return _activated(states)


class ReductionCell(Cell):
    """The cell on the right of figure 4, which halves the map; four times ``channels`` outputs."""

    def __init__(self, inputs: int, adjusted: int, channels: int, adjust: nn.Module) -> None:
        super().__init__(inputs, channels, adjust)
        self.current5 = Separable(channels, channels, 5, stride=2)
        self.previous7 = Separable(adjusted, channels, 7, stride=2)
        self.previous7_again = Separable(adjusted, channels, 7, stride=2)
        self.previous5 = Separable(adjusted, channels, 5, stride=2)
        self.sum3 = Separable(channels, channels, 3)

    def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, 4 channels, ceil(H / 2), ceil(W / 2))`` of what the two cells before gave."""
        h, p = self.squeeze(current), self.adjust(previous)
        active_p = nn.functional.relu(p)
        maximum = nn.functional.max_pool2d(h, 3, 2, 1)
        first = self.current5(nn.functional.relu(h)) + self.previous7(active_p)
        second = maximum + self.previous7_again(active_p)
        states = [
            second,
            _average(h, stride=2) + self.previous5(active_p),
            _average(first) + second,
            self.sum3(nn.functional.relu(first)) + maximum,
        ]
        return _activated(states)


class NASNet(nn.Module):
    """A strided 3x3 convolution, two reduction cells, three stages of normal cells, a dense layer.

    Each cell reads the outputs of the two before it.
    """

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        stem = scale_channels(_STEM_CHANNELS, width)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, 2, bias=False), _batch_norm(stem), nn.ReLU(inplace=True)
        )
        self.cells = nn.ModuleList()
        previous, current, halved = stem, stem, False
        for count, reduces in _CELLS:
            channels = scale_channels(count, width)
            adjust: nn.Module
            if not self.cells:
                # The first cell reads the stem's map twice, the second time as it is.
                adjust, adjusted = nn.Identity(), stem
            elif halved:
                adjust, adjusted = FactorizedReduction(previous, channels), channels
            else:
                adjust, adjusted = nn.Sequential(*_pointwise(previous, channels)), channels
            self.cells.append(
                ReductionCell(current, adjusted, channels, adjust)
                if reduces
                else NormalCell(current, channels, adjust)
            )
            previous, current, halved = current, channels * (4 if reduces else 6), reduces
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(current, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        previous = current = self.stem(x)
        for cell in self.cells:
            previous, current = current, cell(current, previous)
        pooled = nn.functional.adaptive_avg_pool2d(current, 1).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(pooled))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """NASNet-A with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return NASNet(spec.in_channels, spec.classes, spec.width)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001)


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), _batch_norm(outputs)


def _average(x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """3x3 averages of what lies inside the map."""
    return nn.functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False)


def _activated(states: list[torch.Tensor]) -> torch.Tensor:
    """A cell's output. All that read it begin with a ReLU, which is therefore applied here, once."""
    return nn.functional.relu(torch.cat(states, 1))

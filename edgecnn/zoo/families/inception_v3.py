"""Inception v3: Szegedy et al. 2015, arXiv:1512.00567, table 1 and figures 5 to 8 and 10.

"Rethinking the Inception Architecture for Computer Vision". The names in the state dict are torchvision's, so
that its checkpoint loads as it is. The channel counts within the blocks, which the paper leaves open, are
those of the authors' TensorFlow code, and so are two departures from the paper: between its poolings the stem
has a 1x1 and a 3x3 convolution instead of table 1's three 3x3 ones, and one branch of figure 5 has a 5x5
convolution for a 3x3. The width, which scales every count, is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import ConvBnRelu, init_weights, scale_channels

Kernel = int | tuple[int, int]
Layer = tuple[int, *tuple[Kernel, ...]]
"""Outputs and kernel, whose pair is (height, width); two kernels read the same map side by side."""


class Inception(nn.Module):
    """Branches of convolutions over the same map, concatenated.

    With stride 1 the branch ``branch_pool`` reads the 3x3 averages of the map. With stride 2 (figure 10) the
    last convolution of every branch strides and the 3x3 maxima of the map are concatenated as they are.
    """

    def __init__(self, inputs: int, branches: dict[str, tuple[Layer, ...]], width: float, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.outputs = inputs if stride == 2 else 0
        self.paths: dict[str, list[list[str]]] = {}
        for branch, layers in branches.items():
            channels, self.paths[branch] = inputs, []
            for number, (count, *kernels) in enumerate(layers, 1):
                outputs = scale_channels(count, width)
                step = stride if number == len(layers) else 1
                stem = branch if len(layers) == 1 else f"{branch}_{number}"
                names = [stem] if len(kernels) == 1 else [f"{stem}a", f"{stem}b"]
                for name, kernel in zip(names, kernels, strict=True):
                    self.add_module(name, ConvBnRelu(channels, outputs, kernel, step, padded=step == 1))
                self.paths[branch].append(names)
                channels = outputs * len(kernels)
            self.outputs += channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H', W')`` of maps ``(N, inputs, H, W)``."""
        results = []
        for branch, steps in self.paths.items():
            y = nn.functional.avg_pool2d(x, 3, 1, 1) if branch == "branch_pool" else x
            for names in steps:
                together = [self.get_submodule(name)(y) for name in names]
                y = together[0] if len(together) == 1 else torch.cat(together, 1)
            results.append(y)
        if self.stride == 2:
            results.append(nn.functional.max_pool2d(x, 3, 2))
        return torch.cat(results, 1)


def _figure5(pooled: int) -> dict[str, tuple[Layer, ...]]:
    return {
        "branch1x1": ((64, 1),),
        "branch5x5": ((48, 1), (64, 5)),
        "branch3x3dbl": ((64, 1), (96, 3), (96, 3)),
        "branch_pool": ((pooled, 1),),
    }


def _figure6(inner: int) -> dict[str, tuple[Layer, ...]]:
    row, column = (1, 7), (7, 1)
    return {
        "branch1x1": ((192, 1),),
        "branch7x7": ((inner, 1), (inner, row), (192, column)),
        "branch7x7dbl": ((inner, 1), (inner, column), (inner, row), (inner, column), (192, row)),
        "branch_pool": ((192, 1),),
    }


_FIGURE7: dict[str, tuple[Layer, ...]] = {
    "branch1x1": ((320, 1),),
    "branch3x3": ((384, 1), (384, (1, 3), (3, 1))),
    "branch3x3dbl": ((448, 1), (384, 3), (384, (1, 3), (3, 1))),
    "branch_pool": ((192, 1),),
}

# The name of each block, its branches and its stride: from 35x35 over 17x17 to 8x8 maps of a 299x299 input.
_BLOCKS: tuple[tuple[str, dict[str, tuple[Layer, ...]], int], ...] = (
    ("Mixed_5b", _figure5(32), 1),
    ("Mixed_5c", _figure5(64), 1),
    ("Mixed_5d", _figure5(64), 1),
    ("Mixed_6a", {"branch3x3": ((384, 3),), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))}, 2),
    ("Mixed_6b", _figure6(128), 1),
    ("Mixed_6c", _figure6(160), 1),
    ("Mixed_6d", _figure6(160), 1),
    ("Mixed_6e", _figure6(192), 1),
    (
        "Mixed_7a",
        {
            "branch3x3": ((192, 1), (320, 3)),
            "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)),
        },
        2,
    ),
    ("Mixed_7b", _FIGURE7, 1),
    ("Mixed_7c", _FIGURE7, 1),
)


class InceptionV3(nn.Module):
    """Five convolutions and two poolings, eleven Inception blocks, average pooling, a dense layer.

    ``AuxLogits``, the side head of figure 8, only helps training; it is here for the checkpoints that have it
    and never runs.
    """

    def __init__(self, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        c32, c64, c80, c192 = (scale_channels(channels, width) for channels in (32, 64, 80, 192))
        self.Conv2d_1a_3x3 = ConvBnRelu(in_channels, c32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = ConvBnRelu(c32, c32, 3, padded=False)
        self.Conv2d_2b_3x3 = ConvBnRelu(c32, c64, 3)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvBnRelu(c64, c80, 1)
        self.Conv2d_4a_3x3 = ConvBnRelu(c80, c192, 3, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        channels = c192
        for name, branches, stride in _BLOCKS:
            block = Inception(channels, branches, width, stride)
            self.add_module(name, block)
            channels = block.outputs
            if name == "Mixed_6e":
                self.AuxLogits = _auxiliary_head(channels, classes, width)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.maxpool2(x)
        for name, _, _ in _BLOCKS:
            x = self.get_submodule(name)(x)
        logits: torch.Tensor = self.fc(self.dropout(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """Inception v3 with random weights; input ``(N, in_channels, H, W)``, output logits ``(N, classes)``."""
    return InceptionV3(spec.in_channels, spec.classes, spec.width)


def _auxiliary_head(inputs: int, classes: int, width: float) -> nn.ModuleDict:
    inner, outputs = scale_channels(128, width), scale_channels(768, width)
    return nn.ModuleDict(
        {
            "conv0": ConvBnRelu(inputs, inner, 1),
            "conv1": ConvBnRelu(inner, outputs, 5, padded=False),
            "fc": nn.Linear(outputs, classes),
        }
    )

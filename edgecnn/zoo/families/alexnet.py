"""AlexNet, in the two layouts that go by the name.

``alexnet`` is the one of torchvision, with its names in the state dict: Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014, arXiv:1404.5997. It has one tower and no normalisation.

``alexnet_2012`` is the network of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012, section 3 and figure 2, with its two towers joined into one: the
second, fourth and fifth convolution see all maps, not only those of their own GPU. Hence 62.4 M parameters
instead of the paper's 60 M. The input is 227x227, from which the paper's 55x55 maps follow without padding;
the 224 that it prints do not give them.

Both pool 3x3 windows two pixels apart, so that the windows overlap. Instead of torchvision's adaptive
pooling, which does nothing at 224, the first dense layer has as many inputs as the last map has values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import alexnet_classifier, init_weights, local_response_norm, scale_channels


class _Layout(NamedTuple):
    channels: tuple[int, int, int, int, int]
    first_padding: int
    normalised: bool


_LAYOUTS = {
    "alexnet": _Layout((64, 192, 384, 256, 256), first_padding=2, normalised=False),
    "alexnet_2012": _Layout((96, 256, 384, 384, 256), first_padding=0, normalised=True),
}


class AlexNet(nn.Module):
    """Five convolutions, three of them followed by overlapping max pooling, and three dense layers."""

    def __init__(
        self, layout: _Layout, in_channels: int, classes: int, width: float, resolution: int
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scale_channels(channels, width) for channels in layout.channels)
        hidden = scale_channels(4096, width)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 11, 4, layout.first_padding),
            nn.ReLU(inplace=True),
            *([local_response_norm()] if layout.normalised else []),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(inplace=True),
            *([local_response_norm()] if layout.normalised else []),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        side = (resolution + 2 * layout.first_padding - 11) // 4 + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        self.classifier = alexnet_classifier(c5 * side * side, hidden, classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, resolution, resolution)``."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """An AlexNet with random weights.

    Input ``(N, in_channels, resolution, resolution)``, output logits ``(N, classes)``.
    """
    return AlexNet(_LAYOUTS[spec.name], spec.in_channels, spec.classes, spec.width, spec.resolution)

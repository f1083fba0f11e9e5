"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.

doi:10.1109/5.726791. The form in common use: subsampling is a plain 2x2 average, C3 is connected to all of
S2, and the output is a dense layer instead of radial basis functions; 61,706 parameters at width 1.0. C5 is a
dense layer over the whole map that S4 leaves, which at 32x32 equals the paper's 5x5 convolution; at another
resolution it has as many inputs as that map has values.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.layers import scale_channels


class LeNet5(nn.Module):
    """Two 5x5 convolutions with average pooling, three dense layers, tanh between them."""

    def __init__(self, in_channels: int, classes: int, width: float, resolution: int) -> None:
        super().__init__()
        # Not rounded to 8 as in the other families: the paper's own counts, 6 and 84, are no multiples of it.
        c1, c3, c5, f6 = (scale_channels(channels, width, divisor=1) for channels in (6, 16, 120, 84))
        side = ((resolution - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(c1, c3, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(c3 * side * side, c5),
            nn.Tanh(),
            nn.Linear(c5, f6),
            nn.Tanh(),
            nn.Linear(f6, classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # Glorot and Bengio 2010. The paper's uniform +-2.4 / fan-in goes with its scaled tanh and
                # trained subsampling gains; with a plain tanh the logits are all but equal.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)`` of images ``(N, in_channels, resolution, resolution)``."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """LeNet-5 with random weights.

    Input ``(N, in_channels, resolution, resolution)``, output logits ``(N, classes)``.
    """
    return LeNet5(spec.in_channels, spec.classes, spec.width, spec.resolution)

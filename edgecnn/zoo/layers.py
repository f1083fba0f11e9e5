"""What the families share: channel rounding, blocks of layers, and weight initialisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of 8 nearest to a scaled channel count, at least 8 and never more than 10 % below it.

    The rule of the published MobileNets (``_make_divisible`` in TensorFlow's and torchvision's code): vector
    units work on 8 channels at a time, and the 10 % keep narrow layers from losing much. ``divisor`` stands
    for the 8 where a family's channels must divide by another number.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scale_channels(channels: int, width: float, divisor: int = 8) -> int:
    """The channel count at a width: the paper's own at 1.0, else rounded by :func:`round_channels`.

    For families whose papers know no width multiplier: their counts need not be multiples of 8.
    """
    return channels if width == 1.0 else round_channels(channels * width, divisor)


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[..., nn.Module] | None = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless None, an activation: children 0, 1, 2.

    Padding keeps the size at stride 1. ``eps`` is the number that batch norm adds to the variance.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6: children 0, 1, 2, as torchvision names them."""
    return conv_bn(inputs, outputs, kernel, stride, groups, activation=nn.ReLU6)


class ConvBnRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to keep the map's size where ``padded``.

    With TensorFlow's epsilon, with which the weights of the Inception networks were trained.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        padded: bool = True,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H', W')`` of maps ``(N, inputs, H, W)``."""
        return nn.functional.relu(self.bn(self.conv(x)), inplace=True)


class SqueezeExcitation(nn.Module):
    """Each channel times a gate that is computed from the means of all channels.

    Hu et al. 2017, arXiv:1709.01507, section 3, with 1x1 convolutions for its two dense layers.
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, channels, H, W)`` of maps of the same shape."""
        means = nn.functional.adaptive_avg_pool2d(x, 1)
        scale: torch.Tensor = self.gate(self.fc2(self.activation(self.fc1(means))))
        return x * scale


def alexnet_classifier(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """Three dense layers with ReLU between them, dropout before the first two (Krizhevsky et al. 2012)."""
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(inputs, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, classes),
    )


def local_response_norm() -> nn.LocalResponseNorm:
    """Each value over ``(2 + 1e-4 * sum of squares) ** 0.75``, the sum over the 5 nearest maps.

    Krizhevsky et al. 2012, section 3.3, read as it is printed: alpha is a factor of the plain sum. torch,
    ONNX and Caffe divide their alpha by the number of maps, so that it is 5e-4 there. (So does cuda-convnet,
    the author's own program, and Caffe's copy of the network gives 1e-4 to that: weights trained so would
    need a fifth of the factor here.)
    """
    return nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)


def init_weights(model: nn.Module) -> None:
    """Initialise in place: He's normal for convolutions, N(0, 0.01) for dense layers.

    He et al. 2015, arXiv:1502.01852, section 2.2, by fan-in, which keeps the scale of activations from layer
    to layer. torchvision goes by fan-out and counts all groups: its depthwise kernels are so small that an
    untrained network, whose batch norm has seen no data, computes 1e-9: nothing to quantize or to compare.

    The two convolutions of squeeze-and-excitation count as dense layers. With He's weights their gates would
    swing from 0 to 1 from image to image, and the outputs of a deep network by orders of magnitude.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.get_parameter("bias"))
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            for dense in (module.fc1, module.fc2):
                nn.init.normal_(dense.weight, 0.0, 0.01)
                nn.init.zeros_(dense.get_parameter("bias"))

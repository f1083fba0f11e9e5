"""What the families share: channel rounding, the convolution block, and weight initialisation."""

from __future__ import annotations

from torch import nn


def round_channels(channels: float) -> int:
    """The multiple of 8 nearest to a scaled channel count, at least 8 and never more than 10 % below it.

    The rule of the published MobileNets (``_make_divisible`` in TensorFlow's and torchvision's code): vector
    units work on 8 channels at a time, and the 10 % keep narrow layers from losing much.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6: children 0, 1, 2, as torchvision names them."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def init_mobilenet(model: nn.Module) -> None:
    """Initialise in place: He's normal for convolutions, N(0, 0.01) for dense layers.

    He et al. 2015, arXiv:1502.01852, section 2.2, by fan-in, which keeps the scale of activations from layer
    to layer. torchvision goes by fan-out and counts all groups: its depthwise kernels are so small that an
    untrained network, whose batch norm has seen no data, computes 1e-9: nothing to quantize or to compare.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)

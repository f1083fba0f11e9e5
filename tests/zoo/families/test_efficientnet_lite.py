"""EfficientNet-Lite against the published sizes, the names of its checkpoint, and TensorFlow's padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.efficientnet_lite import SameConv2d, build


def network(
    name: str, width: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> nn.Module:
    return build(ModelSpec(name, width, resolution, classes, in_channels)).eval()


# Exact, and in millions as tensorflow/tpu, models/official/efficientnet/lite prints them.
@pytest.mark.parametrize(
    ("name", "exact", "published", "blocks"),
    [
        ("efficientnet_lite0", 4_652_008, 4.7, 16),
        ("efficientnet_lite1", 5_416_680, 5.4, 21),
        ("efficientnet_lite2", 6_092_072, 6.1, 21),
        ("efficientnet_lite3", 8_197_096, 8.2, 24),
        ("efficientnet_lite4", 13_006_568, 13.0, 30),
    ],
)
def test_sizes_are_the_published_ones(name: str, exact: int, published: float, blocks: int) -> None:
    with torch.device("meta"):
        model = network(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == exact
    assert round(exact / 1e6, 1) == published
    assert len(model._blocks) == blocks
    # Neither is scaled from variant to variant.
    assert (model._conv_stem.out_channels, model._conv_head.out_channels) == (32, 1280)


def test_state_dict_has_the_names_of_the_checkpoint() -> None:
    model = network("efficientnet_lite0")
    names = list(model.state_dict())
    assert (len(names), names[0], names[-1]) == (296, "_conv_stem.weight", "_fc.bias")
    assert {"_bn0.running_mean", "_blocks.0._project_conv.weight", "_blocks.15._bn2.bias"} <= set(names)
    assert "_blocks.0._expand_conv.weight" not in names
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_padding_is_tensorflows(kernel: int, stride: int, size: int) -> None:
    convolution = SameConv2d(1, 1, kernel, stride, size)
    nn.init.ones_(convolution.weight.requires_grad_(False))
    x = torch.rand(1, 1, size, size)
    outputs = -(-size // stride)
    assert convolution(x).shape == (1, 1, outputs, outputs)
    # TensorFlow's rule: in all (outputs - 1) * stride + kernel - size, the smaller half in front. With ones
    # for weights the first output sums what the window holds behind that padding.
    before = ((outputs - 1) * stride + kernel - size) // 2
    end = kernel - before
    assert convolution(x)[0, 0, 0, 0] == pytest.approx(x[..., :end, :end].sum())


def test_padding_is_uneven_only_where_a_map_of_even_size_is_halved() -> None:
    def uneven(resolution: int) -> int:
        modules = network("efficientnet_lite0", 0.25, resolution).modules()
        return sum(isinstance(module, SameConv2d) and module.uneven_padding is not None for module in modules)

    assert (uneven(224), uneven(33), uneven(260)) == (5, 0, 2)


def test_odd_resolutions_work() -> None:
    for resolution in (32, 33, 47, 61):
        model = network("efficientnet_lite0", 0.25, resolution)
        assert model(torch.zeros(1, 3, resolution, resolution)).shape == (1, 1000)


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_classes_and_channels(width: float) -> None:
    model = network("efficientnet_lite0", width, 32, classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)

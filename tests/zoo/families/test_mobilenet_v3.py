"""MobileNetV3 against torchvision's names and parameters, and the published costs of other widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.mobilenet_v3 import build
from edgecnn.zoo.layers import SqueezeExcitation


def network(
    name: str, width: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> nn.Module:
    return build(ModelSpec(name, width, resolution, classes, in_channels)).eval()


def count(name: str, width: float) -> tuple[int, int]:
    """Parameters and multiply-accumulates."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = network(name, width)
        model(torch.zeros(1, 3, 224, 224))
    macs = int(counter.get_total_flops()) // 2
    return sum(parameter.numel() for parameter in model.parameters()), macs


# torchvision's MobileNet_V3_*_Weights: num_params, and _ops in millions.
@pytest.mark.parametrize(
    ("name", "params", "millions"),
    [("mobilenet_v3_large", 5_483_032, 217), ("mobilenet_v3_small", 2_542_856, 57)],
)
def test_costs_are_torchvisions(name: str, params: int, millions: int) -> None:
    found, macs = count(name, 1.0)
    assert (found, round(macs / 1e6)) == (params, millions)


# In millions. Large: 4.0 and 155 in arXiv:1905.02244, table 3, which has 44, one more than there are, for
# Small at 0.75. The parameters of Small are those of timm's mobilenetv3_small_075 and _050.
@pytest.mark.parametrize(
    ("name", "width", "params", "millions"),
    [
        ("mobilenet_v3_large", 0.75, 3.99, 155),
        ("mobilenet_v3_small", 0.75, 2.04, 43),
        ("mobilenet_v3_small", 0.5, 1.59, 21),
    ],
)
def test_narrow_networks_cost_what_was_published(
    name: str, width: float, params: float, millions: int
) -> None:
    found, macs = count(name, width)
    assert (round(found / 1e6, 2), round(macs / 1e6)) == (params, millions)


@pytest.mark.parametrize(
    ("name", "tensors", "gates", "last"),
    [
        ("mobilenet_v3_large", 312, 8, "features.16.1.bias"),
        ("mobilenet_v3_small", 244, 9, "features.12.1.bias"),
    ],
)
def test_state_dict_has_torchvisions_names(name: str, tensors: int, gates: int, last: str) -> None:
    model = network(name)
    names = list(model.state_dict())
    assert (len(names), names[0], names[-1]) == (tensors, "features.0.0.weight", "classifier.3.bias")
    assert {last, "features.4.block.2.fc1.weight", "features.4.block.2.fc2.bias"} <= set(names)
    assert sum(isinstance(module, SqueezeExcitation) for module in model.modules()) == gates
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(("name", "channels"), [("mobilenet_v3_large", 480), ("mobilenet_v3_small", 288)])
def test_least_resolution_leaves_one_pixel(name: str, channels: int) -> None:
    assert network(name, 0.5, 32).features(torch.zeros(1, 3, 32, 32)).shape == (1, channels, 1, 1)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_classes_and_channels(name: str, width: float) -> None:
    model = network(name, width, 32, classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_squeeze_and_excitation_gates_each_channel() -> None:
    block = SqueezeExcitation(2, 1, nn.ReLU(), nn.Hardsigmoid())
    nn.init.ones_(block.fc1.weight)
    nn.init.zeros_(block.fc1.bias)
    with torch.no_grad():
        block.fc2.weight.copy_(torch.tensor([0.0, 6.0]).reshape(2, 1, 1, 1))
        block.fc2.bias.zero_()
    x = torch.ones(1, 2, 2, 2)
    # The means sum up to 2, so that the gates are hardsigmoid(0) and hardsigmoid(12).
    assert torch.equal(block(x), torch.tensor([0.5, 1.0]).reshape(1, 2, 1, 1) * x)

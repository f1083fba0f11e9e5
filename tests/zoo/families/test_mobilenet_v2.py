"""MobileNetV2 against torchvision's names and parameters, and the paper's costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.mobilenet_v2 import build


def network(
    width: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> nn.Module:
    return build(ModelSpec("mobilenet_v2", width, resolution, classes, in_channels)).eval()


def count_macs(width: float, resolution: int) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(width, resolution)(torch.zeros(1, 3, resolution, resolution))
    return int(counter.get_total_flops()) // 2


# In whole millions, the rest cut off: tensorflow/models, research/slim/nets/mobilenet.
@pytest.mark.parametrize(
    ("width", "resolution", "millions"),
    [(1.4, 224, 582), (1.3, 224, 509), (1.0, 224, 300), (1.0, 96, 56), (0.75, 224, 209), (0.35, 224, 59)],
)
def test_variants_cost_what_was_published(width: float, resolution: int, millions: int) -> None:
    assert count_macs(width, resolution) // 1_000_000 == millions


# torchvision.models.mobilenet_v2(width_mult=...)
@pytest.mark.parametrize(
    ("width", "params"), [(0.35, 1_677_128), (0.5, 1_968_680), (1.0, 3_504_872), (1.4, 6_108_776)]
)
def test_parameters_are_torchvisions(width: float, params: int) -> None:
    with torch.device("meta"):
        model = network(width)
    assert sum(parameter.numel() for parameter in model.parameters()) == params


def test_state_dict_has_torchvisions_names() -> None:
    names = list(network(0.35).state_dict())
    assert (len(names), names[0], names[-1]) == (314, "features.0.0.weight", "classifier.1.bias")
    assert {"features.1.conv.0.0.weight", "features.1.conv.2.running_var", "features.18.1.bias"} <= set(names)


def test_last_convolution_is_not_narrowed() -> None:
    for width, outputs in ((0.5, 1280), (1.0, 1280), (1.4, 1792)):
        with torch.device("meta"):
            assert network(width).classifier[1].in_features == outputs


def test_least_resolution_leaves_one_pixel() -> None:
    assert network(0.35, 32).features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 1, 1)


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_classes_and_channels(width: float) -> None:
    model = network(width, 32, classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)

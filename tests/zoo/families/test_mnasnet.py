"""MNASNet against torchvision's names and parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.mnasnet import build


def network(
    name: str, width: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> nn.Module:
    return build(ModelSpec(name, width, resolution, classes, in_channels)).eval()


# num_params of torchvision's MNASNet0_5, 1_0, 0_75 and 1_3 weights.
@pytest.mark.parametrize(
    ("name", "width", "params"),
    [
        ("mnasnet0_5", 1.0, 2_218_512),
        ("mnasnet1_0", 1.0, 4_383_312),
        ("mnasnet1_0", 0.75, 3_170_208),
        ("mnasnet1_0", 1.3, 6_282_256),
    ],
)
def test_parameters_are_torchvisions(name: str, width: float, params: int) -> None:
    with torch.device("meta"):
        model = network(name, width)
    assert sum(parameter.numel() for parameter in model.parameters()) == params


def test_half_the_width_is_the_smaller_variant() -> None:
    with torch.device("meta"):
        half, smaller = network("mnasnet1_0", 0.5).state_dict(), network("mnasnet0_5").state_dict()
    assert {key: value.shape for key, value in half.items()} == {
        key: value.shape for key, value in smaller.items()
    }


def test_state_dict_has_torchvisions_names() -> None:
    names = list(network("mnasnet0_5").state_dict())
    assert (len(names), names[0], names[-1]) == (314, "layers.0.weight", "classifier.1.bias")
    assert {"layers.7.running_var", "layers.8.0.layers.7.bias", "layers.13.0.layers.6.weight"} <= set(names)


def test_least_resolution_leaves_one_pixel() -> None:
    assert network("mnasnet0_5", 1.0, 32).layers(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 1, 1)


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_classes_and_channels(width: float) -> None:
    model = network("mnasnet1_0", width, 32, classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)

"""EfficientNet against torchvision's names and parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.efficientnet import build


def network(
    name: str, width: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> nn.Module:
    return build(ModelSpec(name, width, resolution, classes, in_channels)).eval()


# num_params of torchvision's EfficientNet_B*_Weights, entries of its state dicts, blocks, outputs of the last
# convolution (arXiv:1905.11946: 1280 times the width coefficient).
@pytest.mark.parametrize(
    ("name", "params", "tensors", "blocks", "last"),
    [
        ("efficientnet_b0", 5_288_548, 360, 16, 1280),
        ("efficientnet_b1", 7_794_184, 508, 23, 1280),
        ("efficientnet_b2", 9_109_994, 508, 23, 1408),
        ("efficientnet_b3", 12_233_232, 574, 26, 1536),
        ("efficientnet_b4", 19_341_616, 706, 32, 1792),
    ],
)
def test_variants_are_torchvisions(name: str, params: int, tensors: int, blocks: int, last: int) -> None:
    with torch.device("meta"):
        model = network(name)
    names = list(model.state_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert (len(names), names[0], names[-1]) == (tensors, "features.0.0.weight", "classifier.1.bias")
    assert {"features.1.0.block.1.fc1.weight", "features.2.0.block.3.1.bias", "features.8.1.bias"} <= set(
        names
    )
    assert sum(key.endswith("fc2.weight") for key in names) == blocks
    assert model.classifier[1].in_features == last


def test_least_resolution_leaves_one_pixel() -> None:
    assert network("efficientnet_b0", 0.25, 32).features(torch.zeros(1, 3, 32, 32)).shape == (1, 320, 1, 1)


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_classes_and_channels(width: float) -> None:
    model = network("efficientnet_b0", width, 32, classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)

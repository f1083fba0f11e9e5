"""GoogLeNet: published cost, torchvision's state dict, and why it needs no transform of its input."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import edgecnn.zoo
from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.googlenet import build


def test_published_cost() -> None:
    macs = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * output[0, 0].numel()

    with torch.device("meta"):
        model = build(ModelSpec("googlenet", 1.0, 224, 1000, 3)).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(add)
        model(torch.empty(1, 3, 224, 224))
    # torchvision GoogLeNet_Weights.IMAGENET1K_V1: num_params and _ops.
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_624_904
    assert round(macs / 1e9, 3) == 1.498


def test_modules_have_the_channels_of_table_1() -> None:
    with torch.device("meta"):
        model = build(ModelSpec("googlenet", 1.0, 224, 1000, 3)).eval()
        outputs = {}
        for name, module in model.named_children():
            module.register_forward_hook(
                lambda _, __, y, name=name: outputs.update({name: tuple(y.shape[1:])})
            )
        model(torch.empty(1, 3, 224, 224))
    # Arxiv 1409.4842, table 1, column "output size", here channels first.
    assert outputs["maxpool1"] == (64, 56, 56)
    assert outputs["maxpool2"] == (192, 28, 28)
    assert outputs["inception3a"] == (256, 28, 28)
    assert outputs["inception3b"] == (480, 28, 28)
    assert outputs["inception4a"] == (512, 14, 14)
    assert outputs["inception4d"] == (528, 14, 14)
    assert outputs["inception4e"] == (832, 14, 14)
    assert outputs["inception5a"] == (832, 7, 7)
    assert outputs["inception5b"] == (1024, 7, 7)


def test_state_dict_is_torchvisions_without_the_auxiliary_heads() -> None:
    with torch.device("meta"):
        names = list(build(ModelSpec("googlenet", 1.0, 224, 1000, 3)).state_dict())
    assert (len(names), names[0], names[-1]) == (344, "conv1.conv.weight", "fc.bias")
    assert "inception3a.branch2.1.bn.running_var" in names
    assert "inception5b.branch4.1.conv.weight" in names


def test_preparation_of_the_weights_is_torchvisions_transform_of_the_usual_one() -> None:
    rows = tomllib.loads((Path(edgecnn.zoo.__file__).parent / "families" / "googlenet.toml").read_text())
    usual, own = rows["preprocess"], rows["model"][0]["weights"]["preprocess"]
    pixels = torch.linspace(0, 1, 256)
    for channel in range(3):
        prepared = (pixels - usual["mean"][channel]) / usual["std"][channel]
        # What transform_input does to each channel, in torchvision's terms.
        shift = (usual["mean"][channel] - 0.5) / 0.5
        transformed = prepared * (usual["std"][channel] / 0.5) + shift
        torch.testing.assert_close((pixels - own["mean"][channel]) / own["std"][channel], transformed)


def test_least_resolution() -> None:
    assert build(ModelSpec("googlenet", 0.25, 15, 7, 1)).eval()(torch.rand(2, 1, 15, 15)).shape == (2, 7)
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec("googlenet", 0.25, 14, 7, 1)).eval()(torch.rand(1, 1, 14, 14))


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_works(width: float) -> None:
    assert build(ModelSpec("googlenet", width, 33, 10, 3)).eval()(torch.rand(1, 3, 33, 33)).shape == (1, 10)

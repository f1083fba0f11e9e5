"""Inception v3 against torchvision's figures and names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.inception_v3 import build


def make(width: float = 1.0, resolution: int = 75, classes: int = 1000, in_channels: int = 3) -> nn.Module:
    return build(ModelSpec("inception_v3", width, resolution, classes, in_channels)).eval()


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = make()
    everything = sum(parameter.numel() for parameter in model.parameters())
    head = sum(parameter.numel() for name, parameter in model.named_parameters() if "AuxLogits" in name)
    norms = sum(
        module.num_features
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and "AuxLogits" not in name
    )
    # torchvision, Inception_V3_Weights.IMAGENET1K_V1
    assert everything == 27_161_264
    # keras.io/api/applications: no head, three numbers a batch norm channel where two are counted here.
    assert everything - head + norms == 23_851_784


def test_names_are_torchvisions() -> None:
    with torch.device("meta"):
        names = list(make().state_dict())
    assert len(names) == 580
    assert names[0] == "Conv2d_1a_3x3.conv.weight"
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert {
        "Mixed_5b.branch1x1.conv.weight",
        "Mixed_5b.branch5x5_2.bn.running_var",
        "Mixed_6a.branch3x3.conv.weight",
        "Mixed_6b.branch7x7dbl_5.conv.weight",
        "Mixed_7a.branch7x7x3_4.bn.bias",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "Mixed_7c.branch_pool.conv.weight",
        "AuxLogits.conv1.conv.weight",
        "AuxLogits.fc.bias",
    } <= set(names)


def test_maps_have_the_sizes_of_the_paper() -> None:
    shapes = {}
    with torch.device("meta"):
        model = make()
        for name in ("Mixed_5b", "Mixed_5d", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c"):
            model.get_submodule(name).register_forward_hook(
                lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert shapes == {
        "Mixed_5b": (256, 35, 35),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6a": (768, 17, 17),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_narrow_grey_network_with_few_classes_runs(width: float) -> None:
    with torch.no_grad():
        logits = make(width, classes=7, in_channels=1)(torch.randn(2, 1, 75, 75))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_width_scales_every_layer_but_the_outputs() -> None:
    with torch.device("meta"):
        narrow, wide = make(), make(2.0)
        assert wide(torch.empty(1, 3, 75, 75)).shape == (1, 1000)
    for name, parameter in narrow.named_parameters():
        if parameter.ndim == 4:
            assert wide.get_parameter(name).shape[0] == 2 * parameter.shape[0], name

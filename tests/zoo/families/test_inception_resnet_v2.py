"""Inception-ResNet v2 against the published figures and the ports' names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.inception_resnet_v2 import Residual, build


def make(width: float = 1.0, resolution: int = 75, classes: int = 1000, in_channels: int = 3) -> nn.Module:
    return build(ModelSpec("inception_resnet_v2", width, resolution, classes, in_channels)).eval()


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = make()
    params = sum(parameter.numel() for parameter in model.parameters())
    norms = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    # Without batch norm's scale, which TensorFlow's has not: what Keras calls trainable.
    assert params - norms == 55_813_192
    # keras.io/api/applications: shift, mean and variance of each batch norm channel.
    assert params + norms == 55_873_736


def test_names_are_the_ports() -> None:
    with torch.device("meta"):
        names = list(make().state_dict())
    assert len(names) == 1306
    assert names[0] == "conv2d_1a.conv.weight"
    assert names[-2:] == ["classif.weight", "classif.bias"]
    assert {
        "mixed_5b.branch0.conv.weight",
        "mixed_5b.branch3.1.conv.weight",
        "repeat.9.branch2.2.bn.weight",
        "repeat.9.conv2d.bias",
        "mixed_6a.branch1.2.conv.weight",
        "repeat_1.19.branch1.2.conv.weight",
        "mixed_7a.branch2.2.bn.running_mean",
        "repeat_2.8.conv2d.weight",
        "block8.conv2d.weight",
        "conv2d_7b.bn.bias",
    } <= set(names)


def test_maps_have_the_published_sizes() -> None:
    shapes = {}
    with torch.device("meta"):
        model = make()
        for name in ("repeat", "repeat_1", "block8", "conv2d_7b"):
            model.get_submodule(name).register_forward_hook(
                lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert shapes == {
        "repeat": (320, 35, 35),
        "repeat_1": (1088, 17, 17),
        "block8": (2080, 8, 8),
        "conv2d_7b": (1536, 8, 8),
    }


def test_residual_is_scaled() -> None:
    block = Residual(8, (((8, 1),),), 1.0, 0.17, relu=False).eval()
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        expected = x + 0.17 * block.conv2d(block.get_submodule("branch0")(x))
        torch.testing.assert_close(block(x), expected)


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

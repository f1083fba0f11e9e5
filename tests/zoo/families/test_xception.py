"""Xception against the paper's figures and the ports' names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.xception import build


def make(width: float = 1.0, resolution: int = 32, classes: int = 1000, in_channels: int = 3) -> nn.Module:
    return build(ModelSpec("xception", width, resolution, classes, in_channels)).eval()


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = make()
    params = sum(parameter.numel() for parameter in model.parameters())
    norms = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    # The paper's table 3.
    assert params == 22_855_952
    # keras.io/api/applications, with the mean and variance of each batch norm channel.
    assert params + 2 * norms == 22_910_480


def test_names_are_the_ports() -> None:
    with torch.device("meta"):
        names = list(make().state_dict())
    assert len(names) == 276
    assert names[0] == "conv1.weight"
    assert names[-2:] == ["fc.weight", "fc.bias"]
    # Block 1 begins without ReLU, blocks 4 to 11 have no convolution in the shortcut.
    assert {
        "block1.rep.0.conv1.weight",
        "block2.rep.1.pointwise.weight",
        "block3.skip.weight",
        "block11.rep.8.running_var",
        "block12.skipbn.bias",
        "conv4.pointwise.weight",
        "bn4.weight",
    } <= set(names)
    assert not any(name.startswith("block4.skip") for name in names)


def test_maps_have_the_sizes_of_figure_5() -> None:
    shapes = {}
    with torch.device("meta"):
        model = make()
        for name in ("conv2", "block3", "block11", "block12", "bn4"):
            model.get_submodule(name).register_forward_hook(
                lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert shapes == {
        "conv2": (64, 147, 147),
        "block3": (728, 19, 19),
        "block11": (728, 19, 19),
        "block12": (1024, 10, 10),
        "bn4": (2048, 10, 10),
    }


def test_a_block_leaves_its_input_as_it_is() -> None:
    # Its ReLU must not write into what the shortcut reads.
    block = make(0.05).get_submodule("block4")
    x = torch.randn(1, 40, 4, 4)
    before = x.clone()
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_narrow_grey_network_with_few_classes_runs(width: float) -> None:
    with torch.no_grad():
        logits = make(width, classes=7, in_channels=1)(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_width_scales_every_layer_but_the_outputs() -> None:
    with torch.device("meta"):
        narrow, wide = make(), make(2.0)
        assert wide(torch.empty(1, 3, 32, 32)).shape == (1, 1000)
    for name, parameter in narrow.named_parameters():
        if parameter.ndim == 4:
            assert wide.get_parameter(name).shape[0] == 2 * parameter.shape[0], name

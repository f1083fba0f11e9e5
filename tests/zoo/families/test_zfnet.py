"""ZFNet's wide network: sizes of figure 3, known cost, other variants."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.zfnet import build


def test_cost_and_map_sizes() -> None:
    params = macs = 0
    sides: list[int] = []

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal params, macs
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            params += sum(parameter.numel() for parameter in module.parameters())
            macs += module.weight.numel() * output[0, 0].numel()
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            sides.append(output.shape[-1])

    with torch.device("meta"):
        model = build(ModelSpec("zfnet", 1.0, 224, 1000, 3)).eval()
        for module in model.modules():
            module.register_forward_hook(add)
        model(torch.empty(1, 3, 224, 224))
    # Figure 3 of the paper: convolution and pooling, twice, three convolutions, pooling.
    assert sides == [110, 55, 26, 13, 13, 13, 13, 6]
    # ZFNet-b of github.com/osmr/imgclsmob has 107,627,624 parameters too, and 2.48 G operations.
    assert params == 107_627_624
    assert macs / 1e9 == pytest.approx(2.47, rel=0.005)


def test_state_dict_names() -> None:
    with torch.device("meta"):
        state = build(ModelSpec("zfnet", 1.0, 224, 1000, 3)).state_dict()
    names = list(state)
    assert (len(names), names[0], names[-1]) == (16, "features.0.weight", "classifier.6.bias")
    assert state["classifier.1.weight"].shape == (4096, 512 * 6 * 6)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_least_resolution() -> None:
    assert build(ModelSpec("zfnet", 0.25, 47, 7, 1))(torch.rand(2, 1, 47, 47)).shape == (2, 7)
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec("zfnet", 0.25, 46, 7, 1))(torch.rand(1, 1, 46, 46))


@pytest.mark.parametrize("resolution", [48, 49, 50, 51, 101])
def test_dense_layer_fits_any_map(resolution: int) -> None:
    model = build(ModelSpec("zfnet", 0.05, resolution, 10, 3))
    assert model(torch.rand(1, 3, resolution, resolution)).shape == (1, 10)


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_works(width: float) -> None:
    assert build(ModelSpec("zfnet", width, 47, 10, 3))(torch.rand(1, 3, 47, 47)).shape == (1, 10)

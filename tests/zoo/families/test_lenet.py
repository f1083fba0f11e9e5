"""LeNet-5 against the figures in common use for it, and at other sizes than its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.lenet import build


def test_each_layer_has_the_known_parameters() -> None:
    model = build(ModelSpec("lenet5", 1.0, 32, 10, 1))
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    params = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    # C1, C3 (connected to all of S2: 2,416, not the paper's 1,516), C5, F6, output.
    assert params == [156, 2_416, 48_120, 10_164, 850]
    assert sum(params) == 61_706


def test_state_dict_keeps_its_names() -> None:
    names = list(build(ModelSpec("lenet5", 1.0, 32, 10, 1)).state_dict())
    assert (len(names), names[0], names[-1]) == (10, "features.0.weight", "classifier.4.bias")


@pytest.mark.parametrize("width", [0.05, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("resolution", [16, 28, 47])
def test_any_width_and_resolution_works(width: float, resolution: int) -> None:
    model = build(ModelSpec("lenet5", width, resolution, 7, 3))
    assert model(torch.rand(2, 3, resolution, resolution)).shape == (2, 7)


def test_width_is_not_rounded_to_eight() -> None:
    state = build(ModelSpec("lenet5", 0.5, 32, 10, 1)).state_dict()
    rows = [
        state[name].shape[0] for name in ("features.0.weight", "features.3.weight", "classifier.0.weight")
    ]
    assert rows == [3, 8, 60]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_nothing_is_left_below_the_least_resolution() -> None:
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec("lenet5", 1.0, 15, 10, 1))(torch.rand(1, 1, 15, 15))

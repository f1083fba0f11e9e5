"""Both AlexNets: the published layers, the normalisation of 2012 and how it is exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.alexnet import build
from edgecnn.zoo.layers import local_response_norm


def layers(spec: ModelSpec) -> tuple[list[int], list[int]]:
    """Parameters and multiply-accumulates of each convolution and dense layer, computed without data."""
    params, macs = [], []

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        params.append(sum(parameter.numel() for parameter in module.parameters()))
        macs.append(module.weight.numel() * output[0, 0].numel())

    with torch.device("meta"):
        model = build(spec).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(add)
        assert model(torch.empty(spec.input_shape)).shape == (1, spec.classes)
    return params, macs


def test_layers_of_2012() -> None:
    # Krizhevsky et al. 2012, section 3.5, with both towers' maps seen by every layer.
    params, macs = layers(ModelSpec("alexnet_2012", 1.0, 227, 1000, 3))
    assert params == [34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000]
    assert macs == [
        105_415_200,
        447_897_600,
        149_520_384,
        224_280_576,
        149_520_384,
        37_748_736,
        16_777_216,
        4_096_000,
    ]
    assert sum(params) == 62_378_344


def test_cost_of_torchvisions() -> None:
    params, macs = layers(ModelSpec("alexnet", 1.0, 224, 1000, 3))
    # torchvision AlexNet_Weights.IMAGENET1K_V1: num_params and _ops.
    assert sum(params) == 61_100_840
    assert round(sum(macs) / 1e9, 3) == 0.714


def test_state_dict_has_torchvisions_names() -> None:
    with torch.device("meta"):
        state = build(ModelSpec("alexnet", 1.0, 224, 1000, 3)).state_dict()
    names = [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    assert list(state) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    assert state["classifier.1.weight"].shape == (4096, 256 * 6 * 6)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("alexnet_2012", 67)])
def test_least_resolution(name: str, least: int) -> None:
    assert build(ModelSpec(name, 0.25, least, 7, 1))(torch.rand(2, 1, least, least)).shape == (2, 7)
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec(name, 0.25, least - 1, 7, 1))(torch.rand(1, 1, least - 1, least - 1))


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012"])
def test_any_width_works(name: str, width: float) -> None:
    assert build(ModelSpec(name, width, 75, 10, 3))(torch.rand(1, 3, 75, 75)).shape == (1, 10)


def test_normalisation_is_the_formula_of_the_paper() -> None:
    x = np.random.default_rng(0).normal(0, 50, (1, 7, 1, 1)).astype(np.float32)
    got = local_response_norm()(torch.as_tensor(x)).numpy().ravel()
    a = x.ravel().astype(np.float64)
    # Section 3.3: i is a map, the sum goes over the maps from i - n/2 to i + n/2 that there are.
    expected = [
        a[i] / (2 + 1e-4 * sum(a[j] ** 2 for j in range(max(0, i - 2), min(6, i + 2) + 1))) ** 0.75
        for i in range(7)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-5)

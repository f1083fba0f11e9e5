"""The SqueezeNets: published cost, torchvision's state dicts, other variants."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.squeezenet import build

NAMES = ["squeezenet1_0", "squeezenet1_1"]


# torchvision SqueezeNet1_*_Weights.IMAGENET1K_V1: num_params and _ops (GMACs at 224).
@pytest.mark.parametrize(
    ("name", "params", "gmacs"), [("squeezenet1_0", 1_248_424, 0.819), ("squeezenet1_1", 1_235_496, 0.349)]
)
def test_published_cost(name: str, params: int, gmacs: float) -> None:
    macs = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * output[0, 0].numel()

    with torch.device("meta"):
        model = build(ModelSpec(name, 1.0, 224, 1000, 3)).eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(add)
        model(torch.empty(1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert round(macs / 1e9, 3) == gmacs


@pytest.mark.parametrize(
    ("name", "fires"),
    [("squeezenet1_0", (3, 4, 5, 7, 8, 9, 10, 12)), ("squeezenet1_1", (3, 4, 6, 7, 9, 10, 11, 12))],
)
def test_state_dict_is_torchvisions(name: str, fires: tuple[int, ...]) -> None:
    with torch.device("meta"):
        state = list(build(ModelSpec(name, 1.0, 224, 1000, 3)).state_dict())
    convolutions = ["features.0"]
    for index in fires:
        convolutions += [f"features.{index}.{part}" for part in ("squeeze", "expand1x1", "expand3x3")]
    convolutions.append("classifier.1")
    assert state == [f"{layer}.{kind}" for layer in convolutions for kind in ("weight", "bias")]


@pytest.mark.parametrize(("name", "least"), [("squeezenet1_0", 21), ("squeezenet1_1", 17)])
def test_least_resolution(name: str, least: int) -> None:
    assert build(ModelSpec(name, 0.25, least, 7, 1)).eval()(torch.rand(2, 1, least, least)).shape == (2, 7)
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec(name, 0.25, least - 1, 7, 1)).eval()(torch.rand(1, 1, least - 1, least - 1))


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_any_width_works(name: str, width: float) -> None:
    assert build(ModelSpec(name, width, 50, 10, 3)).eval()(torch.rand(1, 3, 50, 50)).shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_not_negative(name: str) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        scores = build(ModelSpec(name, 1.0, 64, 10, 3)).eval()(torch.randn(4, 3, 64, 64))
    assert scores.min() >= 0
    assert scores.std() > 1e-2

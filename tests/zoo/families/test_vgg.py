"""The VGGs: published cost, torchvision's state dicts, other variants."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.vgg import build

# torchvision VGG*_Weights.IMAGENET1K_V1: num_params, _ops (GMACs at 224), tensors in the state dict.
PUBLISHED = {
    "vgg11": (132_863_336, 7.609, 22),
    "vgg11_bn": (132_868_840, 7.609, 62),
    "vgg13": (133_047_848, 11.308, 26),
    "vgg13_bn": (133_053_736, 11.308, 76),
    "vgg16": (138_357_544, 15.47, 32),
    "vgg16_bn": (138_365_992, 15.47, 97),
    "vgg19": (143_667_240, 19.632, 38),
    "vgg19_bn": (143_678_248, 19.632, 118),
}


def cost(spec: ModelSpec) -> tuple[int, int]:
    """Parameters and multiply-accumulates, computed without data."""
    macs = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * output[0, 0].numel()

    with torch.device("meta"):
        model = build(spec).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(add)
        assert model(torch.empty(spec.input_shape)).shape == (1, spec.classes)
    return sum(parameter.numel() for parameter in model.parameters()), macs


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    params, macs = cost(ModelSpec(name, 1.0, 224, 1000, 3))
    assert params == PUBLISHED[name][0]
    assert round(macs / 1e9, 3) == PUBLISHED[name][1]


def test_layers_of_vgg16() -> None:
    with torch.device("meta"):
        model = build(ModelSpec("vgg16", 1.0, 224, 1000, 3))
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    params = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    # Column D of table 1: 13 convolutions and 3 dense layers.
    assert len(params) == 16
    assert params[:4] == [1_792, 36_928, 73_856, 147_584]
    assert params[-3:] == [102_764_544, 16_781_312, 4_097_000]


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("vgg11", (0, 3, 6, 8, 11, 13, 16, 18)),
        ("vgg11_bn", (0, 4, 8, 11, 15, 18, 22, 25)),
        ("vgg16", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
    ],
)
def test_layers_have_torchvisions_names(name: str, convolutions: tuple[int, ...]) -> None:
    with torch.device("meta"):
        state = build(ModelSpec(name, 1.0, 224, 1000, 3)).state_dict()
    kernels = [key for key, value in state.items() if value.dim() == 4]
    assert kernels == [f"features.{index}.weight" for index in convolutions]


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        state = build(ModelSpec(name, 1.0, 224, 1000, 3)).state_dict()
    names = list(state)
    assert (len(names), names[0], names[-1]) == (PUBLISHED[name][2], "features.0.weight", "classifier.6.bias")
    assert state["classifier.0.weight"].shape == (4096, 512 * 7 * 7)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_least_resolution(name: str) -> None:
    assert build(ModelSpec(name, 0.125, 32, 7, 1)).eval()(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    with pytest.raises(RuntimeError, match="too small"):
        build(ModelSpec(name, 0.125, 31, 7, 1)).eval()(torch.rand(1, 1, 31, 31))


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_any_width_works(width: float) -> None:
    assert build(ModelSpec("vgg11_bn", width, 64, 10, 3)).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 10)


def test_untrained_network_keeps_the_scale_of_its_input() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        logits = build(ModelSpec("vgg19", 0.5, 32, 10, 3)).eval()(torch.randn(4, 3, 32, 32))
    assert 1e-3 < logits.std() < 1e3

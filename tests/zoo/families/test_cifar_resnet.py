"""ResNet for CIFAR-10: the paper's two networks, and variants of them."""

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.cifar_resnet import CifarBlock, build


# Layers and parameters of the paper's table 6.
@pytest.mark.parametrize(
    ("name", "layers", "million", "params"),
    [("resnet20_cifar", 20, 0.27, 269_722), ("resnet56_cifar", 56, 0.85, 853_018)],
)
def test_sizes_are_the_papers(name: str, layers: int, million: float, params: int) -> None:
    model = build(ModelSpec(name, 1.0, 32, 10, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert round(params / 1e6, 2) == million
    weighted = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == layers


def test_state_dict_has_the_ports_names() -> None:
    names = list(build(ModelSpec("resnet56_cifar", 1.0, 32, 10, 3)).state_dict())
    assert (names[0], names[-1]) == ("conv1.weight", "linear.bias")
    # 55 convolutions, as many batch norms of five tensors, the dense layer's two; shortcuts have none.
    assert len(names) == 55 + 55 * 5 + 2
    assert "layer2.0.bn2.running_mean" in names


def test_shortcut_is_every_second_pixel_between_channels_of_zeros() -> None:
    block = CifarBlock(4, 8, stride=2).eval()
    x = torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        block.bn2.weight.zero_()
        out = block(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def test_the_last_map_is_one_pixel_at_the_least_resolution() -> None:
    model = build(ModelSpec("resnet20_cifar", 1.0, 4, 10, 3)).eval()
    shapes = []
    model.get_submodule("layer3").register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
    with torch.no_grad():
        model(torch.randn(1, 3, 4, 4))
    assert shapes == [(1, 1)]


@pytest.mark.parametrize("width", [0.05, 0.25, 1.3, 2.0])
@pytest.mark.parametrize("resolution", [4, 9])
def test_variants_run(width: float, resolution: int) -> None:
    model = build(ModelSpec("resnet20_cifar", width, resolution, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, resolution, resolution))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()

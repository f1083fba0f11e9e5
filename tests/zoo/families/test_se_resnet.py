"""SE-ResNet-50: the published network, and variants of it."""

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.se_resnet import build


def test_size_and_names_are_those_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        model = build(ModelSpec("se_resnet50", 1.0, 224, 1000, 3))
    state = model.state_dict()
    names = list(state)
    # 28.1 M in the paper's table 2; to the unit those of the port's se_resnet50.
    assert sum(parameter.numel() for parameter in model.parameters()) == 28_088_024
    assert (names[0], names[-1]) == ("layer0.conv1.weight", "last_linear.bias")
    assert len(names) == 384
    assert state["layer1.0.se_module.fc1.weight"].shape == (16, 256, 1, 1)
    assert state["layer4.2.se_module.fc2.bias"].shape == (2048,)


def test_the_stride_is_in_the_first_convolution() -> None:
    with torch.device("meta"):
        block = build(ModelSpec("se_resnet50", 1.0, 224, 1000, 3)).get_submodule("layer2.0")
    assert block.get_submodule("conv1").stride == (2, 2)
    assert block.get_submodule("conv2").stride == (1, 1)


def test_excitation_weighs_the_branch_and_not_the_shortcut() -> None:
    block = build(ModelSpec("se_resnet50", 0.25, 32, 10, 3)).eval().get_submodule("layer1.1")
    x = torch.rand(1, 64, 4, 4)
    with torch.no_grad():
        block.get_parameter("se_module.fc2.weight").zero_()
        block.get_parameter("se_module.fc2.bias").fill_(-200.0)
        closed = block(x)
        block.get_parameter("se_module.fc2.bias").fill_(200.0)
        opened = block(x)
    assert torch.equal(closed, x)
    assert not torch.allclose(opened, x)


def test_max_pooling_has_a_partial_last_window_and_no_padding() -> None:
    stem = build(ModelSpec("se_resnet50", 0.05, 32, 10, 3)).get_submodule("layer0")
    maps = torch.arange(36.0).reshape(1, 1, 6, 6)
    pooled = stem.get_submodule("pool")(maps)
    assert pooled[0, 0].tolist() == [[14, 16, 17], [26, 28, 29], [32, 34, 35]]


def test_the_last_map_is_one_pixel_at_the_least_resolution() -> None:
    model = build(ModelSpec("se_resnet50", 0.05, 32, 10, 3)).eval()
    shapes = []
    model.get_submodule("layer4").register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert shapes == [(1, 1)]


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_variants_run(width: float) -> None:
    model = build(ModelSpec("se_resnet50", width, 32, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()

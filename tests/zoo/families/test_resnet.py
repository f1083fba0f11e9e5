"""ResNet, Wide ResNet and ResNeXt: torchvision's networks, and variants of them."""

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.resnet import build

# Of torchvision's weights metadata, and the tensors of its state dicts.
PUBLISHED = [
    ("resnet18", 11_689_512, 122),
    ("resnet34", 21_797_672, 218),
    ("resnet50", 25_557_032, 320),
    ("resnet101", 44_549_160, 626),
    ("resnet152", 60_192_808, 932),
    ("wide_resnet50_2", 68_883_240, 320),
    ("resnext50_32x4d", 25_028_904, 320),
]


@pytest.mark.parametrize(("name", "params", "tensors"), PUBLISHED)
def test_sizes_are_torchvisions(name: str, params: int, tensors: int) -> None:
    with torch.device("meta"):
        model = build(ModelSpec(name, 1.0, 224, 1000, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert len(model.state_dict()) == tensors


def test_state_dict_has_torchvisions_names() -> None:
    with torch.device("meta"):
        state = build(ModelSpec("resnet50", 1.0, 224, 1000, 3)).state_dict()
    names = list(state)
    assert (names[0], names[-1]) == ("conv1.weight", "fc.bias")
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var"} <= state.keys()
    assert state["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert state["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)


def test_the_stride_is_in_the_3x3_convolution() -> None:
    with torch.device("meta"):
        block = build(ModelSpec("resnet50", 1.0, 224, 1000, 3)).get_submodule("layer2.0")
    assert block.get_submodule("conv1").stride == (1, 1)
    assert block.get_submodule("conv2").stride == (2, 2)


def test_the_relatives_differ_inside_their_blocks() -> None:
    with torch.device("meta"):
        wide = build(ModelSpec("wide_resnet50_2", 1.0, 224, 1000, 3)).state_dict()
        grouped = build(ModelSpec("resnext50_32x4d", 1.0, 224, 1000, 3)).state_dict()
    assert wide["layer1.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert grouped["layer1.0.conv2.weight"].shape == (128, 4, 3, 3)
    assert wide["layer1.0.conv3.weight"].shape == grouped["layer1.0.conv3.weight"].shape == (256, 128, 1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_variants_run(name: str, width: float) -> None:
    model = build(ModelSpec(name, width, 32, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_the_last_map_is_one_pixel_at_the_least_resolution() -> None:
    model = build(ModelSpec("resnet18", 0.05, 32, 7, 3)).eval()
    shapes = []
    model.get_submodule("layer4").register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert shapes == [(1, 1)]

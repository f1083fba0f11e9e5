"""ShuffleNet: the paper's network, its widths, and variants of it."""

import math

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.shufflenet_v1 import build


# MFLOPs of the paper's tables 2 and 5, which count a multiply-accumulate as one, and the parameters that the
# authors' repository states (megvii-model/ShuffleNet-Series), whose dense layer has no bias.
@pytest.mark.parametrize(
    ("width", "mmacs", "million"), [(0.25, 13, None), (0.5, 38, 0.7), (1.0, 137, 1.9), (2.0, 524, 5.4)]
)
def test_widths_are_the_papers(width: float, mmacs: int, million: float | None) -> None:
    with torch.device("meta"):
        model = build(ModelSpec("shufflenet_v1", width, 224, 1000, 3)).eval()
        assert round(_macs(model, torch.zeros(1, 3, 224, 224)) / 1e6) == mmacs
    params = sum(parameter.numel() for parameter in model.parameters()) - 1000
    assert million is None or round(params / 1e6, 1) == million


def test_channels_and_groups_are_table_1s() -> None:
    with torch.device("meta"):
        model = build(ModelSpec("shufflenet_v1", 1.0, 224, 1000, 3))
    state = model.state_dict()
    names = list(state)
    assert (names[0], names[-1]) == ("conv1.weight", "fc.bias")
    # 16 units of three convolutions and the first one, as many batch norms of five tensors, the dense layer.
    assert len(names) == 49 + 49 * 5 + 2
    assert [len(model.get_submodule(f"stage{stage}")) for stage in (2, 3, 4)] == [4, 8, 4]
    assert state["fc.weight"].shape == (1000, 960)
    # The first 1x1 convolution has no groups; it and the input make 240 channels.
    assert state["stage2.0.conv1.weight"].shape == (60, 24, 1, 1)
    assert state["stage2.0.conv3.weight"].shape == (216, 20, 1, 1)
    assert state["stage2.1.conv1.weight"].shape == (60, 80, 1, 1)


def test_shuffle_brings_every_group_to_every_group() -> None:
    model = build(ModelSpec("shufflenet_v1", 0.25, 32, 10, 3)).eval()
    unit = model.get_submodule("stage2.1")
    seen = []
    unit.get_submodule("conv2").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        # Each channel of the first convolution tells its number.
        unit.get_parameter("conv1.weight").zero_()
        unit.get_parameter("bn1.bias").copy_(torch.arange(15.0))
        unit(torch.zeros(1, 60, 2, 2))
    assert seen[0][0, :, 0, 0].tolist() == [0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14]


def test_the_last_map_is_one_pixel_at_the_least_resolution() -> None:
    model = build(ModelSpec("shufflenet_v1", 0.25, 32, 10, 3)).eval()
    shapes = []
    model.get_submodule("stage4").register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert shapes == [(1, 1)]


@pytest.mark.parametrize("width", [0.05, 0.07, 0.25, 0.37, 2.0])
def test_variants_run(width: float) -> None:
    model = build(ModelSpec("shufflenet_v1", width, 32, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def _macs(model: torch.nn.Module, x: torch.Tensor) -> int:
    counts: list[int] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            per_output = math.prod(module.weight.shape[1:])
            module.register_forward_hook(
                lambda _, __, out, per_output=per_output: counts.append(out.numel() * per_output)
            )
    model(x)
    return sum(counts)

"""ShuffleNet V2: torchvision's four networks, and variants of them."""

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.shufflenet_v2 import build


# Of torchvision's weights metadata.
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("shufflenet_v2_x0_5", 1_366_792),
        ("shufflenet_v2_x1_0", 2_278_604),
        ("shufflenet_v2_x1_5", 3_503_624),
        ("shufflenet_v2_x2_0", 7_393_996),
    ],
)
def test_sizes_are_torchvisions(name: str, params: int) -> None:
    with torch.device("meta"):
        model = build(ModelSpec(name, 1.0, 224, 1000, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert len(model.state_dict()) == 338


def test_state_dict_has_torchvisions_names() -> None:
    with torch.device("meta"):
        state = build(ModelSpec("shufflenet_v2_x1_0", 1.0, 224, 1000, 3)).state_dict()
    names = list(state)
    assert (names[0], names[-1]) == ("conv1.0.weight", "fc.bias")
    assert state["stage2.0.branch1.0.weight"].shape == (24, 1, 3, 3)
    assert state["stage2.0.branch1.2.weight"].shape == (58, 24, 1, 1)
    assert state["stage4.3.branch2.5.weight"].shape == (232, 232, 1, 1)
    assert "stage2.1.branch1.0.weight" not in state


def test_a_unit_keeps_one_half_and_shuffles_it_with_the_other() -> None:
    unit = build(ModelSpec("shufflenet_v2_x0_5", 1.0, 32, 10, 3)).eval().get_submodule("stage2.1")
    x = torch.randn(1, 48, 4, 4)
    with torch.no_grad():
        out = unit(x)
        filtered = unit.get_submodule("branch2")(x[:, 24:])
    assert torch.equal(out[:, 0::2], x[:, :24])
    assert torch.equal(out[:, 1::2], filtered)


def test_the_last_map_is_one_pixel_at_the_least_resolution() -> None:
    model = build(ModelSpec("shufflenet_v2_x0_5", 1.0, 32, 10, 3)).eval()
    shapes = []
    model.get_submodule("conv5").register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert shapes == [(1, 1)]


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_variants_run(name: str, width: float) -> None:
    model = build(ModelSpec(name, width, 32, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()

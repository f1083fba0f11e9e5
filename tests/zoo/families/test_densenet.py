"""DenseNet: torchvision's four networks, and variants of them."""

import pytest
import torch

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.densenet import DenseLayer, build


# Of torchvision's weights metadata, and the tensors of its state dicts.
@pytest.mark.parametrize(
    ("name", "params", "tensors"),
    [
        ("densenet121", 7_978_856, 727),
        ("densenet161", 28_681_000, 967),
        ("densenet169", 14_149_480, 1015),
        ("densenet201", 20_013_928, 1207),
    ],
)
def test_sizes_are_torchvisions(name: str, params: int, tensors: int) -> None:
    with torch.device("meta"):
        model = build(ModelSpec(name, 1.0, 224, 1000, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert len(model.state_dict()) == tensors


def test_state_dict_has_torchvisions_names() -> None:
    with torch.device("meta"):
        state = build(ModelSpec("densenet121", 1.0, 224, 1000, 3)).state_dict()
    names = list(state)
    assert (names[0], names[-1]) == ("features.conv0.weight", "classifier.bias")
    assert state["features.denseblock1.denselayer1.norm1.weight"].shape == (64,)
    assert state["features.denseblock4.denselayer16.conv2.weight"].shape == (32, 128, 3, 3)
    assert state["features.transition3.conv.weight"].shape == (512, 1024, 1, 1)
    assert state["features.norm5.running_var"].shape == (1024,)


def test_a_layer_keeps_its_input_in_front_of_what_it_adds() -> None:
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        out = DenseLayer(16, 8).eval()(x)
    assert out.shape == (1, 24, 4, 4)
    assert torch.equal(out[:, :16], x)


def test_29_pixels_are_the_least() -> None:
    model = build(ModelSpec("densenet121", 0.05, 29, 10, 3)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 29, 29)).shape == (1, 10)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 3, 28, 28))


@pytest.mark.parametrize("name", ["densenet121", "densenet161"])
@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_variants_run(name: str, width: float) -> None:
    model = build(ModelSpec(name, width, 32, 7, 1)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()

"""The registry's rows against the networks they describe, and the requests it refuses."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from edgecnn.errors import ConfigError
from edgecnn.spec import ModelSpec
from edgecnn.zoo import Entry, build, list_models, make_spec, read_labels, resolve


def count_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, spec: ModelSpec) -> int:
    macs = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        each = module.weight.numel() if isinstance(module, nn.Linear) else module.weight[0].numel()
        macs += each if isinstance(module, nn.Linear) else each * output[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    with torch.no_grad():
        model(torch.zeros(spec.input_shape))
    return macs


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_row_describes_its_network(entry: Entry) -> None:
    spec = make_spec(entry.name)
    model = build(spec)
    assert not model.training
    assert count_params(model) == entry.params
    assert count_macs(model, spec) == entry.macs
    assert spec.resolution == entry.resolution == entry.preprocess.crop
    assert len(entry.preprocess.mean) == len(entry.preprocess.std) == entry.in_channels


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_untrained_network_computes_something_at_its_least_resolution(entry: Entry) -> None:
    spec = make_spec(entry.name, resolution=entry.min_resolution)
    with torch.no_grad():
        logits = build(spec)(
            torch.randn(2, *spec.input_shape[1:], generator=torch.Generator().manual_seed(1))
        )
    assert logits.shape == (2, entry.classes)
    # Far from underflow and overflow in fp16, and not the same for every image.
    assert 1e-3 < logits.std() < 1e3
    assert (logits[0] - logits[1]).abs().max() > 1e-3


# Parameters and multiply-accumulates in millions: arXiv:1704.04861, tables 6 and 7, and its model page.
@pytest.mark.parametrize(
    ("width", "resolution", "params", "macs"),
    [(1.0, 192, 4.24, 418), (0.75, 224, 2.59, 325), (0.5, 160, 1.34, 77), (0.25, 128, 0.47, 14)],
)
def test_mobilenet_v1_variants_have_the_published_cost(
    width: float, resolution: int, params: float, macs: int
) -> None:
    spec = make_spec("mobilenet_v1", width, resolution)
    model = build(spec)
    # The published counts are met with three numbers a batch norm channel; only two of them are learned.
    norms = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert round((count_params(model) + norms) / 1e6, 2) == params
    assert count_macs(model, spec) / 1e6 == pytest.approx(macs, abs=1)


# torchvision.models.mobilenet_v2(width_mult=...)
@pytest.mark.parametrize(("width", "params"), [(0.35, 1_677_128), (0.5, 1_968_680), (1.4, 6_108_776)])
def test_mobilenet_v2_rounds_channels_as_torchvision_does(width: float, params: int) -> None:
    assert count_params(build(make_spec("mobilenet_v2", width))) == params


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50"])
def test_width_changes_the_network(name: str) -> None:
    narrow, wide = (count_params(build(make_spec(name, width))) for width in (0.5, 1.5))
    assert narrow < resolve(name).params < wide


def test_same_seed_same_weights_and_torch_is_left_alone() -> None:
    spec = make_spec("mobilenet_v2", 0.25)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = build(spec, seed=3), build(spec, seed=3), build(spec, seed=4)
    assert torch.equal(torch.rand(3), expected)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_aliases_and_specs() -> None:
    assert resolve("mobilenet").name == "mobilenet_v2"
    assert resolve("lenet").name == "lenet5"
    assert make_spec("mobilenet", 0.5, 160) == ModelSpec("mobilenet_v2", 0.5, 160, 1000, 3)
    assert make_spec("lenet").input_shape == (1, 1, 32, 32)


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown model 'MobileNetV2'") as caught:
        resolve("MobileNetV2")
    assert "mobilenet_v2" in str(caught.value.hint)


@pytest.mark.parametrize("width", [0, -1, 4.01, math.nan, math.inf])
def test_impossible_width_is_refused(width: float) -> None:
    with pytest.raises(ConfigError, match="width"):
        make_spec("resnet18", width=width)


@pytest.mark.parametrize("resolution", [0, -32, 31, 4097, 224.5])
def test_impossible_resolution_is_refused(resolution: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot have resolution {resolution}"):
        make_spec("resnet18", resolution=resolution)


def test_lenet_says_why_it_takes_one_resolution_only() -> None:
    with pytest.raises(ConfigError, match="dense layers are fixed") as caught:
        make_spec("lenet5", resolution=64)
    assert "32" in str(caught.value.hint)


def test_build_refuses_what_make_spec_refuses() -> None:
    with pytest.raises(ConfigError, match="resolution 64"):
        build(ModelSpec("lenet5", 1.0, 64, 10, 1))


def test_imagenet_labels_are_in_the_order_of_the_outputs() -> None:
    labels = read_labels("imagenet")
    assert len(labels) == 1000
    assert (labels[0], labels[22], labels[999]) == ("tench", "bald eagle", "toilet tissue")
    with pytest.raises(ConfigError, match="unknown label set"):
        read_labels("../labels/imagenet")


def test_registry_imports_no_framework() -> None:
    code = "import sys, edgecnn.zoo.registry; print(*{'torch', 'numpy', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

"""The registry's rows against the networks they describe, and the requests it refuses."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from edgecnn.errors import ConfigError
from edgecnn.spec import ModelSpec
from edgecnn.zoo import Entry, build, list_models, make_spec, read_labels, resolve, variant
from edgecnn.zoo.settle import settle_batch_norm


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
        model(torch.zeros(spec.input_shape, device=next(model.parameters()).device))
    return macs


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_row_describes_its_network(entry: Entry) -> None:
    spec = make_spec(entry.name)
    with torch.device("meta"):  # shapes without values: VGG-19 in milliseconds
        model = build(spec)
    assert not model.training
    assert count_params(model) == entry.params
    assert count_macs(model, spec) == entry.macs
    assert entry.preprocess.crop == (spec.resolution, spec.resolution)
    assert len(entry.preprocess.mean) == len(entry.preprocess.std) == entry.in_channels
    assert (entry.top1_percent is None) == (entry.top1_source is None)


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_untrained_network_computes_something_at_its_least_resolution(entry: Entry) -> None:
    spec = make_spec(entry.name, width=0.5, resolution=entry.min_resolution, classes=7, in_channels=2)
    model = build(spec)
    settle_batch_norm(model, entry.preprocess.fitted(*spec.input_shape[1:]))
    with torch.no_grad():
        logits = model(torch.randn(2, *spec.input_shape[1:], generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (2, 7)
    # Far from underflow and overflow in fp16, and not the same for every image.
    assert 1e-3 < logits.std() < 1e3
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("entry", [e for e in list_models() if e.weights], ids=lambda entry: entry.name)
def test_published_weights_say_what_they_are(entry: Entry) -> None:
    weights = entry.weights
    assert weights is not None
    assert re.fullmatch(r"[0-9a-f]{8,64}", weights.file.sha256)
    # torch.hub's convention: the file is called after the first digits of its SHA-256.
    assert weights.file.name.rpartition("-")[2].startswith(weights.file.sha256[:8])
    assert weights.file.places
    assert all(
        place.url.endswith(weights.file.name) for place in weights.file.places if hasattr(place, "url")
    )
    assert entry.top1_percent is not None
    assert len(read_labels(weights.labels)) == entry.classes
    assert weights.preprocess.crop == entry.preprocess.crop


def test_names_are_unique() -> None:
    names = [name for entry in list_models() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))


FAMILIES = sorted({entry.family: entry.name for entry in reversed(list_models())}.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_width_changes_the_network(name: str) -> None:
    with torch.device("meta"):
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


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_a_resolution_too_small_is_refused_with_the_least_that_works(entry: Entry) -> None:
    with pytest.raises(
        ConfigError, match=f"cannot have resolution {entry.min_resolution - 1}: its"
    ) as caught:
        make_spec(entry.name, resolution=entry.min_resolution - 1)
    assert f"from {entry.min_resolution} to" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"classes": 0}, "0 classes"),
        ({"classes": -3}, "-3 classes"),
        ({"classes": 2.5}, "2.5 classes"),
        ({"classes": 10**9}, "1000000000 classes"),
        ({"in_channels": 0}, "0 input channels"),
    ],
)
def test_impossible_classes_and_channels_are_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_spec("resnet18", **changed)


def test_build_refuses_what_make_spec_refuses() -> None:
    with pytest.raises(ConfigError, match="resolution 15"):
        build(ModelSpec("lenet5", 1.0, 15, 10, 1))


def test_a_variant_is_named_by_what_is_changed() -> None:
    assert variant(make_spec("mobilenet", 0.5, 160)) == "mobilenet_v2-0.5-160"
    assert variant(make_spec("lenet", classes=7, in_channels=3)) == "lenet5-1.0-32-7classes-3channels"


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

"""The weights that travel with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import edgecnn.zoo
from edgecnn.source.request import make_request
from edgecnn.spec import ModelSpec
from edgecnn.zoo import build, variant
from edgecnn.zoo.about import about
from edgecnn.zoo.shipped import shipped_for, shipped_weights
from edgecnn.zoo.weights import load_weights

FILES = sorted((Path(edgecnn.zoo.__file__).parent / "trained").glob("*.safetensors"))
GOALS_PERCENT = {
    "mobilenet_v1_cifar-0.25-32": 85.0,
    "mobilenet_v1_cifar-0.5-32": 89.0,
    "mobilenet_v1_cifar-0.75-32": 91.0,
    "mobilenet_v1_cifar-1.0-32": 92.0,
    "resnet20_cifar-1.0-32": 90.5,
}


def test_they_are_all_there_and_small() -> None:
    assert {path.stem for path in FILES} == {f"{name}-cifar10" for name in GOALS_PERCENT}
    assert sum(path.stat().st_size for path in FILES) <= 14_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_is_and_loads(path: Path) -> None:
    described = about(path)
    spec = ModelSpec(**described["network"])
    assert path.stem == f"{variant(spec)}-cifar10"
    assert described["top1_percent"] >= GOALS_PERCENT[variant(spec)]
    assert described["held_out"] == described["held_out"] | {"name": "cifar10:test", "images": 10_000}
    floats = {tensor.dtype for tensor in load_file(path).values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    assert shipped_weights(spec) == {"cifar10": path}
    assert re.sub(r"\.0$", "", f"{spec.width}") in {
        re.sub(r"\.0$", "", width) for width in shipped_for(spec.name)["cifar10"]
    }
    loaded = load_weights(spec, build(spec), "cifar10")
    assert loaded.labels is not None
    assert loaded.labels[3] == "cat"
    assert loaded.licence == "Apache-2.0"


def test_they_are_the_default_where_nothing_is_published() -> None:
    assert make_request("mobilenet_v1_cifar", width=0.25).weights == "cifar10"
    assert make_request("mobilenet_v2").weights == "imagenet"
    assert make_request("mobilenet_v1_cifar", width=0.3).weights == "imagenet"

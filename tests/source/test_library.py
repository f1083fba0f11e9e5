"""Networks of other libraries, against small stand-ins that have the parts of their interfaces used here.

torchvision and timm need a build of torch that edgecnn does not ask for, so neither can be a test dependency.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecnn.errors import ConfigError, MissingDependency, WeightsError
from edgecnn.source import library
from edgecnn.source.load import load
from edgecnn.source.request import make_request

NETWORK = """
import torch
from torch import nn

def network(num_classes=5):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, num_classes))
"""
TORCHVISION = (
    NETWORK
    + """
from types import SimpleNamespace

class Transforms:
    crop_size, resize_size = [24], [28]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)
    interpolation = SimpleNamespace(value="bicubic")

class Weights:
    url = "http://127.0.0.1:9/net-DIGITS.pth"
    meta = {"categories": list("abcde"), "_metrics": {"ImageNet-1K": {"acc@1": 61.5}}}
    transforms = Transforms
    def __str__(self): return "Net_Weights.V1"

def list_models(): return ["net"]
def get_model_weights(name): return SimpleNamespace(DEFAULT=Weights())
def get_model(name, weights=None, **options): return network(**options)
"""
)
TIMM = (
    NETWORK
    + """
def list_models(): return ["net"]
def create_model(name, pretrained, **options):
    made = network(**options)
    made.pretrained_cfg = {"input_size": (3, 20, 28), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5),
                           "crop_pct": 0.8, "interpolation": "bicubic", "hf_hub_id": "timm/net"}
    return made
"""
)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    (folder / "torchvision" / "models").mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text("")
    (folder / "torchvision" / "models" / "__init__.py").write_text(TORCHVISION)
    (folder / "timm.py").write_text(TIMM)
    for name in ("torchvision", "torchvision.models", "timm", "huggingface_hub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("torchvision", "torchvision.models", "timm", "huggingface_hub"):
        sys.modules.pop(name, None)


def trained() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                           nn.Flatten(), nn.Linear(4, 5))  # fmt: skip
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }


def test_torchvision_with_random_weights(stand_ins: Path) -> None:
    network = load(make_request("torchvision:net", weights="random", classes=3))
    assert network.variant == "torchvision_net-3classes"
    assert network.input_shape == (1, 3, 24, 24)
    assert network.weights.random
    assert network.weights.preprocess.mean == (0.4, 0.5, 0.6)
    assert (network.weights.preprocess.resize, network.weights.preprocess.interpolation) == (28, "bicubic")
    assert network.params == 3 * 4 * 9 + 4 + 8 + 4 * 3 + 3


def test_torchvision_with_its_published_weights(
    stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.pth"
    torch.save(trained(), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    module = stand_ins / "torchvision" / "models" / "__init__.py"
    module.write_text(TORCHVISION.replace("DIGITS", digits))
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(file, cache / f"net-{digits}.pth")
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(cache))
    network = load(make_request("torchvision:net"))
    assert (network.weights.kind, network.weights.top1_percent) == ("imagenet", 61.5)
    assert network.weights.labels == ("a", "b", "c", "d", "e")
    assert (network.weights.trained_resolution, network.weights.sha256[:8]) == (24, digits)


def test_torchvision_without_a_network_or_with_other_classes(stand_ins: Path) -> None:
    with pytest.raises(ConfigError, match="has no network 'nett'") as caught:
        load(make_request("torchvision:nett"))
    assert "net" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="their own classes"):
        load(make_request("torchvision:net", classes=3))
    with pytest.raises(WeightsError, match="publishes no SHA-256"):  # DIGITS are none
        load(make_request("torchvision:net"))


def test_timm_says_its_input_and_preparation(stand_ins: Path) -> None:
    network = load(make_request("timm:net", weights="random"))
    assert network.input_shape == (1, 3, 20, 28)
    assert network.weights.preprocess.crop == (20, 28)
    network = load(make_request("timm:net", weights="random", input_shape="1,3,32,32"))
    assert network.input_shape == (1, 3, 32, 32)


def test_timm_with_a_checkpoint(stand_ins: Path, tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "mine.pth")
    network = load(make_request("timm:net", weights=tmp_path / "mine.pth"))
    assert (network.weights.kind, network.weights.file_name) == ("file", "mine.pth")


@pytest.mark.parametrize("intact", [True, False])
def test_weights_from_the_hub_are_held_to_their_sha256(stand_ins: Path, tmp_path: Path, intact: bool) -> None:
    import safetensors.torch

    safetensors.torch.save_file(trained(), tmp_path / "model.safetensors")
    blob = tmp_path / hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    shutil.move(tmp_path / "model.safetensors", blob)
    if not intact:
        blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    (tmp_path / "model.safetensors").symlink_to(blob)
    (stand_ins / "huggingface_hub.py").write_text(
        f"def hf_hub_download(repository, name): return {str(tmp_path)!r} + '/' + name\n"
    )
    if intact:
        network = load(make_request("timm:net"))
        assert (network.weights.kind, network.weights.description) == (
            "imagenet",
            "weights of timm (timm/net)",
        )
    else:
        with pytest.raises(WeightsError, match="has not the SHA-256"):
            load(make_request("timm:net"))


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match="timm"):
        load(make_request("timm:resnet18"))


def test_a_library_that_does_not_import(stand_ins: Path) -> None:
    (stand_ins / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(MissingDependency, match="does not import: operator torchvision::nms") as caught:
        library._import("timm")
    assert ".onnx" in str(caught.value.hint)

"""From what a user types to which network is meant, and what is refused before anything is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import ConfigError
from edgecnn.source.recipes import RECIPES, read_recipe
from edgecnn.source.request import make_request
from edgecnn.spec import Preprocess


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "my net.py").write_text("def make(): ...\n")
    return str(tmp_path / "my net.py")


def test_a_zoo_name_means_its_variant() -> None:
    request = make_request("mobilenet", width=0.5, resolution=160, classes=7, in_channels=1)
    assert (request.kind, request.name, request.weights) == ("zoo", "mobilenet_v2", "imagenet")
    assert request.variant == "mobilenet_v2-0.5-160-7classes-1channels"
    assert request.input_shape == (1, 1, 160, 160)
    assert make_request("lenet").variant == "lenet5-1.0-32"


@pytest.mark.parametrize(
    ("model", "options", "kind", "name", "variant"),
    [
        ("torchvision:resnet18", {}, "torchvision", "resnet18", "torchvision_resnet18"),
        ("timm:mixnet_s", {"classes": 3}, "timm", "mixnet_s", "timm_mixnet_s-3classes"),
        ("a/b/My net.onnx", {}, "onnx", "a/b/My net.onnx", "My_net"),
        ("net.onnx", {"input_shape": "1,3,96,160"}, "onnx", "net.onnx", "net-96x160"),
        ("net.onnx", {"input_shape": (1, 3, 64, 64)}, "onnx", "net.onnx", "net-64"),
        ("...onnx", {}, "onnx", "...onnx", "model"),
        ("NET.ONNX", {}, "onnx", "NET.ONNX", "NET"),
        ("网络.onnx", {}, "onnx", "网络.onnx", "网络"),
    ],
)
def test_other_sources(model: str, options: dict[str, Any], kind: str, name: str, variant: str) -> None:
    request = make_request(model, **options)
    assert (request.kind, request.name, request.variant) == (kind, name, variant)


def test_a_function_in_a_file(net: str) -> None:
    request = make_request(f"{net}:make", input_shape="1x3x32x32")
    assert (request.kind, request.name, request.function) == ("factory", net, "make")
    assert (request.variant, request.weights) == ("my_net_make-32", "own")


@pytest.mark.parametrize(
    ("model", "options", "complaint", "advice"),
    [
        ("resnet81", {}, "unknown model 'resnet81'", "resnet18"),
        ("tim:resnet18", {}, "unknown source 'tim:'", "timm"),
        ("resnet18", {"input_shape": "1,3,224,224"}, "resnet18 has no --input-shape", "--resolution"),
        ("net.onnx", {"width": 0.5}, "net.onnx has no --width", "only the zoo"),
        ("net.onnx", {"resolution": 64}, "net.onnx has no --resolution", "--input-shape"),
        ("net.onnx", {"weights": "random"}, "net.onnx has no --weights", "has its own"),
        ("net.onnx", {"classes": 5}, "net.onnx has no --classes", "what the file says"),
        (5, {}, "not passed as a int", "factory"),
        ("timm:a", {"in_channels": 1}, "timm:a has no --in-channels", "--input-shape"),
        ("no/such/file.py:make", {"input_shape": "1,3,8,8"}, "there is no file no/such/file.py", ""),
        ("net.py", {}, "which function of net.py", "net.py:"),
        ("net.onnx", {"input_shape": "1,3,224"}, "'1,3,224' is no input shape", "1,3,224,224"),
        ("net.onnx", {"input_shape": "1,3,0,224"}, "is no input shape", "four numbers"),
        ("net.onnx", {"input_shape": "1,3,-5,224"}, "is no input shape", "four numbers"),
        ("net.onnx", {"input_shape": "1,3,a,224"}, "is no input shape", "four numbers"),
        ("net.onnx", {"input_shape": "1,3,9000,9000"}, "is no input shape", "8192"),
        ("net.onnx", {"input_shape": "8,3,32,32"}, "a batch of 8 cannot be", "1,C,H,W"),
        ("lenet5", {"preprocess": "signd"}, "unknown preprocessing 'signd'", "signed"),
        ("lenet5", {"classes": 0}, "cannot have 0 classes", "from 1"),
        ("lenet5", {"in_channels": -1}, "cannot have -1 input channels", "from 1"),
    ],
)
def test_what_cannot_be_is_refused(model: str, options: dict[str, Any], complaint: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_request(model, **options)
    assert complaint in str(caught.value)
    assert advice in str(caught.value.hint or "")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_text("")
    with pytest.raises(ConfigError, match="a file of an unknown kind"):
        make_request(tmp_path / "net.tflite")


def test_a_factory_needs_a_shape_and_has_weights(net: str) -> None:
    with pytest.raises(ConfigError, match="which input") as caught:
        make_request(f"{net}:make")
    assert "--input-shape 1,3,224,224" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="has the weights that its function gives it"):
        make_request(f"{net}:make", input_shape="1,3,8,8", weights="random")
    with pytest.raises(ConfigError, match="no name of a function"):
        make_request(f"{net}:make()", input_shape="1,3,8,8")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mobilenet", {"width": 0.5, "weights": "random", "classes": 4}),
        ("torchvision:resnet18", {"input_shape": (1, 3, 64, 96), "weights": "random", "classes": 4}),
        ("net.onnx", {"preprocess": "unit"}),
    ],
)
def test_its_words_ask_for_the_same_network_again(model: str, options: dict[str, Any]) -> None:
    request = make_request(model, **options)
    name, *words = request.options
    again: dict[str, Any] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        key = option.removeprefix("--").replace("-", "_")
        numbers = {"width": float, "resolution": int, "classes": int, "in_channels": int}
        again[key] = numbers.get(key, str)(value)
    assert make_request(name, **again).variant == request.variant
    assert make_request(name, **again).preprocess == request.preprocess
    assert make_request(name, **again).weights == request.weights


def test_deciding_imports_no_framework() -> None:
    code = (
        "import sys; from edgecnn.source.request import make_request; make_request('vgg16')\n"
        "print(*{'torch', 'numpy', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    recipe = Preprocess(40, (32, 48), (0.1,), (0.2,), "bicubic")
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(recipe.to_json()))
    assert read_recipe(str(path)) == recipe
    assert read_recipe("raw") is RECIPES["raw"]


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 20},
        {"resize": "32"},
        {"crop": [32]},
        {"crop": [0, 32]},
        {"mean": []},
        {"mean": [float("nan")]},
        {"std": [0.0]},
        {"std": [1.0, 1.0]},
        {"interpolation": "nearest"},
        {"extra": 1},
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(Preprocess(32, (32, 32), (0.1,), (0.2,)).to_json() | change))
    with pytest.raises(ConfigError, match="is no preprocessing"):
        read_recipe(str(path))


def test_a_recipe_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_recipe(str(path))
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_recipe(str(tmp_path / "none.json"))

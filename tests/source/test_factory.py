"""A function in the user's own file: what it may return, and what is said where it does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from edgecnn.cli import run
from edgecnn.errors import ConfigError, ConversionError, WeightsError
from edgecnn.source.load import load
from edgecnn.source.request import make_request

NET = """
from torch import nn
from beside import CLASSES

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, CLASSES))

class Net(nn.Module): pass
NUMBER = 3
def number(): return 3
def the_class(): return Net
def broken():
    return 1 / 0
def needs(argument): return make()
def leaves(): raise SystemExit(0)
def noisy():
    print("noise")
    return make()
def named_nearly(): return make()
def half():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).half()
        def forward(self, x): return self.conv(x.half()).mean((2, 3))
    return Half()
def double():
    class Double(nn.Module):
        def forward(self, x): return x.double().mean((2, 3)).float()
    return Double()
def chance():
    import torch
    class Chance(nn.Module):
        def forward(self, x): return (x * torch.rand(1, 3, 8, 8)).mean((2, 3))
    return Chance()
def sequence():
    return nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3))
def leaves_later():
    class Leaves(nn.Module):
        def forward(self, x): raise SystemExit(3)
    return Leaves()
def two_outputs():
    class Two(nn.Module):
        def forward(self, x): return x + 1, x * 2
    return Two()
def no_graph():
    class Odd(nn.Module):
        def forward(self, x): return nn.functional.unfold(x.fft(), 3)
    return Odd()
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("CLASSES = 5\n")
    return str(tmp_path / "net.py")


def test_its_network_is_exported_as_it_is(file: str) -> None:
    network = load(make_request(f"{file}:make", input_shape="1,3,20,30"))
    assert network.graph.output.shape == (1, 5)
    assert network.input_shape == (1, 3, 20, 30)
    assert network.weights.kind == "own"
    assert network.weights.preprocess.crop == (20, 30)
    assert network.params == 3 * 4 * 9 + 4 + 4 * 5 + 5


def test_a_checkpoint_may_be_loaded_into_it(file: str, tmp_path: Path) -> None:
    state = {
        "0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4), "4.weight": torch.ones(5, 4),
        "4.bias": torch.arange(5.0),
    }  # fmt: skip
    torch.save(state, tmp_path / "w.pth")
    network = load(make_request(f"{file}:make", input_shape="1,3,8,8", weights=tmp_path / "w.pth"))
    [logits] = network.original()(torch.zeros(1, 3, 8, 8).numpy())
    assert logits[0].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0]
    torch.save({"0.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        load(make_request(f"{file}:make", input_shape="1,3,8,8", weights=tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("nothing", "has no function 'nothing'"),
        ("NUMBER", "has no function 'NUMBER'"),
        ("number", "returns a int"),
        ("the_class", "returns a class"),
        ("broken", "failed in line 14: ZeroDivisionError: division by zero"),
        ("leaves", "failed in line 16: SystemExit: 0"),
        ("needs", "failed: TypeError"),
    ],
)
def test_anything_else_is_refused(file: str, function: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(make_request(f"{file}:{function}", input_shape="1,3,8,8"))
    assert complaint in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", ["def make(:\n", "import no_such_module_here\n", "raise SystemError('x')\n"]
)
def test_a_file_that_does_not_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "net.py").write_text(content)
    with pytest.raises(ConfigError, match="failed in line 1"):
        load(make_request(f"{tmp_path}/net.py:make", input_shape="1,3,8,8"))


def test_a_name_that_is_nearly_right(file: str) -> None:
    with pytest.raises(ConfigError, match="has no function 'named_neerly'") as caught:
        load(make_request(f"{file}:named_neerly", input_shape="1,3,8,8"))
    assert "named_nearly" in str(caught.value.hint)


def test_weights_drawn_at_random_are_the_same_each_time(file: str) -> None:
    request = make_request(f"{file}:make", input_shape="1,3,8,8")
    torch.manual_seed(1)
    first = load(request).graph.digest
    torch.manual_seed(2)
    assert load(request).graph.digest == first


def test_what_the_file_prints_is_no_result(
    file: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["edgecnn", "inspect", f"{file}:noisy", "--input-shape", "1,3,8,8", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    assert run() == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["params"] == 3 * 4 * 9 + 4 + 4 * 5 + 5
    assert "noise" in err


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("half", "computes in float16"),
        ("double", "computes in float64"),
        ("chance", "1 x Random"),
        ("sequence", "works on 3 dimensions"),
        ("leaves_later", "torch cannot export"),
    ],
)
def test_networks_that_edge_targets_cannot_have(file: str, function: str, complaint: str) -> None:
    with pytest.raises(ConversionError) as caught:
        load(make_request(f"{file}:{function}", input_shape="1,3,8,8"))
    assert complaint in str(caught.value)
    assert caught.value.hint


def test_networks_that_cannot_be_exported(file: str) -> None:
    with pytest.raises(ConversionError, match="2 outputs"):
        load(make_request(f"{file}:two_outputs", input_shape="1,3,8,8"))
    with pytest.raises(ConversionError, match="torch cannot export"):
        load(make_request(f"{file}:no_graph", input_shape="1,3,8,8"))

"""Of several int8 graphs the best is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn.check import lowered_graph
from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import constant
from edgecnn.quantize import quantize as module
from edgecnn.quantize.form import with_biases
from edgecnn.quantize.quantize import quantize
from edgecnn.quantize.ranges import Ranges


@pytest.fixture(scope="module")
def graph() -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 16, 5),
        )  # fmt: skip
        return export(network, "net", (1, 3, 8, 8))


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(8)]


def spoilt(ranges: Ranges) -> Ranges:
    return Ranges(
        ranges.activations, ranges.channels, {name: bias + 1 for name, bias in ranges.biases.items()}
    )


def test_a_bias_correction_that_harms_is_left_out(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    find_ranges = module.find_ranges
    monkeypatch.setattr(module, "find_ranges", lambda *args, **named: spoilt(find_ranges(*args, **named)))
    assert lowered_graph(graph, quantize(graph, images()), images(), "images").value > 20


def test_a_bias_correction_that_helps_is_taken(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's own biases are off by one, and the correction knows the right ones."""
    right = {
        str(node.name): np.asarray(constant(node.inputs[2]))
        for node in graph.model.graph
        if node.op_type in ("Conv", "Gemm")
    }
    find_ranges = module.find_ranges

    def corrected(*args: object, **named: object) -> Ranges:
        ranges = find_ranges(*args, **named)  # type: ignore[arg-type]
        return Ranges(ranges.activations, ranges.channels, right)

    monkeypatch.setattr(module, "find_ranges", corrected)
    monkeypatch.setattr(
        module, "round_weights", lambda g: with_biases(g, {name: bias + 1 for name, bias in right.items()})
    )
    assert lowered_graph(graph, quantize(graph, images()), images(), "images").value > 15


def test_with_biases_leaves_the_graph_as_it_was(graph: Graph) -> None:
    before = Graph(graph.copy(), "fp32").serialized
    gemm = next(str(node.name) for node in graph.model.graph if node.op_type == "Gemm")
    changed = with_biases(graph, {gemm: np.zeros(5, np.float32), "no such": np.ones(1, np.float32)})
    [node] = [node for node in changed.model.graph if node.name == gemm]
    assert not np.any(constant(node.inputs[2]))
    assert Graph(graph.copy(), "fp32").serialized == before

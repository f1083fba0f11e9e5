"""Corrected biases give layers with other weights the mean output that they had."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.quantize.biases import correct_biases

CONV = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2)),
    nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2),
    nn.Conv2d(4, 8, 3, groups=4),
    nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 7, 5)),
]


def disturbed(graph: Graph) -> Graph:
    """The graph with other weights."""
    model = graph.copy()
    rng = np.random.default_rng(0)
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm"):
            weight = constant(node.inputs[1])
            assert weight is not None
            assert node.inputs[1] is not None
            noisy = (weight + 0.1 * rng.normal(size=weight.shape)).astype(np.float32)
            node.inputs[1].const_value = ir.tensor(noisy, name=node.inputs[1].name)
    return Graph(model, "fp32")


@pytest.mark.parametrize("index", range(len(CONV)))
def test_the_mean_output_comes_back(index: int) -> None:
    """For channels that are constant over the map the correction is exact, padding included."""
    torch.manual_seed(0)
    graph = export(CONV[index], "net", (1, 4, 9, 7))
    [node] = [node for node in graph.model.graph if node.op_type in ("Conv", "Gemm")]
    means = np.array([1.0, -2.0, 0.5, 3.0])
    x = np.broadcast_to(means.reshape(1, 4, 1, 1), (1, 4, 9, 7)).astype(np.float32)
    if node.op_type == "Gemm":
        means = x.reshape(-1)
    changed = disturbed(graph)
    corrected = correct_biases(changed, graph, {str(node.inputs[0].name): means})  # type: ignore[union-attr]

    def mean_output(of: Graph) -> np.ndarray:
        output = load_reference(of)(x)[0]
        mean: np.ndarray = output.reshape(output.shape[1], -1).mean(axis=1)
        return mean

    assert np.abs(mean_output(changed) - mean_output(graph)).max() > 0.1
    assert mean_output(corrected) == pytest.approx(mean_output(graph), abs=1e-4)


def test_layers_with_the_weights_they_had_keep_their_biases() -> None:
    graph = export(nn.Conv2d(4, 6, 3), "net", (1, 4, 9, 7))
    assert correct_biases(graph, graph, {"input": np.ones(4)}).serialized == graph.serialized

"""Multiply-accumulates and parameters, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.rewrite import constant


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a float graph costs for one input."""

    name: str
    """The node's name."""
    op_type: str
    """ONNX's operator name."""
    macs: int
    """Multiply-accumulates; 0 for layers that have no weights. FLOPs, where printed, are twice as many."""
    params: int
    """Weights and biases."""
    output_shape: tuple[int, ...]
    """NCHW for feature maps."""


def layer_costs(graph: Graph) -> list[LayerCost]:
    """The cost of every node of a canonical float graph, in execution order.

    Conv: output elements x (input channels / groups) x kernel height x kernel width. Gemm: outputs x inputs.
    """
    costs = []
    for node in graph.model.graph:
        shape = shape_of(node.outputs[0])
        macs = params = 0
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
            assert weight is not None
            assert bias is not None
            per_output = math.prod(weight.shape[1:])
            macs, params = math.prod(shape) * per_output, weight.size + bias.size
        costs.append(LayerCost(str(node.name), node.op_type, macs, params, shape))
    return costs

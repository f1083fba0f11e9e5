"""Operators that treat each channel on its own, as the depthwise convolutions that they are, for int8.

What runtimes do with integers in a depthwise convolution is one and the same; what they do in rarer
operators is not, or they have no integer kernel for them at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite.edit import initializer, replace
from edgecnn.graph.rewrite.linear import affine_of


def batch_norms_as_convs(graph: Graph) -> Graph:
    """The same float graph with every BatchNormalization as a depthwise 1 x 1 Conv with a bias.

    Its weights lose nothing in int8: one scale a channel for one weight a channel.
    """
    if not any(node.op_type == "BatchNormalization" for node in graph.model.graph):
        return graph
    model = graph.copy()
    for node in list(model.graph):
        affine = affine_of(node) if node.op_type == "BatchNormalization" else None
        if affine is not None:
            weight = affine.scale.astype(np.float32).reshape(-1, 1, 1, 1)
            as_depthwise(model.graph, node, weight, affine.offset.astype(np.float32), (1, 1))
    return Graph(model, graph.precision)


def as_depthwise(
    graph: ir.Graph, node: ir.Node, weight: np.ndarray, bias: np.ndarray, strides: Sequence[int]
) -> None:
    """Put a depthwise Conv in a node's place.

    Args:
        graph: the graph that holds the node.
        node: reads one feature map and gives one.
        weight: (channels, 1, height, width), float32.
        bias: (channels,), float32.
        strides: of height and width.
    """
    inputs = [
        node.inputs[0],
        initializer(graph, f"{node.name}.weight", weight),
        initializer(graph, f"{node.name}.bias", bias),
    ]
    attributes: dict[str, int | Sequence[int]] = {
        "group": len(weight),
        "kernel_shape": weight.shape[2:],
        "strides": strides,
    }
    read = node.inputs[1:]
    replace(graph, node, ir.node("Conv", inputs, attributes, name=node.name))
    for value in read:
        if value is not None and not value.uses():
            graph.initializers.pop(str(value.name), None)

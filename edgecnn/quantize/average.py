"""AveragePool as the depthwise convolution that it is, for int8.

One in four integer averages over a 2 x 2 window falls on a tie, and runtimes break ties differently: ONNX to
the even integer, TFLite away from zero. The difference is an eighth of a step, all in one direction, which
the layers behind it add up (LeNet-5: 2.5 steps at the output). TFLite also allows the output no scale of its
own, although averages have a narrower range than what they are taken of. A convolution has neither fault,
and every runtime executes it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.quantize.depthwise import as_depthwise


def average_pools_as_convs(graph: Graph) -> Graph:
    """The same float graph with every AveragePool that divides by one number everywhere as a depthwise Conv.

    One that leaves out padding, or reaches over the end in ceil mode, stays.
    """
    if not any(node.op_type == "AveragePool" for node in graph.model.graph):
        return graph
    model = graph.copy()
    for node in list(model.graph):
        if node.op_type == "AveragePool" and _divides_by_one_number(node):
            x, kernel = node.inputs[0], tuple(node.attributes.get_ints("kernel_shape", ()))
            assert x is not None
            channels = shape_of(x)[1]
            weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
            strides = tuple(node.attributes.get_ints("strides", (1, 1)))
            as_depthwise(model.graph, node, weight, np.zeros(channels, np.float32), strides)
    return Graph(model, graph.precision)


def _divides_by_one_number(node: ir.Node) -> bool:
    x, kernel = node.inputs[0], node.attributes.get_ints("kernel_shape", ())
    if x is None or len(shape_of(x)) != 4 or any(node.attributes.get_ints("pads", ())):
        return False
    strides = node.attributes.get_ints("strides", (1, 1))
    sizes = zip(shape_of(x)[2:], shape_of(node.outputs[0])[2:], kernel, strides, strict=True)
    return all((out - 1) * stride + length <= size for size, out, length, stride in sizes)

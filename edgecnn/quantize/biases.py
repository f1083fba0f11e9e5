"""Biases that make up for the mean shift that the rounding of weights causes.

A layer whose weights W became W' shifts its mean output by (W' - W) E[x], channel by channel, which its bias
can take back (Nagel et al. 2019, arXiv:1906.04721, section 4.2, with E[x] from calibration images).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.quantize.groups import WEIGHTED


def correct_biases(rounded: Graph, exact: Graph, means: Mapping[str, np.ndarray]) -> Graph:
    """The graph with rounded weights and with biases that give each layer the mean output it had.

    Args:
        rounded: float graph whose weights lie on their grid; it stays as it is.
        exact: the same graph with the weights as they were.
        means: mean of each channel, (C,), of the tensors that Conv and Gemm read.
    """
    model = rounded.copy()
    nodes = {str(node.name): node for node in exact.model.graph}
    for node in model.graph:
        if node.op_type not in WEIGHTED:
            continue
        before, after = constant(nodes[str(node.name)].inputs[1]), constant(node.inputs[1])
        bias, x = constant(node.inputs[2]), node.inputs[0]
        mean = means.get(str(x.name)) if x is not None else None
        if before is None or after is None or bias is None or mean is None or np.array_equal(before, after):
            continue
        shift = _mean_output(node, before - after, mean.astype(np.float32))
        corrected = (bias + shift).astype(np.float32)
        node.replace_input_with(2, initializer(model.graph, f"{node.name}.bias", corrected))
    return Graph(model, rounded.precision)


def _mean_output(node: ir.Node, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The mean of each output channel, (out,), for inputs whose channels have these means everywhere."""
    if node.op_type == "Gemm":
        output: np.ndarray = weight @ mean
        return output
    seen = weight * _coverage(node)
    outputs, inputs = weight.shape[:2]
    group = np.arange(outputs) // (outputs // node.attributes.get_int("group", 1))
    by_input: np.ndarray = mean[group[:, None] * inputs + np.arange(inputs)]
    result: np.ndarray = (seen.sum(axis=(2, 3)) * by_input).sum(axis=1)
    return result


def _coverage(node: ir.Node) -> np.ndarray:
    """The share of output positions at which each tap of a kernel, (kh, kw), meets the input, not padding."""
    x, weight = node.inputs[0], constant(node.inputs[1])
    assert x is not None
    assert weight is not None
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    strides = node.attributes.get_ints("strides", (1, 1))
    dilations = node.attributes.get_ints("dilations", (1, 1))
    shares = []
    for axis in (0, 1):
        positions = np.arange(shape_of(node.outputs[0])[2 + axis]) * strides[axis] - pads[axis]
        taps = np.arange(weight.shape[2 + axis])[:, None] * dilations[axis]
        meets = (positions + taps >= 0) & (positions + taps < shape_of(x)[2 + axis])
        shares.append(meets.mean(axis=1))
    coverage: np.ndarray = np.outer(*shares)
    return coverage

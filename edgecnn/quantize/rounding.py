"""Rounding of weights that keeps their sums, so that a layer's mean output stays where it was.

Rounding each weight to its nearest step leaves errors that add up over a kernel. Behind a ReLU inputs are
positive and neighbouring pixels alike, so the sum of a kernel's errors is what shifts the output. Rounding
the fewest weights to their second-nearest step makes every sum right to half a step: the constrained absolute
sum of error of SQuant (arXiv 2202.07471), which needs no data and no training.

For MobileNetV2 it raises the int8 network's SQNR by 1.5 dB; benchmarks/int8_quality.py measures it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import constant

_LARGEST = 127
_SMALLEST = 2.0**-16
_AT_ONCE = 2**22


def round_weights(graph: Graph) -> Graph:
    """The same float graph with the weights of every Conv and Gemm on their int8 grid.

    The grid is symmetric, one scale an output channel (``weight_scales``). Sums are kept over each k x k
    kernel of a spatial convolution, and over all inputs of a 1 x 1 convolution or dense layer.
    """
    model = graph.copy()
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        value = node.inputs[1]
        weight = constant(value)
        if value is not None and weight is not None and value.is_initializer():
            value.const_value = ir.tensor(_rounded(weight), name=value.name)
    return Graph(model, graph.precision)


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """The int8 scale of each output channel of weights (out, ...): its largest magnitude / 127, float32.

    Channels that are dead or all but dead get ``_SMALLEST`` of the layer's largest scale: requantisation
    multiplies by input scale x weight scale / output scale, and XNNPACK takes no factor below 2**-32.
    """
    scales: np.ndarray = (np.abs(weight).reshape(weight.shape[0], -1).max(axis=1) / _LARGEST).astype(
        np.float32
    )
    largest = scales.max()
    return np.maximum(scales, np.float32(largest * _SMALLEST)) if largest > 0 else np.ones_like(scales)


def _rounded(weight: np.ndarray) -> np.ndarray:
    """Weights (out, in, kh, kw) or (out, in), moved to their grid."""
    channels = weight.reshape(weight.shape[0], -1)
    scale = weight_scales(weight)[:, None]
    exact = channels / scale
    kernel = int(np.prod(weight.shape[2:]))
    rows = (-1, kernel) if kernel > 1 else exact.shape
    stored = keep_sums(exact.reshape(rows)).reshape(exact.shape)
    rounded: np.ndarray = (stored * scale).reshape(weight.shape).astype(np.float32)
    return rounded


def keep_sums(exact: np.ndarray) -> np.ndarray:
    """Round each row of ``exact`` to integers whose sum is within half of the row's sum.

    Only the weights that were nearest to the other integer move; those of the largest magnitude, which
    define the scale, stay.
    """
    # A few rows at a time: the first dense layer of a VGG has 100 million weights.
    rows = max(_AT_ONCE // max(exact.shape[1], 1), 1)
    parts = [_keep_sums(exact[start : start + rows]) for start in range(0, len(exact), rows)]
    return np.concatenate(parts) if parts else exact


def _keep_sums(exact: np.ndarray) -> np.ndarray:
    stored: np.ndarray = np.rint(exact)
    error = exact - stored
    surplus = np.rint(error.sum(axis=1))
    wrong = np.flatnonzero(surplus)
    if not wrong.size:
        return stored
    direction = np.sign(surplus[wrong])[:, None]
    gain = direction * error[wrong]
    gain[(np.abs(stored[wrong]) >= _LARGEST) | (gain <= 0)] = -np.inf
    # The weights to move are those that gain most; of equal ones, the first.
    count = np.abs(surplus[wrong]).astype(int)
    most = count.max()
    highest = -np.sort(np.partition(-gain, most - 1, axis=1)[:, :most], axis=1)
    least = highest[np.arange(len(wrong)), count - 1, None]
    certain, tied = gain > least, gain == least
    left = count[:, None] - certain.sum(axis=1, keepdims=True)
    moves = (certain | (tied & (np.cumsum(tied, axis=1) <= left))) & np.isfinite(gain)
    stored[wrong] += moves * direction
    return stored

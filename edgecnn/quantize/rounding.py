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
from edgecnn.quantize.saturation import safe_scales
from edgecnn.quantize.scheme import DEFAULT, Scheme

_SMALLEST = 2.0**-16
_AT_ONCE = 2**22


def round_weights(graph: Graph, scheme: Scheme = DEFAULT) -> Graph:
    """The same float graph with the weights of every Conv and Gemm on their integer grid.

    The grid is the scheme's (``weight_scales``); the weights of layers that stay in float stay as they are.
    Sums are kept over each k x k kernel of a spatial convolution, and over all inputs of a 1 x 1 convolution
    or dense layer.
    """
    model = graph.copy()
    for node in model.graph:
        name = str(node.name)
        if node.op_type not in ("Conv", "Gemm") or name in scheme.float_layers:
            continue
        value = node.inputs[1]
        weight = constant(value)
        if value is not None and weight is not None and value.is_initializer():
            value.const_value = ir.tensor(_rounded(weight, scheme, name), name=value.name)
    return Graph(model, graph.precision)


def largest_weight(bits: int) -> int:
    """The largest integer of symmetric weights: 127 with 8 bits, 63 with 7."""
    return int(2 ** (bits - 1)) - 1


def weight_scales(weight: np.ndarray, scheme: Scheme = DEFAULT, node: str = "") -> np.ndarray:
    """The scale of each output channel of weights (out, ...): its largest magnitude / 127, float32.

    With 7 bits it is / 63; with one scale a tensor all channels have the scale of the largest; where the node
    is one of ``scheme.portable_layers``, scales are such that no pair of products saturates. Channels that
    are dead or all but dead get ``_SMALLEST`` of the layer's largest scale: requantisation multiplies by
    input scale x weight scale / output scale, and XNNPACK takes no factor below 2**-32.
    """
    rows = weight.reshape(weight.shape[0], -1)
    highest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    scales: np.ndarray = (highest / largest_weight(scheme.weight_bits)).astype(np.float32)
    if node in scheme.portable_layers:
        scales = np.maximum(scales, safe_scales(weight))
    largest = scales.max()
    if not largest > 0:
        return np.ones_like(scales)
    least = largest * _SMALLEST if scheme.per_channel else largest
    raised: np.ndarray = np.maximum(scales, np.float32(least))
    return raised


def _rounded(weight: np.ndarray, scheme: Scheme, node: str) -> np.ndarray:
    """Weights (out, in, kh, kw) or (out, in), moved to their grid."""
    channels = weight.reshape(weight.shape[0], -1)
    scale = weight_scales(weight, scheme, node)[:, None]
    kernel = int(np.prod(weight.shape[2:]))
    rounded = np.empty(channels.shape, np.float32)
    # A few channels at a time: the first dense layer of a VGG has 100 million weights.
    step = max(_AT_ONCE // max(channels.shape[1], 1), 1)
    for start in range(0, len(channels), step):
        part = slice(start, start + step)
        exact = channels[part] / scale[part]
        rows = exact.reshape(-1, kernel) if kernel > 1 else exact
        stored = keep_sums(rows, largest_weight(scheme.weight_bits)).reshape(exact.shape)
        rounded[part] = stored * scale[part]
    return rounded.reshape(weight.shape)


def keep_sums(exact: np.ndarray, largest: int = 127) -> np.ndarray:
    """Round each row of ``exact`` to integers whose sum is within half of the row's sum.

    Only the weights that were nearest to the other integer move; those of the ``largest`` magnitude, which
    define the scale, stay.
    """
    stored: np.ndarray = np.rint(exact)
    error = exact - stored
    surplus = np.rint(error.sum(axis=1))
    wrong = np.flatnonzero(surplus)
    if not wrong.size:
        return stored
    direction = np.sign(surplus[wrong])[:, None]
    gain = direction * error[wrong]
    gain[(np.abs(stored[wrong]) >= largest) | (gain <= 0)] = -np.inf
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

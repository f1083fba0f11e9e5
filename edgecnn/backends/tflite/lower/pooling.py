"""MaxPool, AveragePool, GlobalAveragePool, ReduceMean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.context import NCHW_TO_NHWC, Context, first, nhwc, unsupported
from edgecnn.backends.tflite.lower.window import padded_input
from edgecnn.graph.operators import Operator


def max_pool(context: Context, operator: Operator) -> None:
    """MAX_POOL_2D; where its padding is not SAME, PADV2 with the lowest value in front.

    0 is as low as any value behind a Relu, and PAD with 0 is in XNNPACK.
    """
    kernel, strides = _window(operator)
    x = first(operator)
    stored_from_0 = x.zero_point is not None and not x.zero_point.any()
    lowest = 0.0 if stored_from_0 or x.name in context.nonnegative else -math.inf
    source, padding = padded_input(context, operator, kernel, strides, (1, 1), value=lowest)
    _pool(context, operator, "MAX_POOL_2D", source, context.tensor(operator.outputs[0]), padding)


def average_pool(context: Context, operator: Operator) -> None:
    """AVERAGE_POOL_2D, whose SAME leaves padding out of the count, as the canonical AveragePool does.

    Any other padding is zeros in front of a VALID window; where ONNX counts fewer than kernel-size elements
    the quotient is corrected by a constant factor.
    """
    kernel, strides = _window(operator)
    result = operator.outputs[0]
    counts = _counts(operator, kernel, strides)
    source, padding = padded_input(context, operator, kernel, strides, (1, 1))
    if padding == schema.Padding.SAME or np.all(counts == kernel[0] * kernel[1]):
        _pool(context, operator, "AVERAGE_POOL_2D", source, context.tensor(result), padding)
        return
    pooled = context.like(result, f"{operator.name}:pooled", nhwc(result.shape))
    _pool(context, operator, "AVERAGE_POOL_2D", source, pooled, padding)
    factors = (kernel[0] * kernel[1] / counts).astype(np.float32)[None, :, :, None]
    factors = np.broadcast_to(factors, nhwc(result.shape)).copy()
    correction = context.constant(f"{operator.name}:correction", factors)
    context.add("MUL", [pooled, correction], [context.tensor(result)], schema.MulOptionsT(), operator.name)


def global_average_pool(context: Context, operator: Operator) -> None:
    """MEAN over height and width, which are kept with size 1."""
    _mean(context, operator, (2, 3))


def reduce_mean(context: Context, operator: Operator) -> None:
    """MEAN over the axes of the canonical form, which keeps them with size 1."""
    rank = len(first(operator).shape)
    if not operator.attributes.get("keepdims", 1) or len(operator.inputs) > 1:
        raise unsupported(operator, "it is not in the canonical form with its axes kept")
    _mean(context, operator, [axis % rank for axis in operator.attributes.get("axes", range(rank))])


def _mean(context: Context, operator: Operator, axes: Sequence[int]) -> None:
    if len(first(operator).shape) == 4:
        axes = sorted(NCHW_TO_NHWC.index(axis) for axis in axes)
    options = schema.ReducerOptionsT()
    options.keepDims = True
    inputs = [
        context.tensor(first(operator)),
        context.constant(f"{operator.name}:axes", np.asarray(axes, np.int32)),
    ]
    context.add("MEAN", inputs, [context.tensor(operator.outputs[0])], options, operator.name)


def _window(operator: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    attributes = operator.attributes
    kernel = tuple(attributes["kernel_shape"])
    if len(kernel) != 2:
        raise unsupported(operator, f"it is {len(kernel)}-dimensional; only 2-dimensional ones are known")
    if max(attributes.get("dilations", (1,))) > 1:
        raise unsupported(operator, "its window is dilated")
    if len(operator.outputs) > 1:
        raise unsupported(operator, "it gives indices")
    strides = tuple(attributes.get("strides", (1, 1)))
    return (kernel[0], kernel[1]), (strides[0], strides[1])


def _pool(context: Context, operator: Operator, code: str, source: int, result: int, padding: int) -> None:
    kernel, strides = _window(operator)
    options = schema.Pool2DOptionsT()
    options.padding = padding
    options.filterHeight, options.filterWidth = kernel
    options.strideH, options.strideW = strides
    context.add(code, [source], [result], options, operator.name)


def _counts(operator: Operator, kernel: tuple[int, int], strides: tuple[int, int]) -> np.ndarray:
    """How many elements ONNX divides by, for each output position (height, width)."""
    top, left, _, _ = operator.attributes.get("pads", (0, 0, 0, 0))
    sides = []
    for axis, before in enumerate((top, left)):
        size, out = first(operator).shape[2 + axis], operator.outputs[0].shape[2 + axis]
        start = np.arange(out) * strides[axis] - before
        sides.append(np.minimum(start + kernel[axis], size) - np.maximum(start, 0))
    return np.outer(sides[0], sides[1])

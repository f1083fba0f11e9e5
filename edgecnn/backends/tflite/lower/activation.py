"""Relu, Clip, LeakyRelu, Sigmoid, Tanh, Softmax, HardSwish, and activations fused into arithmetic."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.context import Context, data_of, first, nhwc, unsupported
from edgecnn.graph.operators import Operand, Operator

_FUSED = {
    (0.0, math.inf): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
    (-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
}
_ALONE = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@contextlib.contextmanager
def fused(context: Context, operator: Operator, result: Operand) -> Iterator[tuple[int, int]]:
    """The tensor an arithmetic operation writes and its fused activation.

    Bounds that TFLite cannot fuse are applied by operations of their own, appended on leaving.
    """
    limits = operator.activation
    if limits is None:
        yield context.tensor(result), schema.ActivationFunctionType.NONE
    elif limits in _FUSED:
        yield context.tensor(result), _FUSED[limits]
    else:
        before = context.like(result, f"{operator.name}:unclipped", nhwc(result.shape))
        yield before, schema.ActivationFunctionType.NONE
        _bound(context, operator, before, result, limits)


def relu(context: Context, operator: Operator) -> None:
    """RELU, in int8 MUL."""
    _bound(context, operator, context.tensor(first(operator)), operator.outputs[0], (0.0, math.inf))


def clip(context: Context, operator: Operator) -> None:
    """RELU6 and its relatives, in int8 MUL; or MAXIMUM and MINIMUM with constants."""
    _bound(context, operator, context.tensor(first(operator)), operator.outputs[0], bounds(operator))


def bounds(operator: Operator) -> tuple[float, float]:
    """Lower and upper bound of a Clip, infinite where there is none."""
    limits = [-math.inf, math.inf]
    for position in (1, 2):
        if len(operator.inputs) > position and operator.inputs[position] is not None:
            limits[position - 1] = float(data_of(operator, position, "bound").real)
    return limits[0], limits[1]


def leaky_relu(context: Context, operator: Operator) -> None:
    """LEAKY_RELU."""
    options = schema.LeakyReluOptionsT()
    options.alpha = float(operator.attributes.get("alpha", 0.01))
    _unary(context, operator, "LEAKY_RELU", options)


def sigmoid(context: Context, operator: Operator) -> None:
    """LOGISTIC."""
    _unary(context, operator, "LOGISTIC", None)


def tanh(context: Context, operator: Operator) -> None:
    """TANH."""
    _unary(context, operator, "TANH", None)


def hard_swish(context: Context, operator: Operator) -> None:
    """HARD_SWISH: x * relu6(x + 3) / 6 (arXiv 1905.02244)."""
    _unary(context, operator, "HARD_SWISH", schema.HardSwishOptionsT())


def softmax(context: Context, operator: Operator) -> None:
    """SOFTMAX, which TFLite computes along the last axis: in NHWC, ONNX's axis 1 of a rank-4 tensor."""
    rank = len(first(operator).shape)
    axis = int(operator.attributes.get("axis", -1)) % rank
    if axis != (1 if rank == 4 else rank - 1):
        raise unsupported(operator, f"axis {axis} of {rank} is not its last in TFLite's layout")
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    _unary(context, operator, "SOFTMAX", options)


def _unary(context: Context, operator: Operator, code: str, options: object) -> None:
    source, result = context.tensor(first(operator)), context.tensor(operator.outputs[0])
    context.add(code, [source], [result], options, operator.name)


def _times_one(
    context: Context, operator: Operator, source: int, result: Operand, limits: tuple[float, float]
) -> None:
    """A bound in int8: MUL by 1 with the activation fused, from the input's scale to the result's.

    XNNPACK has no int8 RELU; its MUL is faster than TFLite's RELU (Xception at 160: 1.9 against 4.5 ms).
    """
    one = Operand("", (), np.dtype(np.uint8), np.asarray([1.0], np.float32), np.asarray([0], np.uint8))
    factor = context.constant(f"{operator.name}:one", np.asarray([1], np.uint8), one)
    options = schema.MulOptionsT()
    options.fusedActivationFunction = _FUSED[limits]
    context.add("MUL", [source, factor], [context.tensor(result)], options, operator.name)


def _bound(
    context: Context, operator: Operator, source: int, result: Operand, limits: tuple[float, float]
) -> None:
    if limits in _FUSED and result.scale is not None:
        _times_one(context, operator, source, result, limits)
        return
    if limits in _ALONE:
        context.add(_ALONE[limits], [source], [context.tensor(result)], None, operator.name)
        return
    steps = [("MAXIMUM", limits[0]), ("MINIMUM", limits[1])]
    steps = [(code, value) for code, value in steps if math.isfinite(value)]
    if not steps:
        raise unsupported(operator, "it has no bound")
    shape = context.model.tensors[source].shape
    if result.scale is not None and not context.same_scale(source, result):
        # MAXIMUM and MINIMUM do not rescale.
        rescaled = context.like(result, f"{operator.name}:rescaled", shape)
        context.add("QUANTIZE", [source], [rescaled], schema.QuantizeOptionsT(), operator.name)
        source = rescaled
    for position, (code, value) in enumerate(steps):
        last = position == len(steps) - 1
        target = context.tensor(result) if last else context.like(result, f"{operator.name}:{code}", shape)
        if result.scale is None or result.zero_point is None:
            limit = context.constant(f"{operator.name}:{code}:limit", np.asarray([value], np.float32))
        else:
            stored = np.clip(np.rint(value / result.scale) + result.zero_point, 0, 255).astype(np.uint8)
            limit = context.constant(f"{operator.name}:{code}:limit", stored, result)
        context.add(code, [source, limit], [target], schema.MaximumMinimumOptionsT(), operator.name)
        source = target

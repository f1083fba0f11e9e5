"""Relu, Clip, Sigmoid, Tanh, Softmax, HardSwish, and activations fused into arithmetic."""

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
    bounds = operator.activation
    if bounds is None:
        yield context.tensor(result), schema.ActivationFunctionType.NONE
    elif bounds in _FUSED:
        yield context.tensor(result), _FUSED[bounds]
    else:
        before = context.like(result, f"{operator.name}:unclipped", nhwc(result.shape))
        yield before, schema.ActivationFunctionType.NONE
        _bound(context, operator, before, result, bounds)


def relu(context: Context, operator: Operator) -> None:
    """RELU."""
    _bound(context, operator, context.tensor(first(operator)), operator.outputs[0], (0.0, math.inf))


def clip(context: Context, operator: Operator) -> None:
    """RELU6 and its relatives, or MAXIMUM and MINIMUM with constants."""
    bounds = [-math.inf, math.inf]
    for position in (1, 2):
        if len(operator.inputs) > position and operator.inputs[position] is not None:
            bounds[position - 1] = float(data_of(operator, position, "bound").real)
    source = context.tensor(first(operator))
    _bound(context, operator, source, operator.outputs[0], (bounds[0], bounds[1]))


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


def _bound(
    context: Context, operator: Operator, source: int, result: Operand, bounds: tuple[float, float]
) -> None:
    if bounds in _ALONE:
        context.add(_ALONE[bounds], [source], [context.tensor(result)], None, operator.name)
        return
    steps = [("MAXIMUM", bounds[0]), ("MINIMUM", bounds[1])]
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

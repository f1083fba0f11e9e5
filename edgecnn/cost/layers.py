"""Arithmetic and weights of one operator.

MACs are those of convolutions and matrix products. What else is computed counts as other operations: an
addition, subtraction, multiplication, division or comparison is one, and so is one exponential, power or
hyperbolic tangent. Padding is computed with, like everything else: a window at the border counts in full.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgecnn.cost.memory import COPIES, VIEWS

if TYPE_CHECKING:
    from edgecnn.graph.operators import Operator

POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})

# Operations for each output element.
PER_ELEMENT = {
    "Add": 1,
    "Sub": 1,
    "Mul": 1,
    "Div": 1,
    "BatchNormalization": 2,  # a multiplication and an addition, its statistics folded into them
    "Relu": 1,
    "LeakyRelu": 2,  # comparison, multiplication
    "HardSwish": 5,  # x * min(max(x + 3, 0), 6) / 6
    "HardSigmoid": 4,  # min(max(alpha * x + beta, 0), 1)
    "Sigmoid": 4,  # 1 / (1 + exp(-x))
    "Tanh": 1,
}


class Window(NamedTuple):
    """A convolution's or pooling's window, one entry for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    """Rows and columns of padding in front of the first."""


class Weights(NamedTuple):
    """How many values an operator stores."""

    factors: int
    """Multiplied with activations; int8 when quantised."""
    biases: int
    """Added to sums; int32 when quantised."""


def window(op: Operator) -> Window | None:
    """The window of a Conv or pooling operator, None for every other."""
    x = op.inputs[0]
    if x is None or op.op_type not in POOLS | {"Conv"}:
        return None
    axes = len(x.shape) - 2
    if op.op_type == "GlobalAveragePool":
        return Window(x.shape[2:], (1,) * axes, (1,) * axes, (0,) * axes)
    weight = op.inputs[1] if op.op_type == "Conv" else None
    kernel = weight.shape[2:] if weight is not None else tuple(op.attributes["kernel_shape"])
    stride = tuple(op.attributes.get("strides", (1,) * axes))
    dilation = tuple(op.attributes.get("dilations", (1,) * axes))
    placed = op.attributes.get("auto_pad", "NOTSET")
    if placed not in ("SAME_UPPER", "SAME_LOWER"):
        pads = tuple(op.attributes.get("pads", (0,) * 2 * axes))[:axes]
        return Window(kernel, stride, dilation, pads)
    lacking = [
        max(0, (outputs - 1) * step + (taps - 1) * gap + 1 - inputs)
        for outputs, step, taps, gap, inputs in zip(
            op.outputs[0].shape[2:], stride, kernel, dilation, x.shape[2:], strict=True
        )
    ]
    odd_in_front = placed == "SAME_LOWER"
    return Window(kernel, stride, dilation, tuple((count + odd_in_front) // 2 for count in lacking))


def macs(op: Operator) -> int:
    """Multiply-accumulates.

    Conv: output elements x input channels of a group x kernel height x kernel width. Gemm and MatMul: output
    elements x inputs of each. A bias starts the sum and adds no MAC.
    """
    if op.op_type not in _PRODUCTS:
        return 0
    x, weight = op.inputs[0], op.inputs[1]
    assert x is not None
    assert weight is not None
    terms = math.prod(weight.shape[1:]) if op.op_type == "Conv" else x.shape[-1]
    return math.prod(op.outputs[0].shape) * terms


def other_ops(op: Operator) -> int | None:
    """Operations beside the MACs, a fused activation's included; None for an operator that is not known."""
    elements = math.prod(op.outputs[0].shape)
    own = _own_ops(op, elements)
    return None if own is None else own + elements * _bounds(op.activation or ())


def _own_ops(op: Operator, elements: int) -> int | None:
    if op.op_type in _PRODUCTS | VIEWS | COPIES:
        return 0
    if op.op_type in PER_ELEMENT:
        return elements * PER_ELEMENT[op.op_type]
    if op.op_type in POOLS:
        found = window(op)
        assert found is not None
        # An average is a sum and a division; a maximum has one comparison less than values.
        return elements * (math.prod(found.kernel) - (op.op_type == "MaxPool"))
    if op.op_type == "ReduceMean" and op.inputs[0] is not None:
        return math.prod(op.inputs[0].shape)  # the same, over any axes
    if op.op_type == "Clip":
        limits = [limit.data for limit in op.inputs[1:] if limit is not None]
        return elements * _bounds(tuple(float(limit.item()) for limit in limits if limit is not None))
    if op.op_type == "LRN":
        # x / (k + alpha / n * sum of n squares) ** beta: a square, n - 1 additions, one more, a
        # multiplication, a power, a division.
        return elements * (int(op.attributes["size"]) + 4)
    if op.op_type == "Softmax":
        # Of n values: n - 1 comparisons, n subtractions, n exponentials, n - 1 additions, n divisions.
        shape = op.outputs[0].shape
        return 5 * elements - 2 * (elements // shape[int(op.attributes.get("axis", -1))])
    return None


def _bounds(limits: tuple[float, ...]) -> int:
    """How many comparisons a Clip with these limits makes."""
    return sum(math.isfinite(limit) for limit in limits)


def activation(op: Operator) -> str | None:
    """ONNX's name of the activation fused into an operator."""
    if op.activation is None:
        return None
    return "Relu" if op.activation == (0.0, math.inf) else "Clip"


def weights(op: Operator) -> Weights:
    """How many values an operator stores, None of them counted where they only say how it works.

    Conv, Gemm: weight and bias. BatchNormalization: scale and shift, into which its statistics are folded.
    Add, Sub, Mul, Div, MatMul: an operand that is constant.
    """
    sizes = [0 if operand is None or operand.data is None else operand.data.size for operand in op.inputs]
    if op.op_type in ("Conv", "Gemm"):
        return Weights(sizes[1], sum(sizes[2:]))
    if op.op_type == "BatchNormalization":
        return Weights(sizes[1], sizes[2])
    if op.op_type in ("Add", "Sub", "Mul", "Div", "MatMul"):
        return Weights(sum(sizes), 0)
    return Weights(0, 0)

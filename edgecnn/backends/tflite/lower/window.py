"""Padding of sliding windows.

TFLite knows two paddings: VALID (none) and SAME (output = ceil(input / stride), the odd row or column of
padding at the end). Every other padding is a PAD operation in front of a VALID window; XNNPACK folds it in.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.context import Context, first, nhwc, unsupported
from edgecnn.graph.operators import Operator

Pads = tuple[tuple[int, int], tuple[int, int]]


def padded_input(
    context: Context,
    operator: Operator,
    kernel: tuple[int, int],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    value: float = 0.0,
) -> tuple[int, int]:
    """The tensor a window operation reads, and its padding option.

    Args:
        context: the model being filled.
        operator: a Conv or pooling operator.
        kernel: height and width.
        strides: of height and width.
        dilations: of height and width.
        value: the real value that padding stands for; -inf for the lowest.
    """
    pads = explicit_pads(operator, kernel, strides, dilations)
    x = first(operator)
    if not np.any(pads):
        return context.tensor(x), schema.Padding.VALID
    if pads == same_pads(x.shape[2:], kernel, strides, dilations):
        return context.tensor(x), schema.Padding.SAME
    return pad(context, operator, ((0, 0), *pads, (0, 0)), value), schema.Padding.VALID


def explicit_pads(
    operator: Operator, kernel: tuple[int, int], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Pads:
    """Rows and columns to add before and after, so that a VALID window gives the operator's output shape.

    Beyond the ``pads`` attribute that is what ``ceil_mode`` reaches over the end.
    """
    if operator.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        raise unsupported(operator, f"auto_pad is {operator.attributes['auto_pad']!r}; give explicit pads")
    top, left, bottom, right = operator.attributes.get("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0:
        raise unsupported(operator, "it has negative padding")
    sides = []
    for axis, (before, after) in enumerate(((top, bottom), (left, right))):
        size, out = first(operator).shape[2 + axis], operator.outputs[0].shape[2 + axis]
        reach = (out - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        # A window that stops short of the padded end leaves rows unread; VALID does the same.
        sides.append(
            (before, max(after, reach - size - before) if operator.attributes.get("ceil_mode") else after)
        )
    return sides[0], sides[1]


def same_pads(
    size: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Pads:
    """The padding that TensorFlow's SAME means for this window."""
    sides = []
    for axis in (0, 1):
        out = -(-size[axis] // strides[axis])
        total = max((out - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size[axis], 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def pad(
    context: Context,
    operator: Operator,
    pads: tuple[tuple[int, int], ...],
    value: float,
    result: int | None = None,
) -> int:
    """A PAD (value 0) or PADV2 operation on the operator's first input; ``pads`` in TFLite's layout.

    int8 PAD fills with the zero point, which is the real value 0. Gives the index of the padded tensor: the
    one in ``result``, or a new one.
    """
    x = first(operator)
    if result is None:
        shape = tuple(size + sum(side) for size, side in zip(nhwc(x.shape), pads, strict=True))
        result = context.like(x, f"{operator.name}:padded", shape)
    amounts = context.constant(f"{operator.name}:pads", np.asarray(pads, np.int32))
    if value == 0.0:
        context.add("PAD", [context.tensor(x), amounts], [result], schema.PadOptionsT(), operator.name)
        return result
    if x.scale is None or x.zero_point is None:
        lowest = np.finfo(np.float32).min
        fill = context.constant(f"{operator.name}:fill", np.asarray([max(value, lowest)], np.float32))
    else:
        stored = np.clip(np.rint(value / x.scale + x.zero_point), 0, 255).astype(np.uint8)
        fill = context.constant(f"{operator.name}:fill", stored, x)
    context.add("PADV2", [context.tensor(x), amounts, fill], [result], schema.PadV2OptionsT(), operator.name)
    return result

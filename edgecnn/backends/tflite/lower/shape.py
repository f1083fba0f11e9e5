"""Concat, Reshape, Flatten, Transpose, Pad, Slice."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower import window
from edgecnn.backends.tflite.lower.context import (
    NCHW_TO_NHWC,
    NHWC_TO_NCHW,
    Context,
    data_of,
    first,
    nhwc,
    unsupported,
)
from edgecnn.graph.operators import Operand, Operator


def concat(context: Context, operator: Operator) -> None:
    """CONCATENATION along the same axis in TFLite's layout."""
    result = operator.outputs[0]
    rank = len(result.shape)
    axis = int(operator.attributes["axis"]) % rank
    options = schema.ConcatenationOptionsT()
    options.axis = NCHW_TO_NHWC.index(axis) if rank == 4 else axis
    inputs = []
    for operand in operator.inputs:
        assert operand is not None
        if operand.data is None:
            inputs.append(context.tensor(operand))
        else:
            values = operand.data.transpose(NCHW_TO_NHWC) if rank == 4 else operand.data
            inputs.append(context.weight(operand, operator.name, values))
    context.add("CONCATENATION", inputs, [context.tensor(result)], options, operator.name)


def reshape(context: Context, operator: Operator) -> None:
    """RESHAPE, between transpositions where the order of elements depends on the layout.

    It does not where height and width are 1, or where there is one channel.
    """
    x, result = first(operator), operator.outputs[0]
    source = context.tensor(x)
    if len(x.shape) == 4 and not _layout_free(x.shape):
        source = _transposed(context, operator, x, source, NHWC_TO_NCHW)
    if len(result.shape) != 4 or _layout_free(result.shape):
        _reshape(context, operator, source, context.tensor(result), nhwc(result.shape))
        return
    reshaped = context.like(result, f"{operator.name}:nchw", result.shape)
    _reshape(context, operator, source, reshaped, result.shape)
    _transpose(context, operator, reshaped, context.tensor(result), NCHW_TO_NHWC)


def transpose(context: Context, operator: Operator) -> None:
    """TRANSPOSE, with the permutation carried over to TFLite's layout."""
    x, result = first(operator), operator.outputs[0]
    rank = len(x.shape)
    permutation = tuple(operator.attributes.get("perm", tuple(range(rank))[::-1]))
    if rank == 4:
        # NHWC position i holds ONNX axis NCHW_TO_NHWC[i] of the result, which is axis perm[...] of the input.
        permutation = tuple(NCHW_TO_NHWC.index(permutation[axis]) for axis in NCHW_TO_NHWC)
    _transpose(context, operator, context.tensor(x), context.tensor(result), permutation)


def pad(context: Context, operator: Operator) -> None:
    """PAD with a constant."""
    if operator.attributes.get("mode", "constant") not in ("constant", b"constant"):
        raise unsupported(
            operator, f"its mode is {operator.attributes['mode']!r}; only constant padding is known"
        )
    if len(operator.inputs) > 3 and operator.inputs[3] is not None:
        raise unsupported(operator, "it names axes")
    x = first(operator)
    rank = len(x.shape)
    amounts = data_of(operator, 1, "padding").real.astype(int)
    if amounts.min() < 0:
        raise unsupported(operator, "it has negative padding")
    pads = [(int(amounts[axis]), int(amounts[axis + rank])) for axis in range(rank)]
    if rank == 4:
        pads = [pads[axis] for axis in NCHW_TO_NHWC]
    value = 0.0
    if len(operator.inputs) > 2 and operator.inputs[2] is not None:
        value = float(data_of(operator, 2, "value").real)
    window.pad(context, operator, tuple(pads), value, context.tensor(operator.outputs[0]))


def slice_(context: Context, operator: Operator) -> None:
    """SLICE, or STRIDED_SLICE where it leaves values out."""
    x, result = first(operator), operator.outputs[0]
    starts, _, axes, steps = (
        data_of(operator, position, role).real.astype(int).tolist()
        for position, role in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))
    )
    if min(steps) < 1:
        raise unsupported(operator, "it runs backwards")
    rank = len(x.shape)
    begin, stride = [0] * rank, [1] * rank
    for axis, start, step in zip(axes, starts, steps, strict=True):
        begin[axis], stride[axis] = start, step
    size = list(result.shape)
    if rank == 4:
        begin, stride, size = ([values[axis] for axis in NCHW_TO_NHWC] for values in (begin, stride, size))
    end = [start + (count - 1) * step + 1 for start, count, step in zip(begin, size, stride, strict=True)]
    strided = set(stride) != {1}
    parameters = (
        (("begin", begin), ("end", end), ("strides", stride))
        if strided
        else (("begin", begin), ("size", size))
    )
    inputs = [
        context.constant(f"{operator.name}:{role}", np.asarray(values, np.int32))
        for role, values in parameters
    ]
    code, options = (
        ("STRIDED_SLICE", schema.StridedSliceOptionsT()) if strided else ("SLICE", schema.SliceOptionsT())
    )
    context.add(code, [context.tensor(x), *inputs], [context.tensor(result)], options, operator.name)


def channel_shuffle(context: Context, operator: Operator) -> None:
    """RESHAPE, TRANSPOSE, RESHAPE of the last axis: channels as rows of a table, read by columns.

    ``operator`` stands for the Reshape, Transpose and Reshape of the graph (``shuffle.merged``).
    """
    x, result = first(operator), operator.outputs[0]
    _, height, width, channels = nhwc(x.shape)
    groups = int(operator.attributes["groups"])
    table, columns = (
        (1, height, width, groups, channels // groups),
        (1, height, width, channels // groups, groups),
    )
    split = context.like(x, f"{operator.name}:split", table)
    swapped = context.like(x, f"{operator.name}:swapped", columns)
    _reshape(context, operator, context.tensor(x), split, table)
    _transpose(context, operator, split, swapped, (0, 1, 2, 4, 3))
    _reshape(context, operator, swapped, context.tensor(result), nhwc(result.shape))


def _layout_free(shape: tuple[int, ...]) -> bool:
    return shape[1] == 1 or shape[2] * shape[3] == 1


def _transposed(
    context: Context, operator: Operator, operand: Operand, source: int, permutation: tuple[int, ...]
) -> int:
    shape = context.model.tensors[source].shape
    result = context.like(operand, f"{operator.name}:nchw_input", tuple(shape[axis] for axis in permutation))
    _transpose(context, operator, source, result, permutation)
    return result


def _transpose(
    context: Context, operator: Operator, source: int, result: int, permutation: tuple[int, ...]
) -> None:
    order = context.constant(f"{operator.name}:permutation", np.asarray(permutation, np.int32))
    context.add("TRANSPOSE", [source, order], [result], schema.TransposeOptionsT(), operator.name)


def _reshape(context: Context, operator: Operator, source: int, result: int, shape: tuple[int, ...]) -> None:
    target = context.constant(f"{operator.name}:shape", np.asarray(shape, np.int32))
    options = schema.ReshapeOptionsT()
    options.newShape = list(shape)
    context.add("RESHAPE", [source, target], [result], options, operator.name)

"""Operators of the canonical graph to TFLite operations, one function an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgecnn.backends.tflite.flatbuffer import Model
from edgecnn.backends.tflite.lower import (
    activation,
    arithmetic,
    convolution,
    normalization,
    pooling,
    quantization,
    shape,
    shuffle,
)
from edgecnn.backends.tflite.lower.context import Context
from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FLOAT_ISLANDS, Operand, Operator, census, operators
from edgecnn.quantize.groups import FIXED_OUTPUT

LOWERINGS: dict[str, Callable[[Context, Operator], None]] = {
    "Add": arithmetic.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalization.batch_normalization,
    "Clip": activation.clip,
    "Concat": shape.concat,
    "Conv": convolution.conv,
    "DequantizeLinear": quantization.dequantize,
    "Flatten": shape.reshape,
    "Gemm": convolution.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "HardSwish": activation.hard_swish,
    "LRN": normalization.local_response_normalization,
    "LeakyRelu": activation.leaky_relu,
    "MaxPool": pooling.max_pool,
    "Mul": arithmetic.mul,
    "Pad": shape.pad,
    "QuantizeLinear": quantization.quantize,
    "ReduceMean": pooling.reduce_mean,
    "Relu": activation.relu,
    "Reshape": shape.reshape,
    "Sigmoid": activation.sigmoid,
    "Slice": shape.slice_,
    "Softmax": activation.softmax,
    "Sub": arithmetic.sub,
    "Tanh": activation.tanh,
    "Transpose": shape.transpose,
}


# XNNPACK has a float kernel for these and no int8 one. To float and back takes less than TFLite's own int8
# kernel (MobileNetV3-Large: 1.4 ms instead of 5.6), and rounds as the QDQ graph does.
_FASTER_IN_FLOAT = frozenset({"AveragePool", "HardSwish"})


def lower(graph: Graph) -> Model:
    """The TFLite model of a canonical graph, float or QDQ.

    Raises:
        ConversionError: operators that have no lowering, all with their number and the first with its node;
            or a form of one that has none.
    """
    context = Context()
    context.add_input(str(graph.input.name), graph)
    found = operators(graph)
    unknown = [(operator.op_type, operator.name) for operator in found if operator.op_type not in LOWERINGS]
    if unknown:
        raise ConversionError(
            f"TFLite has no lowering for {census(unknown)}",
            hint=f"known operators: {', '.join(sorted(LOWERINGS))}",
        )
    for operator in shuffle.merged(found):
        if operator.op_type == "ChannelShuffle":
            shape.channel_shuffle(context, operator)
        elif operator.op_type in FLOAT_ISLANDS | _FASTER_IN_FLOAT or _is_off_its_grid(operator):
            _in_float(context, operator)
        else:
            LOWERINGS[operator.op_type](context, operator)
        if _is_nonnegative(context, operator):
            context.nonnegative |= {operand.name for operand in operator.outputs}
    context.set_output(str(graph.output.name))
    return context.model


def _is_off_its_grid(operator: Operator) -> bool:
    """Whether an int8 output has other parameters than the only ones that TFLite's kernel gives.

    edgecnn's own quantisation never does that; files that were quantised elsewhere do.
    """
    fixed, output = FIXED_OUTPUT.get(operator.op_type), operator.outputs[0]
    if fixed is None or output.scale is None or output.zero_point is None:
        return False
    return (float(output.scale[0]), int(output.zero_point[0])) != fixed


def _in_float(context: Context, operator: Operator) -> None:
    """An operator without an integer kernel: where its operands are int8, between DEQUANTIZE and QUANTIZE."""
    inputs = tuple(operand and _float(operand) for operand in operator.inputs)
    outputs = tuple(_float(operand) for operand in operator.outputs)
    for stored, real in zip(operator.inputs, inputs, strict=True):
        if stored is not None and real is not None and stored is not real and stored.data is None:
            quantization.to_float(context, stored, real, operator.name)
    LOWERINGS[operator.op_type](context, replace(operator, inputs=inputs, outputs=outputs))
    for stored, real in zip(operator.outputs, outputs, strict=True):
        if stored is not real:
            quantization.to_int8(context, real, stored, operator.name)


def _is_nonnegative(context: Context, operator: Operator) -> bool:
    """Whether an operator's output has no value below 0."""
    if operator.activation is not None:
        return operator.activation[0] >= 0
    if operator.op_type == "Clip":
        return activation.bounds(operator)[0] >= 0
    if operator.op_type in ("Concat", "MaxPool", "ChannelShuffle", "Slice", "DequantizeLinear"):
        moved = operator.inputs if operator.op_type == "Concat" else operator.inputs[:1]
        return all(operand is not None and operand.name in context.nonnegative for operand in moved)
    return operator.op_type in ("Relu", "Sigmoid", "Softmax")


def _float(operand: Operand) -> Operand:
    """The float32 tensor of an activation that is stored in int8; any other operand as it is."""
    if operand.scale is None or operand.data is not None:
        return operand
    return Operand(f"{operand.name}:float", operand.shape, np.dtype(np.float32))

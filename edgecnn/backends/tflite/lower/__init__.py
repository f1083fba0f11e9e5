"""Operators of the canonical graph to TFLite operations, one function an operator."""

from __future__ import annotations

from collections.abc import Callable

from edgecnn.backends.tflite.flatbuffer import Model
from edgecnn.backends.tflite.lower import activation, arithmetic, convolution, pooling, quantization, shape
from edgecnn.backends.tflite.lower.context import Context
from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import Operator, operators

LOWERINGS: dict[str, Callable[[Context, Operator], None]] = {
    "Add": arithmetic.add,
    "AveragePool": pooling.average_pool,
    "Clip": activation.clip,
    "Concat": shape.concat,
    "Conv": convolution.conv,
    "DequantizeLinear": quantization.dequantize,
    "Flatten": shape.reshape,
    "Gemm": convolution.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "HardSwish": activation.hard_swish,
    "MaxPool": pooling.max_pool,
    "Mul": arithmetic.mul,
    "Pad": shape.pad,
    "QuantizeLinear": quantization.quantize,
    "Relu": activation.relu,
    "Reshape": shape.reshape,
    "Sigmoid": activation.sigmoid,
    "Softmax": activation.softmax,
    "Sub": arithmetic.sub,
    "Tanh": activation.tanh,
    "Transpose": shape.transpose,
}


def lower(graph: Graph) -> Model:
    """The TFLite model of a canonical graph, float or QDQ.

    Raises:
        ConversionError: an operator, or a form of it, that has no lowering; it names the operator, its node
            and what is known.
    """
    context = Context()
    context.add_input(str(graph.input.name), graph)
    for operator in operators(graph):
        if operator.op_type not in LOWERINGS:
            raise ConversionError(
                f"TFLite has no lowering for {operator.op_type} (node '{operator.name}')",
                hint=f"known operators: {', '.join(sorted(LOWERINGS))}",
            )
        LOWERINGS[operator.op_type](context, operator)
    context.set_output(str(graph.output.name))
    return context.model

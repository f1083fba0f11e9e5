"""QuantizeLinear and DequantizeLinear where a value changes form: at the edges, or between two scales."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.context import Context, first
from edgecnn.graph.operators import Operand, Operator


def quantize(context: Context, operator: Operator) -> None:
    """QUANTIZE: float32 to int8, or int8 to int8 of another scale."""
    to_int8(context, first(operator), operator.outputs[0], operator.name)


def dequantize(context: Context, operator: Operator) -> None:
    """DEQUANTIZE: int8 to float32."""
    to_float(context, first(operator), operator.outputs[0], operator.name)


def to_int8(context: Context, source: Operand, result: Operand, node: str) -> None:
    """QUANTIZE of one tensor into another."""
    inputs, outputs = [context.tensor(source)], [context.tensor(result)]
    context.add("QUANTIZE", inputs, outputs, schema.QuantizeOptionsT(), node)


def to_float(context: Context, source: Operand, result: Operand, node: str) -> None:
    """DEQUANTIZE of one tensor into another."""
    inputs, outputs = [context.tensor(source)], [context.tensor(result)]
    context.add("DEQUANTIZE", inputs, outputs, schema.DequantizeOptionsT(), node)

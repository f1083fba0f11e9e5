"""QuantizeLinear and DequantizeLinear where a value changes form: at the edges, or between two scales."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.context import Context, first
from edgecnn.graph.operators import Operator


def quantize(context: Context, operator: Operator) -> None:
    """QUANTIZE: float32 to int8, or int8 to int8 of another scale."""
    source, result = context.tensor(first(operator)), context.tensor(operator.outputs[0])
    context.add("QUANTIZE", [source], [result], schema.QuantizeOptionsT(), operator.name)


def dequantize(context: Context, operator: Operator) -> None:
    """DEQUANTIZE: int8 to float32."""
    source, result = context.tensor(first(operator)), context.tensor(operator.outputs[0])
    context.add("DEQUANTIZE", [source], [result], schema.DequantizeOptionsT(), operator.name)

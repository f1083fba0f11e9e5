"""Add, Sub, Mul, with broadcasting and constant operands."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.activation import fused
from edgecnn.backends.tflite.lower.context import NCHW_TO_NHWC, Context, unsupported
from edgecnn.graph.operators import Operand, Operator


def add(context: Context, operator: Operator) -> None:
    """ADD."""
    _binary(context, operator, "ADD", schema.AddOptionsT())


def sub(context: Context, operator: Operator) -> None:
    """SUB."""
    _binary(context, operator, "SUB", schema.SubOptionsT())


def mul(context: Context, operator: Operator) -> None:
    """MUL."""
    _binary(context, operator, "MUL", schema.MulOptionsT())


def _binary(context: Context, operator: Operator, code: str, options: Any) -> None:
    rank = len(operator.outputs[0].shape)
    inputs = [
        _operand(context, operator, operand, rank) for operand in operator.inputs if operand is not None
    ]
    with fused(context, operator, operator.outputs[0]) as (output, activation):
        options.fusedActivationFunction = activation
        context.add(code, inputs, [output], options, operator.name)


def _operand(context: Context, operator: Operator, operand: Operand, rank: int) -> int:
    """An operand whose shape broadcasts in TFLite's layout as it does in ONNX's."""
    if operand.data is None:
        if rank == 4 and len(operand.shape) not in (0, 4):
            raise unsupported(
                operator, f"'{operand.name}' of rank {len(operand.shape)} is broadcast to rank 4"
            )
        return context.tensor(operand)
    values = operand.data
    if rank == 4 and values.ndim:
        values = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(NCHW_TO_NHWC)
    return context.weight(operand, operator.name, values)

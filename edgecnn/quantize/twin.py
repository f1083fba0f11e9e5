"""The float network behind a QDQ graph."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from edgecnn.graph.from_onnx.quantized import parameters
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FUSES_ACTIVATION, clip_bounds
from edgecnn.graph.rewrite import canonicalize, constant, initializer
from edgecnn.graph.rewrite.edit import operand
from edgecnn.quantize.form import Quant

# Operators whose result is never negative where no operand is.
_KEEP_SIGN = frozenset(
    {
        "Add", "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Pad", "ReduceMean",
        "Reshape", "Slice", "Transpose",
    }
)  # fmt: skip
_RELU6 = 6.0


def float_twin(qdq: Graph) -> Graph:
    """The canonical fp32 graph of a canonical QDQ graph: no rounding of activations, dequantised weights.

    A zero point at the end of the range cuts off at 0. Where the operator in front of it can give the other
    sign, that was a Relu, and is one again: Clip to [0, 6] where the range ends there.
    """
    model = qdq.copy()
    graph = model.graph
    name = str(qdq.output.name)
    positive = nonnegative(graph)
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            _drop_pair(graph, node, positive)
        elif node.op_type == "DequantizeLinear" and (stored := constant(node.inputs[0])) is not None:
            real = initializer(graph, str(node.outputs[0].name), _dequantized(node, stored))
            ir.convenience.replace_all_uses_with(node.outputs[0], real)
            graph.remove(node, safe=True)
    graph.outputs[0].name = name
    return canonicalize(Graph(model, "fp32"))


def restored_activation(
    value: ir.Value, quant: Quant, positive: Collection[ir.Value]
) -> tuple[str, float, float] | None:
    """Operator and bounds of the activation that a zero point stands for; None where it stands for none.

    Args:
        value: what is quantised.
        quant: by which parameters.
        positive: tensors that are never negative.
    """
    producer = value.producer()
    if producer is None or producer.op_type not in FUSES_ACTIVATION or value in positive:
        return None
    if quant.zero_point == 255:
        return "Clip", -math.inf, 0.0
    if quant.zero_point != 0:
        return None
    return (
        ("Clip", 0.0, _RELU6) if abs(255 * quant.scale - _RELU6) <= quant.scale else ("Relu", 0.0, math.inf)
    )


def nonnegative(graph: ir.Graph) -> set[ir.Value]:
    """Tensors that hold no value below 0, whatever the image is."""
    found: set[ir.Value] = set()

    def is_positive(value: ir.Value | None) -> bool:
        array = constant(value)
        return value in found if array is None else array.dtype.kind == "f" and array.min(initial=0) >= 0

    for node in graph:
        holds = False
        if node.op_type == "DequantizeLinear":
            holds = _is_nonnegative(node)
        elif node.op_type in ("Relu", "Clip"):
            holds = clip_bounds(node)[0] >= 0
        elif node.op_type in ("Sigmoid", "Softmax"):
            holds = True
        elif node.op_type in ("Conv", "Gemm"):
            holds = all(is_positive(value) for value in node.inputs if value is not None)
        elif node.op_type in _KEEP_SIGN:
            data = node.inputs if node.op_type in ("Add", "Concat", "Mul") else node.inputs[:1]
            fill = constant(operand(node, 2)) if node.op_type == "Pad" else None
            holds = all(map(is_positive, data)) and (fill is None or bool(fill.min() >= 0))
        if holds:
            found |= set(node.outputs)
    return found


def _is_nonnegative(dequantize: ir.Node) -> bool:
    """Whether a DequantizeLinear gives no value below 0."""
    stored, zero_point = constant(dequantize.inputs[0]), constant(operand(dequantize, 2))
    if stored is None:
        return parameters(dequantize)[1] == 0
    return zero_point is not None and bool(_shifted(dequantize, stored, zero_point).min(initial=0) >= 0)


def _drop_pair(graph: ir.Graph, quantize: ir.Node, positive: Collection[ir.Value]) -> None:
    """Connect what is quantised to the readers of its dequantised values, by an activation if one is due."""
    source = quantize.inputs[0]
    scale, zero_point = constant(quantize.inputs[1]), constant(quantize.inputs[2])
    assert source is not None
    assert scale is not None
    assert zero_point is not None
    activation = restored_activation(source, Quant(float(scale), int(zero_point)), positive)
    [dequantize] = quantize.outputs[0].consumers()
    result = dequantize.outputs[0]
    graph_output = result.is_graph_output()
    if activation is not None:
        source = _activated(graph, source, quantize, *activation)
    ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=graph_output)
    graph.remove([dequantize, quantize], safe=True)


def _activated(
    graph: ir.Graph, source: ir.Value, before: ir.Node, op_type: str, low: float, high: float
) -> ir.Value:
    """A Relu or Clip of a tensor, which takes over the tensor's name where that is not its node's."""
    producer = source.producer()
    assert producer is not None
    name = str(source.name)
    if name == producer.name:
        name = f"{name}/{op_type}"
    bounds = [
        initializer(graph, f"{name}.{role}", np.asarray(bound, np.float32)) if math.isfinite(bound) else None
        for role, bound in (("low", low), ("high", high))
    ]
    node = ir.node(op_type, [source, *(bounds if op_type == "Clip" else [])], name=name)
    result = node.outputs[0]
    source.name, result.name = f"{name}:unbounded", name
    result.shape, result.type = source.shape, source.type
    graph.insert_before(before, node)
    return result


def _dequantized(node: ir.Node, stored: np.ndarray) -> np.ndarray:
    """The values of a constant behind a DequantizeLinear, float32."""
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    assert scale is not None
    assert zero_point is not None
    real: np.ndarray = _shifted(node, stored, zero_point) * _along(node, stored, scale)
    return real.astype(np.float32)


def _shifted(node: ir.Node, stored: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = stored.astype(np.float32) - _along(node, stored, zero_point).astype(np.float32)
    return shifted


def _along(node: ir.Node, stored: np.ndarray, parameter: np.ndarray) -> np.ndarray:
    """A scale or zero point in a shape that broadcasts to what it belongs to."""
    if parameter.size == 1:
        return parameter.reshape(())
    shape = [1] * stored.ndim
    shape[node.attributes.get_int("axis", 1)] = -1
    return parameter.reshape(shape)

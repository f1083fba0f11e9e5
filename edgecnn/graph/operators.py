"""A graph as a back end reads it: operators on operands, with the Q/DQ pairs turned into operand parameters.

In a QDQ graph the arithmetic nodes work on float tensors between DequantizeLinear and QuantizeLinear. A
runtime executes them on integers. ``operators`` gives that view, for float graphs and QDQ graphs alike, and
for those where some layers compute in float between the others' integers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.rewrite import constant

# Nodes that can carry a Relu or Clip that is their output's only consumer.
FUSES_ACTIVATION = frozenset({"Add", "BatchNormalization", "Conv", "Gemm", "Mul", "Sub"})
# Operators that no runtime has an integer kernel for: in a QDQ graph they compute in float between their
# neighbours' integers.
FLOAT_ISLANDS = frozenset({"LRN"})
# Nodes that state how a value is stored.
_FORMS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Operand:
    """One input or output of an operator, in ONNX layout (NCHW, Conv weights OIHW)."""

    name: str
    """The tensor's name in the float graph."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """What is stored or computed: float32, float16 (weights only), uint8, int8, int32 or int64."""
    scale: np.ndarray | None = field(default=None, repr=False)
    """float32, one value, or one for each index along ``axis``; None for tensors that are not quantised."""
    zero_point: np.ndarray | None = field(default=None, repr=False)
    """Same length as ``scale``."""
    axis: int | None = None
    """The quantised dimension, None for one scale a tensor."""
    data: np.ndarray | None = field(default=None, repr=False)
    """The stored values of a constant."""

    @property
    def real(self) -> np.ndarray:
        """The values of a constant as float32, dequantised where it is quantised."""
        assert self.data is not None
        if self.scale is None or self.zero_point is None:
            return self.data.astype(np.float32)
        along = [1] * self.data.ndim
        if self.axis is not None:
            along[self.axis] = -1
        offset = self.data.astype(np.float32) - self.zero_point.reshape(along).astype(np.float32)
        real: np.ndarray = offset * self.scale.reshape(along)
        return real


@dataclass(frozen=True)
class Operator:
    """One operation that a runtime executes."""

    op_type: str
    """ONNX's name; ``QuantizeLinear`` and ``DequantizeLinear`` stay only where a value changes form: at the
    edges, between two scales, and between a layer in float and one in int8."""
    name: str
    """The node's name."""
    inputs: tuple[Operand | None, ...]
    """In ONNX's order; None for an optional input that is absent."""
    outputs: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    """The node's attributes as Python values."""
    activation: tuple[float, float] | None = None
    """Bounds of the fused Relu or Clip, None where there is none."""


def operators(graph: Graph) -> list[Operator]:
    """All operators in execution order.

    Raises:
        ConversionError: a tensor without a static shape, or a float tensor where an integer one must be.
    """
    found: list[Operator] = []
    fused: set[ir.Node] = set()
    floating = _in_float(graph.model)
    for node in graph.model.graph:
        if node in fused or _is_form(node, floating):
            continue
        operator = _operator(node, in_float=node in floating)
        if (activation := fusible_activation(node)) is not None:
            fused.add(activation)
            result = _result(activation.outputs[0], in_float=node in floating)
            operator = replace(operator, outputs=(result,), activation=clip_bounds(activation))
        found.append(operator)
    return found


def census(unknown: Iterable[tuple[str, str]]) -> str:
    """Operators that something does not know, given as (type, node name), in words, the most frequent first.

    ``3 Einsum, 1 GridSample (first: node 'mix')``.
    """
    found = list(unknown)
    counts = Counter(op_type for op_type, _ in found)
    listed = ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common())
    return f"{listed} (first: node '{found[0][1]}')"


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """Lower and upper bound of a Relu or Clip node, infinite where there is none.

    Raises:
        ConversionError: a bound that is computed.
    """
    if node.op_type == "Relu":
        return 0.0, math.inf
    bounds = [-math.inf, math.inf]
    for position in (1, 2):
        if len(node.inputs) > position and node.inputs[position] is not None:
            value = constant(node.inputs[position])
            if value is None:
                raise ConversionError(f"Clip (node '{node.name}') has a bound that is computed")
            bounds[position - 1] = float(value.item())
    return bounds[0], bounds[1]


def fusible_activation(node: ir.Node) -> ir.Node | None:
    """The Relu or Clip that is the only consumer of an arithmetic node's output."""
    if node.op_type not in FUSES_ACTIVATION or node.outputs[0].is_graph_output():
        return None
    users = [use.node for use in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].op_type in ("Relu", "Clip") else None


def _in_float(model: ir.Model) -> set[ir.Node]:
    """The nodes that compute in float: all of a float graph, and in a QDQ graph those that read or write a
    tensor that is not quantised. A fused activation goes with its layer."""
    found: set[ir.Node] = set()
    fused: set[ir.Node] = set()
    for node in model.graph:
        if node.op_type in _FORMS or node in fused:
            continue
        activation = fusible_activation(node)
        last = node if activation is None else activation
        fused.add(last)
        if any(_is_float(value, node) for value in node.inputs) or any(
            value.is_graph_output() or any(use.node.op_type != "QuantizeLinear" for use in value.uses())
            for value in last.outputs
        ):
            found |= {node, last}
    return found


def _is_float(value: ir.Value | None, node: ir.Node) -> bool:
    """Whether an operand of a node's arithmetic is not dequantised; shapes, bounds and the like are none."""
    if value is None:
        return False
    if constant(value) is not None:
        return node.op_type in FUSES_ACTIVATION or node.op_type == "Concat"
    producer = value.producer()
    return producer is None or producer.op_type != "DequantizeLinear"


def is_depthwise(node: ir.Node) -> bool:
    """Whether a node is a convolution of each of its several channels alone."""
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    return 1 < groups == shape_of(node.inputs[0])[1]  # type: ignore[arg-type]


def _is_form(node: ir.Node, floating: Container[ir.Node]) -> bool:
    """Whether a node only states how its neighbour's operand is stored."""
    source = node.inputs[0]
    if node.op_type == "QuantizeLinear":
        producer = source.producer() if source is not None else None
        return producer is not None and producer.op_type != "DequantizeLinear" and producer not in floating
    if node.op_type == "DequantizeLinear":
        result = node.outputs[0]
        return not (result.is_graph_output() or any(use.node in floating for use in result.uses()))
    return node.op_type == "Cast" and constant(source) is not None


def _operator(node: ir.Node, *, in_float: bool) -> Operator:
    outputs = tuple(_result(output, in_float=in_float) for output in node.outputs)
    inputs = tuple(None if value is None else _source(value, in_float=in_float) for value in node.inputs)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        value = node.inputs[0]
        assert value is not None
        inputs = (_quantized(value, node) if node.op_type == "DequantizeLinear" else _source(value),)
        if node.op_type == "QuantizeLinear":
            outputs = (_quantized(node.outputs[0], node),)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return Operator(node.op_type, str(node.name), inputs, outputs, attributes)


def _source(value: ir.Value, *, in_float: bool = False) -> Operand:
    """What an operator reads: through DequantizeLinear to the integers, through Cast to the halves."""
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and not in_float:
        stored = producer.inputs[0]
        assert stored is not None
        return _quantized(stored, producer)
    if (
        producer is not None
        and producer.op_type == "Cast"
        and (half := constant(producer.inputs[0])) is not None
    ):
        return Operand(str(value.name), half.shape, half.dtype, data=half)
    if (data := constant(value)) is not None:
        return Operand(str(value.name), data.shape, data.dtype, data=data)
    return Operand(str(value.name), shape_of(value), np.dtype(np.float32))


def _result(value: ir.Value, *, in_float: bool) -> Operand:
    """What an operator writes: the integers, where the value's consumer is QuantizeLinear."""
    for use in value.uses():
        if use.node.op_type == "QuantizeLinear" and not in_float:
            return _quantized(use.node.outputs[0], use.node)
    return Operand(str(value.name), shape_of(value), np.dtype(np.float32))


def _quantized(value: ir.Value, node: ir.Node) -> Operand:
    """The integer side of a QuantizeLinear or DequantizeLinear node."""
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or zero_point is None:
        raise ConversionError(f"{node.op_type} (node '{node.name}') has a computed scale or zero point")
    data = constant(value)
    return Operand(
        str(value.name).removesuffix(":quantized"),
        shape_of(value) if data is None else data.shape,
        zero_point.dtype,
        scale=scale.reshape(-1),
        zero_point=zero_point.reshape(-1),
        axis=node.attributes.get_int("axis", 0) if scale.ndim else None,
        data=data,
    )

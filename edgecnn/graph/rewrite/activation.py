"""Element by element: activations in one form each, and nodes that do nothing in inference."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecnn.graph.rewrite.edit import (
    Rewrite,
    bypass,
    constant,
    initializer,
    insert,
    known_shape,
    operand,
    replace,
    source_node,
)


class DropInferenceIdentities(Rewrite):
    """In inference Dropout is the identity; a Cast to the type at hand, or a Concat of one tensor, always."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Take away one node."""
        idle = node.op_type in ("Dropout", "Identity") or (node.op_type == "Concat" and len(node.inputs) == 1)
        if node.op_type == "Cast":
            x = operand(node, 0)
            idle = x is not None and x.dtype is not None and x.dtype == node.attributes.get_int("to", 0)
        if not idle or any(output.uses() for output in node.outputs[1:]):
            return False
        bypass(graph, node)
        return True


class PlainArithmetic(Rewrite):
    """Sum is a row of Adds, and Max and Min with one constant are Clips."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Sum, Max or Min."""
        shape = known_shape(node.outputs[0])
        if node.op_type == "Sum" and shape is not None:
            return self._sum(graph, node, shape)
        if node.op_type not in ("Max", "Min") or len(node.inputs) != 2:
            return False
        for x, bound in (node.inputs, tuple(node.inputs)[::-1]):
            array = constant(bound)
            if array is None or array.size != 1 or constant(x) is not None or known_shape(x) != shape:
                continue
            limit = initializer(graph, f"{node.name}.limit", array.reshape(()))
            inputs = [x, limit] if node.op_type == "Max" else [x, None, limit]
            replace(graph, node, ir.node("Clip", inputs, name=node.name))
            return True
        return False

    def _sum(self, graph: ir.Graph, node: ir.Node, shape: tuple[int, ...]) -> bool:
        if len(node.inputs) == 1:
            bypass(graph, node)
            return True
        *rest, last = node.inputs
        total = rest[0]
        for index, value in enumerate(rest[1:]):
            reached = np.broadcast_shapes(known_shape(total) or shape, known_shape(value) or shape)
            total = insert(graph, node, "Add", [total, value], shape=reached, name=f"{node.name}/Add_{index}")
        replace(graph, node, ir.node("Add", [total, last], name=node.name))
        return True


class NameHardActivations(Rewrite):
    """Relu6(x + 3) / 6 is HardSigmoid, and x times that is HardSwish (arXiv 1905.02244)."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Mul or Div that ends such a chain."""
        if node.op_type not in ("Mul", "Div"):
            return False
        divided = _divided_by_6(node)
        product = source_node(divided, "Mul")
        x = _times(node, _hard_sigmoid) or (_times(product, _shifted_relu6) if product is not None else None)
        if x is not None:
            replace(graph, node, ir.node("HardSwish", [x], name=node.name))
            return True
        x = _shifted_relu6(divided) if divided is not None else None
        if x is not None:
            attributes = {"alpha": 1 / 6, "beta": 0.5}
            replace(graph, node, ir.node("HardSigmoid", [x], attributes, name=node.name))
        return x is not None


class OpenHardSigmoid(Rewrite):
    """HardSigmoid becomes Mul, Add and a Clip to [0, 1]; the first two fold into the layer in front."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one HardSigmoid."""
        x, shape, name = operand(node, 0), known_shape(node.outputs[0]), str(node.name)
        if node.op_type != "HardSigmoid" or shape is None:
            return False
        alpha, beta, zero, one = (
            initializer(graph, f"{name}.{role}", np.asarray(value, np.float32))
            for role, value in (
                ("alpha", node.attributes.get_float("alpha", 0.2)),
                ("beta", node.attributes.get_float("beta", 0.5)),
                ("low", 0.0),
                ("high", 1.0),
            )
        )
        scaled = insert(graph, node, "Mul", [x, alpha], shape=shape, name=f"{name}/Mul")
        shifted = insert(graph, node, "Add", [scaled, beta], shape=shape, name=f"{name}/Add")
        replace(graph, node, ir.node("Clip", [shifted, zero, one], name=f"{name}/Clip"))
        return True


def _times(node: ir.Node, factor_of: Callable[[ir.Value], ir.Value | None]) -> ir.Value | None:
    """The x of a Mul of x and a function of x; ``factor_of`` gives the x of such a function's result."""
    if node.op_type != "Mul":
        return None
    left, right = node.inputs
    for x, factor in ((left, right), (right, left)):
        if x is not None and factor is not None and factor_of(factor) is x:
            return x
    return None


def _hard_sigmoid(value: ir.Value) -> ir.Value | None:
    """The x of HardSigmoid(x) with slope 1/6."""
    node = source_node(value, "HardSigmoid")
    if node is None or not math.isclose(node.attributes.get_float("alpha", 0.2), 1 / 6, rel_tol=1e-4):
        return None
    return node.inputs[0] if node.attributes.get_float("beta", 0.5) == 0.5 else None


def _shifted_relu6(value: ir.Value) -> ir.Value | None:
    """The x of Clip(x + 3, 0, 6)."""
    clip = source_node(value, "Clip")
    if clip is None or [_scalar(operand(clip, position)) for position in (1, 2)] != [0.0, 6.0]:
        return None
    shifted = source_node(clip.inputs[0], "Add")
    if shifted is None:
        return None
    left, right = shifted.inputs
    return left if _scalar(right) == 3.0 else right if _scalar(left) == 3.0 else None


def _divided_by_6(node: ir.Node) -> ir.Value | None:
    """The x of x / 6, or of x times a sixth."""
    left, right = node.inputs
    if node.op_type == "Div":
        return left if _scalar(right) == 6.0 else None
    for x, factor in ((left, right), (right, left)):
        if (number := _scalar(factor)) is not None and math.isclose(number, 1 / 6, rel_tol=1e-4):
            return x
    return None


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return float(array.item()) if array is not None and array.size == 1 else None

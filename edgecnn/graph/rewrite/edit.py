"""Reading and editing a graph: what every rewrite is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import shape_of


class Rewrite(ir.passes.InPlacePass):
    """A pass that visits every node once, in execution order."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit the nodes; those that a visit takes away before their turn are left out."""
        changed = False
        for node in list(model.graph):
            if node.graph is not None:
                changed |= self.visit(model.graph, node)
        return ir.passes.PassResult(model, changed)

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one node, or leave it; whether something changed."""
        raise NotImplementedError


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initialiser, or None for anything computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant to the graph under a name that is not yet taken."""
    name = unique(name, graph.initializers)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def unique(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken."""
    candidate, suffix = name, 1
    while candidate in taken:
        suffix += 1
        candidate = f"{name}_{suffix}"
    return candidate


def operand(node: ir.Node, position: int) -> ir.Value | None:
    """The node's input at a position; None where it is left out."""
    return node.inputs[position] if position < len(node.inputs) else None


def known_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value, None where it is not static."""
    if value is None or value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return shape_of(value)


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once; None where there are others or it is the graph's output."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def source_node(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of that type that computes a value which nothing else reads."""
    producer = value.producer() if value is not None else None
    if value is None or producer is None or producer.op_type != op_type or only_user(value) is None:
        return None
    return producer


def insert(
    graph: ir.Graph,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    shape: Sequence[int],
    name: str,
) -> ir.Value:
    """Put a node with one float32 output of a known shape in front of another; gives the output."""
    node = ir.node(op_type, inputs, attributes or {}, name=name)
    result = node.outputs[0]
    result.name = f"{name}:result"
    result.shape, result.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(before, node)
    return result


def replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node with one output in another's place; the output keeps its name, shape and type."""
    result = old.outputs[0]
    new.outputs[0].name, new.outputs[0].shape, new.outputs[0].type = result.name, result.shape, result.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(result, new.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)


def bypass(graph: ir.Graph, node: ir.Node, source: ir.Value | None = None) -> None:
    """Remove a node and connect its first input, or ``source``, to its consumers."""
    source, old = source or node.inputs[0], node.outputs[0]
    assert source is not None
    if old.is_graph_output():
        # The output keeps its name; its producer, which must have one, takes it over.
        source.name = old.name
    ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def set_attributes(node: ir.Node, values: Mapping[str, Any]) -> None:
    """Give a node attributes; others stay."""
    for name, value in values.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)

"""Which nodes of a float graph compute in float once the others compute in int8."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from edgecnn.errors import ConfigError
from edgecnn.graph.operators import fusible_activation
from edgecnn.graph.rewrite import constant

_DECIDES = frozenset({"Conv", "Gemm", "BatchNormalization"})
# What is applied to a float tensor value by value; before it is rounded that costs one rounding less.
_FOLLOWS = frozenset({"Clip", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})


def float_nodes(model: ir.Model, names: Collection[str]) -> set[ir.Node]:
    """The named nodes, the activation behind each, and what lies between float nodes only.

    An addition, a pooling, a reshape and the like whose inputs all come from float nodes and whose readers
    are all in float would only take the values to int8 and back.

    Raises:
        ConfigError: a name that no node has.
    """
    known = {str(node.name): node for node in model.graph}
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(
            f"no layer is called '{unknown[0]}', which is to compute in float",
            hint="`edgecnn inspect` lists the layers",
        )
    fused = {node: activation for node in model.graph if (activation := fusible_activation(node)) is not None}
    owner = {activation: node for node, activation in fused.items()}
    found = {known[name] for name in names} - owner.keys()
    if not found:
        return found

    def is_among(node: ir.Node, others: set[ir.Node]) -> bool:
        """Whether a node reads from others, or the network's input, and only they read it."""
        for value in node.inputs:
            if value is None or constant(value) is not None or value.is_graph_input():
                continue
            producer = value.producer()
            if producer is None or owner.get(producer, producer) not in others:
                return False
        return others.issuperset(readers(fused.get(node, node).outputs[0]))

    for node in model.graph:
        if node.op_type in _FOLLOWS and node not in owner and node.inputs[0] is not None:
            source = node.inputs[0].producer()
            found |= {node} if source is not None and owner.get(source, source) in found else set()
    between = {node for node in model.graph if node.op_type not in _DECIDES} - found - owner.keys()
    while stray := {node for node in between if not is_among(node, found | between)}:
        between -= stray
    found |= between
    return found | {fused[node] for node in found if node in fused}


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a value."""
    return (use.node for use in value.uses())

"""Means and pooling: over whole maps, over other axes, and over single pixels."""

from __future__ import annotations

from typing import Any

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
)


class KeepReducedAxes(Rewrite):
    """ReduceMean keeps its axes with size 1, followed by Flatten or Reshape where they are dropped.

    Over height and width it is GlobalAveragePool.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one ReduceMean."""
        x, shape, result = operand(node, 0), known_shape(operand(node, 0)), known_shape(node.outputs[0])
        if node.op_type != "ReduceMean" or shape is None or result is None:
            return False
        axes, keep = _axes(node, len(shape)), bool(node.attributes.get_int("keepdims", 1))
        if axes is None:
            return False
        kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
        if len(shape) == 4 and axes == [2, 3]:
            op_type, attributes = "GlobalAveragePool", dict[str, Any]()
        elif keep:
            return False
        else:
            op_type, attributes = "ReduceMean", {"axes": axes, "keepdims": 1}
        name = f"{node.name}/{op_type}"
        if keep:
            replace(graph, node, ir.node(op_type, [x], attributes, name=name))
            return True
        mean = insert(graph, node, op_type, [x], attributes, shape=kept, name=name)
        if op_type == "GlobalAveragePool":
            flat = ir.node("Flatten", [mean], {"axis": 1}, name=f"{node.name}/Flatten")
        else:
            target = initializer(graph, f"{node.name}.shape", np.asarray(result, np.int64))
            flat = ir.node("Reshape", [mean, target], name=f"{node.name}/Reshape")
        replace(graph, node, flat)
        return True


class GlobalMaxToMaxPool(Rewrite):
    """GlobalMaxPool is MaxPool with a window of the whole map, which every runtime has."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one GlobalMaxPool."""
        shape = known_shape(operand(node, 0))
        if node.op_type != "GlobalMaxPool" or shape is None or len(shape) != 4:
            return False
        replace(graph, node, ir.node("MaxPool", node.inputs, {"kernel_shape": shape[2:]}, name=node.name))
        return True


class WholeMapAverage(Rewrite):
    """AveragePool over the whole map is GlobalAveragePool; pooling of single pixels is none."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one pooling without padding."""
        shape, result = known_shape(operand(node, 0)), known_shape(node.outputs[0])
        if node.op_type not in ("AveragePool", "MaxPool") or shape is None or len(node.outputs) > 1:
            return False
        if any(node.attributes.get_ints("pads", ())):
            return False
        kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
        if set(kernel) == {1} and shape == result:
            bypass(graph, node)
            return True
        if node.op_type == "AveragePool" and len(shape) == 4 and kernel == shape[2:]:
            replace(graph, node, ir.node("GlobalAveragePool", node.inputs, name=node.name))
            return True
        return False


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    """The axes that a reduction takes away, ascending; None where they are computed."""
    given = constant(operand(node, 1))
    if "axes" in node.attributes:
        axes = list(node.attributes.get_ints("axes", ()))
    elif given is not None:
        axes = given.tolist()
    elif operand(node, 1) is None:
        axes = [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    else:
        return None
    return sorted(axis % rank for axis in axes)

"""Operators that rearrange or select values: Reshape and Slice stand for all of them."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgecnn.graph.rewrite.edit import (
    Rewrite,
    bypass,
    constant,
    initializer,
    known_shape,
    operand,
    replace,
    source_node,
)


class ExplicitReshape(Rewrite):
    """Squeeze, Unsqueeze and every Flatten but that to rows become Reshape, to a shape without 0 and -1.

    One that changes nothing goes, as does a Transpose that changes nothing.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Reshape or its relative."""
        shape, result = known_shape(operand(node, 0)), known_shape(node.outputs[0])
        if node.op_type == "Transpose" and shape is not None:
            rank = len(shape)
            if node.attributes.get_ints("perm", tuple(range(rank))[::-1]) != tuple(range(rank)):
                return False
            bypass(graph, node)
            return True
        if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") or result is None:
            return False
        if shape == result:
            bypass(graph, node)
            return True
        if node.op_type == "Flatten" and node.attributes.get_int("axis", 1) == 1:
            return False
        given = constant(operand(node, 1)) if node.op_type == "Reshape" else None
        if given is not None and tuple(given) == result and not node.attributes:
            return False
        target = initializer(graph, f"{node.name}.shape", np.asarray(result, np.int64))
        replace(graph, node, ir.node("Reshape", [node.inputs[0], target], name=node.name))
        return True


class SplitToSlices(Rewrite):
    """Split becomes one Slice an output, so that every node of the canonical graph has one output."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Split whose parts have known sizes."""
        x, shape = operand(node, 0), known_shape(operand(node, 0))
        parts = [known_shape(output) for output in node.outputs]
        if node.op_type != "Split" or shape is None or None in parts:
            return False
        axis = node.attributes.get_int("axis", 0) % len(shape)
        start = 0
        for index, (output, part) in enumerate(zip(node.outputs, parts, strict=True)):
            assert part is not None
            name = f"{node.name}/Slice" if index == 0 else f"{node.name}/Slice_{index + 1}"
            bounds = _bounds(graph, name, [(axis, start, start + part[axis], 1)])
            slicing = ir.node("Slice", [x, *bounds], name=name)
            taken = slicing.outputs[0]
            taken.name, taken.shape, taken.type = output.name, output.shape, output.type
            graph.insert_before(node, slicing)
            ir.convenience.replace_all_uses_with(output, taken, replace_graph_outputs=True)
            start += part[axis]
        graph.remove(node, safe=True)
        return True


class ExplicitSlice(Rewrite):
    """Slice gets five inputs: bounds inside the input, the axes that it cuts, ascending, and a step for each.

    One that takes everything goes; two that cut different axes become one. Slices that run backwards stay.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Slice with constant bounds."""
        cuts = _cuts(node)
        if cuts is None:
            return False
        x = node.inputs[0]
        inner = source_node(x, "Slice")
        inner_cuts = _cuts(inner) if inner is not None else None
        if inner is not None and inner_cuts and not {cut[0] for cut in cuts} & {cut[0] for cut in inner_cuts}:
            cuts, x = sorted(cuts + inner_cuts), inner.inputs[0]
        elif not cuts:
            bypass(graph, node)
            return True
        elif len(node.inputs) == 5 and _is_explicit(node, cuts):
            return False
        else:
            inner = None
        replace(graph, node, ir.node("Slice", [x, *_bounds(graph, str(node.name), cuts)], name=node.name))
        if inner is not None:
            graph.remove(inner, safe=True)
        return True


Cut = tuple[int, int, int, int]
"""An axis, the first index, the one behind the last, and the step."""


def _cuts(node: ir.Node) -> list[Cut] | None:
    """The axes that a Slice does not take whole; None where it is no Slice, computed, or runs backwards."""
    shape, result = known_shape(operand(node, 0)), known_shape(node.outputs[0])
    if node.op_type != "Slice" or shape is None or result is None:
        return None
    starts, ends, axes, steps = (constant(operand(node, position)) for position in (1, 2, 3, 4))
    if starts is None or ends is None:
        return None
    if any(operand(node, position) is not None for position in (3, 4) if (axes, steps)[position - 3] is None):
        return None
    axes = np.arange(len(starts)) if axes is None else axes % len(shape)
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    if steps.min(initial=1) < 1:
        return None
    cuts = []
    for axis, start, end, step in zip(
        axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True
    ):
        first, last, _ = slice(start, end, step).indices(shape[axis])
        if (first, last, step) != (0, shape[axis], 1):
            # The least end that gives as many values: bounds then say what is read.
            count = max(math.ceil((last - first) / step), 0)
            cuts.append((axis, first, first + (count - 1) * step + 1, step))
    return sorted(cuts)


def _is_explicit(node: ir.Node, cuts: list[Cut]) -> bool:
    given = [constant(value) for value in node.inputs[1:]]
    wanted = [[cut[field] for cut in cuts] for field in (1, 2, 0, 3)]
    return all(
        array is not None and array.dtype == np.int64 and array.tolist() == values
        for array, values in zip(given, wanted, strict=True)
    )


def _bounds(graph: ir.Graph, name: str, cuts: list[Cut]) -> list[ir.Value]:
    """The starts, ends, axes and steps of a Slice as constants."""
    return [
        initializer(graph, f"{name}.{role}", np.asarray([cut[field] for cut in cuts], np.int64))
        for role, field in (("starts", 1), ("ends", 2), ("axes", 0), ("steps", 3))
    ]

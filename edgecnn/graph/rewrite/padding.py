"""Padding: explicit amounts, inside the convolution that reads it where that is the same."""

from __future__ import annotations

import math

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
    set_attributes,
)

# Tools that cannot write -inf pad a maximum with float32's lowest number.
_LOWEST = float(np.finfo(np.float32).min)


class ExplicitPads(Rewrite):
    """``auto_pad`` of Conv, MaxPool and AveragePool becomes the amounts that it means."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one window operator."""
        if node.op_type not in ("Conv", "MaxPool", "AveragePool") or "auto_pad" not in node.attributes:
            return False
        mode = node.attributes.get_string("auto_pad", "NOTSET")
        shape = known_shape(operand(node, 0))
        kernel = _kernel(node)
        if shape is None or kernel is None:
            return False
        del node.attributes["auto_pad"]
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            return True
        ones = (1,) * len(kernel)
        strides, dilations = (
            node.attributes.get_ints("strides", ones),
            node.attributes.get_ints("dilations", ones),
        )
        totals = [
            max((math.ceil(size / stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
            for size, length, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True)
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        set_attributes(node, {"pads": [*less, *more] if mode == "SAME_UPPER" else [*more, *less]})
        return True


class CropNegativePads(Rewrite):
    """A Pad by negative amounts is a Slice, followed by a Pad where other sides grow."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Pad with a constant value."""
        x, amounts = node.inputs[0] if node.inputs else None, pad_amounts(node)
        shape = known_shape(x)
        if amounts is None or shape is None or amounts.min(initial=0) >= 0:
            return False
        starts, ends = -np.minimum(amounts[0], 0), np.asarray(shape) + np.minimum(amounts[1], 0)
        name = str(node.name)
        bounds = [
            initializer(graph, f"{name}.{role}", values)
            for role, values in (("starts", starts), ("ends", ends))
        ]
        cropped = insert(
            graph, node, "Slice", [x, *bounds], shape=(ends - starts).tolist(), name=f"{name}/Slice"
        )
        node.replace_input_with(0, cropped)
        grown = initializer(graph, f"{name}.pads", np.maximum(amounts, 0).reshape(-1))
        node.replace_input_with(1, grown)
        if not amounts.max() > 0:
            bypass(graph, node)
        return True


class PadIntoWindow(Rewrite):
    """Zeros around height and width, read by convolutions alone, become the padding of these convolutions.

    So does padding with the lowest number that only MaxPool reads. TensorFlow's SAME arrives like that.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one Pad."""
        amounts = pad_amounts(node)
        if amounts is None or node.outputs[0].is_graph_output():
            return False
        if not amounts.any():
            bypass(graph, node)
            return True
        fill = constant(operand(node, 2))
        value = 0.0 if fill is None else float(fill.item())
        reader = "Conv" if value == 0.0 else "MaxPool" if value <= _LOWEST else None
        uses = node.outputs[0].uses()
        if amounts.shape[1] != 4 or amounts.min() < 0 or amounts[:, :2].any():
            return False
        if not uses or any(
            use.node.op_type != reader or use.idx or not _takes_pads(use.node) for use in uses
        ):
            return False
        for use in uses:
            own = np.asarray(use.node.attributes.get_ints("pads", (0, 0, 0, 0))).reshape(2, 2)
            set_attributes(use.node, {"pads": (own + amounts[:, 2:]).reshape(-1).tolist()})
        bypass(graph, node)
        return True


class SeparateCountedPadding(Rewrite):
    """AveragePool that counts its padding becomes Pad and AveragePool without padding.

    OpenVINO also counts what ceil mode reaches beyond the padding, and in int8 pads with the integer 0
    instead of the zero point. With the padding made part of the input nothing is left to disagree about.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one AveragePool."""
        x, pads = operand(node, 0), node.attributes.get_ints("pads", ())
        shape = known_shape(x)
        counted = node.attributes.get_int("count_include_pad", 0)
        if node.op_type != "AveragePool" or shape is None or not counted or not any(pads):
            return False
        half = len(pads) // 2
        before, after = (0, 0, *pads[:half]), (0, 0, *pads[half:])
        amounts = initializer(graph, f"{node.name}.pads", np.asarray([*before, *after], np.int64))
        grown = [sum(sides) for sides in zip(shape, before, after, strict=True)]
        padded = insert(graph, node, "Pad", [x, amounts], shape=grown, name=f"{node.name}/Pad")
        node.replace_input_with(0, padded)
        del node.attributes["pads"], node.attributes["count_include_pad"]
        return True


def pad_amounts(node: ir.Node) -> np.ndarray | None:
    """Amounts (2, rank) before and after each axis of a Pad with a constant; None for anything else."""
    shape, amounts = known_shape(operand(node, 0)), constant(operand(node, 1))
    if node.op_type != "Pad" or shape is None or amounts is None:
        return None
    if node.attributes.get_string("mode", "constant") != "constant":
        return None
    axes = list(range(len(shape)))
    if operand(node, 3) is not None:
        given = constant(operand(node, 3))
        if given is None:
            return None
        axes = [int(axis) % len(shape) for axis in given]
    if operand(node, 2) is not None and constant(operand(node, 2)) is None:
        return None
    full = np.zeros((2, len(shape)), np.int64)
    full[:, axes] = amounts.reshape(2, -1)
    return full


def _kernel(node: ir.Node) -> tuple[int, ...] | None:
    if "kernel_shape" in node.attributes:
        return tuple(node.attributes.get_ints("kernel_shape", ()))
    weight = known_shape(operand(node, 1))
    return weight[2:] if weight is not None else None


def _takes_pads(node: ir.Node) -> bool:
    return "auto_pad" not in node.attributes and not node.attributes.get_int("ceil_mode", 0)

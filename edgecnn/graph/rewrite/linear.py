"""Conv and Gemm in one form each, with the scaling and shifting behind them folded into their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecnn.graph.rewrite.edit import (
    Rewrite,
    bypass,
    constant,
    initializer,
    insert,
    known_shape,
    only_user,
    operand,
    replace,
    set_attributes,
)


class NormalizeGemm(Rewrite):
    """MatMul by a constant becomes Gemm; Gemm gets weights (out, in), a bias (out,), alpha and beta of 1."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one MatMul or Gemm."""
        if node.op_type == "MatMul":
            return self._matmul(graph, node)
        if node.op_type != "Gemm" or (weight := constant(node.inputs[1])) is None:
            return False
        alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        transposed = bool(node.attributes.get_int("transB", 0))
        bias = constant(operand(node, 2))
        if bias is None and operand(node, 2) is not None:
            return False
        flat = bias is None or bias.shape == (weight.shape[0 if transposed else 1],)
        if transposed and flat and alpha == beta == 1.0:
            return False
        weight = weight if transposed else weight.T
        if alpha != 1.0:
            weight = weight * np.float32(alpha)
        node.replace_input_with(1, initializer(graph, f"{node.name}.weight", np.ascontiguousarray(weight)))
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1) * np.float32(beta), weight.shape[:1]).copy()
            node.replace_input_with(2, initializer(graph, f"{node.name}.bias", bias))
        set_attributes(node, {"alpha": 1.0, "beta": 1.0, "transB": 1})
        return True

    def _matmul(self, graph: ir.Graph, node: ir.Node) -> bool:
        x, weight = node.inputs[0], constant(node.inputs[1])
        if x is None or weight is None or weight.ndim != 2 or x.shape is None or len(x.shape) != 2:
            return False
        stored = initializer(graph, f"{node.name}.weight", np.ascontiguousarray(weight.T))
        replace(graph, node, ir.node("Gemm", [x, stored], {"transB": 1}, name=node.name))
        return True


class AddBiases(Rewrite):
    """Every Conv and Gemm carries a bias, so that quantisation and lowering meet one shape of node."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Give one Conv or Gemm a bias of zeros."""
        weight = constant(operand(node, 1))
        if node.op_type not in ("Conv", "Gemm") or operand(node, 2) is not None or weight is None:
            return False
        zero = initializer(graph, f"{node.name}.bias", np.zeros(weight.shape[0], np.float32))
        node.resize_inputs(3)
        node.replace_input_with(2, zero)
        return True


@dataclass(frozen=True)
class Affine:
    """What a node computes: x * scale + offset."""

    x: ir.Value
    scale: np.ndarray
    """float64, one value, or one a channel (axis 1)."""
    offset: np.ndarray
    """Like ``scale``."""


class FoldAffine(Rewrite):
    """Scaling and shifting right behind a Conv, Gemm or BatchNormalization become part of its constants.

    That is BatchNormalization, and Add, Sub, Mul and Div by a constant that is one value or one a channel.
    What the Conv gives must have no other reader. A chain of them folds one after the other.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Fold one node into the one in front of it."""
        affine = affine_of(node)
        layer = affine.x.producer() if affine is not None else None
        if affine is None or layer is None or only_user(affine.x) is None:
            return False
        if layer.op_type not in ("Conv", "Gemm", "BatchNormalization"):
            return False
        # The second and third input are weight and bias, gamma and beta.
        weight, bias = constant(operand(layer, 1)), constant(operand(layer, 2))
        if weight is None or bias is None:
            return False
        channels = weight.shape[:1]
        scale, offset = np.broadcast_to(affine.scale, channels), np.broadcast_to(affine.offset, channels)
        scaled = weight * scale.reshape(-1, *([1] * (weight.ndim - 1)))
        shifted = bias * scale + offset
        for position, role, array in ((1, "weight", scaled), (2, "bias", shifted)):
            stored = initializer(graph, f"{layer.name}.{role}", array.astype(np.float32))
            layer.replace_input_with(position, stored)
        bypass(graph, node, affine.x)
        return True


class LoneAffine(Rewrite):
    """Div by a constant becomes Mul, and BatchNormalization of anything but feature maps Mul and Add."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite one node that nothing could take in."""
        shape = known_shape(node.outputs[0])
        if node.op_type == "Div":
            divisor = constant(operand(node, 1))
            if divisor is None or divisor.dtype != np.float32 or not divisor.all():
                return False
            inverse = initializer(
                graph, f"{node.name}.inverse", (1 / divisor.astype(np.float64)).astype(np.float32)
            )
            replace(graph, node, ir.node("Mul", [node.inputs[0], inverse], name=node.name))
            return True
        affine = affine_of(node) if node.op_type == "BatchNormalization" else None
        if affine is None or shape is None or len(shape) == 4:
            return False
        along = (-1, *([1] * (len(shape) - 2)))
        name = str(node.name)
        scale, offset = (
            initializer(graph, f"{name}.{role}", array.astype(np.float32).reshape(along))
            for role, array in (("scale", affine.scale), ("offset", affine.offset))
        )
        scaled = insert(graph, node, "Mul", [affine.x, scale], shape=shape, name=f"{name}/Mul")
        replace(graph, node, ir.node("Add", [scaled, offset], name=f"{name}/Add"))
        return True


def affine_of(node: ir.Node) -> Affine | None:
    """A node as scale and offset; None where it is something else, or they are computed."""
    if node.op_type == "BatchNormalization":
        return _batch_normalization(node)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    stored = [constant(left), constant(right)]
    if (stored[0] is None) == (stored[1] is None) or (stored[1] is None and node.op_type == "Div"):
        return None
    x, array = (left, stored[1]) if stored[0] is None else (right, stored[0])
    values = _by_channel(array, known_shape(x), known_shape(node.outputs[0]))
    if x is None or values is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "Add":
        return Affine(x, one, values)
    if node.op_type == "Sub":
        return Affine(x, one, -values) if x is left else Affine(x, -one, values)
    if node.op_type == "Div":
        return Affine(x, 1 / values, zero) if values.all() else None
    return Affine(x, values, zero)


def _batch_normalization(node: ir.Node) -> Affine | None:
    x = node.inputs[0]
    arrays = [constant(operand(node, position)) for position in (1, 2, 3, 4)]
    if (
        x is None
        or any(array is None for array in arrays)
        or bool(node.attributes.get_int("training_mode", 0))
    ):
        return None
    if any(output.uses() for output in node.outputs[1:]):
        return None
    gamma, beta, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return Affine(x, scale, beta - mean * scale)


def _by_channel(
    array: np.ndarray | None, shape: tuple[int, ...] | None, result: tuple[int, ...] | None
) -> np.ndarray | None:
    """The values of an operand that broadcasts along axis 1 alone, None for any other."""
    if array is None or shape is None or shape != result or len(shape) < 2 or array.dtype != np.float32:
        return None
    if array.size == 1:
        return array.astype(np.float64).reshape(1)
    if array.ndim > len(shape):
        return None
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    if sizes[1] != shape[1] or math.prod(sizes) != shape[1]:
        return None
    return array.astype(np.float64).reshape(-1)

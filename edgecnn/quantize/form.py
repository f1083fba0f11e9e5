"""The canonical QDQ form, built from a float graph and its ranges.

int8 is decided once, here, and every target computes these integers:

- activations uint8, asymmetric, one scale a tensor;
- weights int8 in [-127, 127], symmetric, one scale an output channel (axis 0); where the scheme says so, in
  [-63, 63], or with one scale a tensor, which is a scalar then;
- bias int32 with scale = input scale x weight scale;
- a Relu or Clip that its QuantizeLinear already enforces is dropped;
- operators that only move or select values keep one scale; Concat's inputs share its output's scale, and
  those with a grid of their own (below) are requantised to it;
- Sigmoid and Softmax give 1/256 with zero point 0, Tanh 1/128 with zero point 128 (the only parameters that
  TFLite's kernels accept);
- the network's output is quantised too, then dequantised;
- layers that the scheme keeps in float read what int8 layers give through its DequantizeLinear, and are
  quantised for int8 layers that read them; what passes between two of them, from the network's input or to
  its output stays float.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FUSES_ACTIVATION, clip_bounds, fusible_activation
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.quantize.groups import ACTIVATIONS, WEIGHTED, scale_groups
from edgecnn.quantize.mixed import float_nodes, readers
from edgecnn.quantize.ranges import Ranges
from edgecnn.quantize.rounding import largest_weight, weight_scales
from edgecnn.quantize.scheme import DEFAULT, Scheme

# Half of int32's range leaves room for the accumulated products on top of the bias.
_BIAS_LIMIT = 2**30
# A tensor that was 0 on all calibration images gets a range like others': requantising to a tiny scale
# multiplies by 256 and more, at which XNNPACK ends the process.
_LEAST_RANGE = 1e-6


@dataclass(frozen=True)
class Quant:
    """Affine uint8 parameters of one activation tensor: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int

    @staticmethod
    def covering(low: float, high: float, *, symmetric: bool = False) -> Quant:
        """The parameters whose 256 steps cover [low, high] and hold 0 exactly (arXiv:1712.05877, sec. 3).

        ``symmetric``: the zero point is 128, or 0 where nothing is negative.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < _LEAST_RANGE:
            high = low + 1.0
        if symmetric and low < 0:
            return Quant(float(np.float32(max(-low, high) / 127)), 128)
        scale = float(np.float32((high - low) / 255))
        return Quant(scale, int(np.clip(round(-low / scale), 0, 255)))

    def enforces(self, low: float, high: float) -> bool:
        """Whether clipping to [low, high] before quantising changes no integer."""
        bottom = np.rint(low / self.scale) + self.zero_point
        top = np.rint(high / self.scale) + self.zero_point
        return bool(bottom <= 0 and top >= 255)


def to_qdq(graph: Graph, ranges: Ranges, scheme: Scheme = DEFAULT) -> Graph:
    """Rewrite a canonical float graph into the canonical QDQ form.

    Args:
        graph: the float graph; it stays as it is.
        ranges: of its tensors.
        scheme: the bits and scales of weights, the zero points of activations, and the layers that stay in
            float, with the weights and biases that ``graph`` has.

    Raises:
        ConversionError: an operator that has no int8 form, with its node's name.
        ConfigError: a layer that is to stay in float and that the graph has not.
    """
    model = graph.copy()
    quants = assign(model, ranges, scheme)
    _write(model, quants, scheme)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]
    return Graph(model, "int8")


def quantized_at(graph: Graph, tensor: str, quant: Quant) -> Graph:
    """The float graph with one of its activations taken to integers and back, for all that read it."""
    model = graph.copy()
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    [value] = [value for value in values if value.name == tensor]
    readers_before = [(use.node, use.idx) for use in value.uses()]
    dequantized = quantize_dequantize(model.graph, value, quant, value.producer())
    for node, position in readers_before:
        node.replace_input_with(position, dequantized)
    for index, output in enumerate(list(model.graph.outputs)):
        if output is value:
            model.graph.outputs[index] = dequantized
    return Graph(model, graph.precision)


def assign(model: ir.Model, ranges: Ranges, scheme: Scheme) -> dict[str, Quant]:
    """Parameters for every activation of a float graph; those that must share parameters do."""
    groups = scale_groups(model)
    quants: dict[str, Quant] = {}
    for root, values in groups.members.items():
        if root in groups.fixed:
            quant = Quant(*groups.fixed[root])
        else:
            bounds = [_bounds(value, ranges) for value in values if str(value.name) in ranges.activations]
            reached = [bound for pair in bounds for bound in pair] + [
                x for value in values for x in _inserted(value)
            ]
            quant = Quant.covering(min(reached), max(reached), symmetric=scheme.symmetric)
        quants |= {str(value.name): quant for value in values}
    return quants


def _bounds(value: ir.Value, ranges: Ranges) -> tuple[float, float]:
    """The range of one tensor, within what its Relu or Clip lets through."""
    low, high = ranges.activations[str(value.name)]
    producer = value.producer()
    if producer is not None and producer.op_type in ACTIVATIONS:
        floor, ceiling = clip_bounds(producer)
        low, high = max(low, floor), min(high, ceiling)
    return low, high


def _inserted(value: ir.Value) -> list[float]:
    """The value that a Pad puts around its input; the lowest and highest constant that a Concat appends."""
    producer = value.producer()
    if producer is None or producer.op_type not in ("Pad", "Concat"):
        return []
    operands = producer.inputs[2:3] if producer.op_type == "Pad" else producer.inputs
    arrays = [constant(operand) for operand in operands]
    return [float(bound) for array in arrays if array is not None for bound in (array.min(), array.max())]


def _write(model: ir.Model, quants: dict[str, Quant], scheme: Scheme) -> None:
    graph = model.graph
    nodes = list(graph)
    floating = float_nodes(model, scheme.float_layers)
    in_float: set[str] = set()
    """Names of the tensors that are computed in float."""
    dequantized: dict[str, ir.Value] = {}
    for value in graph.inputs:
        in_float.add(str(value.name))
        if not floating.issuperset(readers(value)):
            dequantized[str(value.name)] = quantize_dequantize(graph, value, quants[str(value.name)], None)
    absorbed: set[ir.Node] = set()
    for node in nodes:
        if node in absorbed:
            continue
        activation = fusible_activation(node)
        if activation is not None:
            absorbed.add(activation)
        last = node if activation is None else activation
        if node in floating:
            _read_floats(node, dequantized, in_float)
            for output in last.outputs:
                in_float.add(str(output.name))
                if not floating.issuperset(readers(output)):
                    name = str(output.name)
                    dequantized[name] = quantize_dequantize(graph, output, quants[name], last)
            continue
        _rewire(graph, node, dequantized, quants, scheme)
        if activation is not None and quants[str(last.outputs[0].name)].enforces(*clip_bounds(activation)):
            drop_activation(graph, node, activation)
            last = node
        for output in last.outputs:
            if output.uses() or output.is_graph_output():
                name = str(output.name)
                dequantized[name] = quantize_dequantize(graph, output, quants[name], last)
    for index, value in enumerate(list(graph.outputs)):
        name = str(value.name)
        if name not in in_float:
            # The graph's output keeps its name: the float tensor before it is renamed.
            result = dequantized[name]
            value.name, result.name = f"{name}:float", name
            graph.outputs[index] = result


def _read_floats(node: ir.Node, dequantized: dict[str, ir.Value], in_float: Collection[str]) -> None:
    """Connect a node that computes in float: to floats where there are, else to dequantised integers."""
    for position, value in enumerate(node.inputs):
        if value is not None and str(value.name) in dequantized and str(value.name) not in in_float:
            node.replace_input_with(position, dequantized[str(value.name)])


def drop_activation(graph: ir.Graph, node: ir.Node, activation: ir.Node) -> None:
    """Remove an activation behind a node; the node's output takes its name and its readers."""
    old, kept = activation.outputs[0], node.outputs[0]
    name, is_output = old.name, old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, kept, replace_graph_outputs=is_output)
    graph.remove(activation, safe=True)
    kept.name = name


def _rewire(
    graph: ir.Graph,
    node: ir.Node,
    dequantized: dict[str, ir.Value],
    quants: dict[str, Quant],
    scheme: Scheme,
) -> None:
    """Connect a node to dequantised inputs: activations, then weight and bias or constant operands."""
    x_quant = quants.get(str(node.inputs[0].name)) if node.inputs and node.inputs[0] is not None else None
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        if str(value.name) in dequantized:
            source = dequantized[str(value.name)]
            if node.op_type == "Concat" and quants[str(value.name)] != (
                common := quants[str(node.outputs[0].name)]
            ):
                source = _requantize(graph, node, position, source, common)
            node.replace_input_with(position, source)
        elif node.op_type in FUSES_ACTIVATION - WEIGHTED or node.op_type == "Concat":
            node.replace_input_with(position, _constant_operand(graph, node, position, value, quants))
    if node.op_type in WEIGHTED:
        if x_quant is None:
            raise ConversionError(f"{node.op_type} (node '{node.name}') has a constant for its input")
        _weight_and_bias(graph, node, x_quant, scheme)


def _requantize(graph: ir.Graph, node: ir.Node, position: int, source: ir.Value, quant: Quant) -> ir.Value:
    """A dequantised tensor brought to another scale before it is concatenated."""
    return quantize_dequantize(graph, source, quant, source.producer(), f"{node.name}.{position}")


def _constant_operand(
    graph: ir.Graph, node: ir.Node, position: int, value: ir.Value, quants: dict[str, Quant]
) -> ir.Value:
    array = constant(value)
    if array is None:
        raise ConversionError(f"input '{value.name}' of {node.op_type} (node '{node.name}') has no range")
    if node.op_type == "Concat":
        quant = quants[str(node.outputs[0].name)]
    else:
        quant = Quant.covering(float(array.min()), float(array.max()))
    stored = np.clip(np.rint(array / np.float32(quant.scale)) + quant.zero_point, 0, 255).astype(np.uint8)
    return stored_dequantize(
        graph, node, f"{node.name}.{position}", stored, np.float32(quant.scale), np.uint8(quant.zero_point)
    )


def _weight_and_bias(graph: ir.Graph, node: ir.Node, x: Quant, scheme: Scheme) -> None:
    weight_value, bias_value = node.inputs[1], node.inputs[2]
    weight, bias = constant(weight_value), constant(bias_value)
    assert weight is not None
    assert bias is not None
    largest = largest_weight(scheme.weight_bits)
    bias = bias.astype(np.float64)
    scale = weight_scales(weight, scheme, str(node.name))
    # A channel of small weights and a large bias would need one beyond int32; a coarser scale loses nothing.
    scale = np.maximum(scale, np.abs(bias) / (np.float64(x.scale) * _BIAS_LIMIT)).astype(np.float32)
    if not scheme.per_channel:
        scale = scale.max()
    along = scale.reshape(-1, *([1] * (weight.ndim - 1)))
    stored = np.clip(np.rint(weight / along), -largest, largest).astype(np.int8)
    bias_scale = (np.float32(x.scale) * scale).astype(np.float32)
    stored_bias = np.rint(bias / bias_scale).astype(np.int32)
    axis = 0 if scheme.per_channel else None
    for position, role, integers, steps in (
        (1, "weight", stored, scale),
        (2, "bias", stored_bias, bias_scale),
    ):
        zeros = np.zeros_like(steps, integers.dtype)
        name = f"{node.name}.{role}"
        node.replace_input_with(
            position, stored_dequantize(graph, node, name, integers, steps, zeros, axis=axis)
        )


def stored_dequantize(
    graph: ir.Graph,
    node: ir.Node,
    name: str,
    stored: np.ndarray,
    scale: np.ndarray | np.float32,
    zero_point: np.ndarray | np.uint8,
    axis: int | None = None,
) -> ir.Value:
    """A DequantizeLinear of stored integers, placed before ``node``."""
    inputs = [
        initializer(graph, f"{name}:quantized", stored),
        initializer(graph, f"{name}:scale", np.asarray(scale)),
        initializer(graph, f"{name}:zero_point", np.asarray(zero_point)),
    ]
    attributes = {} if axis is None else {"axis": axis}
    dequantize = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}:DequantizeLinear")
    _type(dequantize.outputs[0], f"{name}:dequantized", stored.shape, ir.DataType.FLOAT)
    graph.insert_before(node, dequantize)
    return dequantize.outputs[0]


def quantize_dequantize(
    graph: ir.Graph, value: ir.Value, quant: Quant, after: ir.Node | None, name: str | None = None
) -> ir.Value:
    """QuantizeLinear and DequantizeLinear of an activation, behind its producer (None: graph input)."""
    name = name or str(value.name)
    shape = tuple(value.shape) if value.shape is not None else ()
    scale = initializer(graph, f"{name}:scale", np.asarray(quant.scale, np.float32))
    zero_point = initializer(graph, f"{name}:zero_point", np.asarray(quant.zero_point, np.uint8))
    quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name=f"{name}:QuantizeLinear")
    _type(quantize.outputs[0], f"{name}:quantized", shape, ir.DataType.UINT8)
    dequantize = ir.node(
        "DequantizeLinear", [quantize.outputs[0], scale, zero_point], name=f"{name}:DequantizeLinear"
    )
    _type(dequantize.outputs[0], f"{name}:dequantized", shape, ir.DataType.FLOAT)
    if after is None:
        graph.insert_before(next(iter(graph)), [quantize, dequantize])
    else:
        graph.insert_after(after, [quantize, dequantize])
    return dequantize.outputs[0]


def _type(value: ir.Value, name: str, shape: tuple[object, ...], dtype: ir.DataType) -> None:
    value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)  # type: ignore[arg-type]

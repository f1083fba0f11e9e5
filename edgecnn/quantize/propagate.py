"""Quantisation carried over operators that only move or select values, where that changes no value.

Files quantise some tensors and leave out others that lie on the same integers: what MaxPool or Flatten give
of a quantised tensor, or what Concat reads in front of its own quantisation. The canonical form states all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecnn.graph.operators import clip_bounds, fusible_activation
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.graph.rewrite.edit import operand
from edgecnn.quantize.form import Quant, quantize_dequantize

_MOVES = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Slice", "Pad", "Concat"})
_SELECTS = frozenset({"Relu", "Clip"})


def state_every_grid(graph: ir.Graph) -> None:
    """Quantise, in place, every tensor whose values are on a neighbour's integers already.

    Forwards, what an operator moves from quantised inputs. Backwards, what it moves to a quantised output:
    rounding commutes with moving, and with the maximum. Each pair of the graph is one QuantizeLinear with
    one DequantizeLinear.
    """
    nodes = [node for node in graph if node.op_type in _MOVES | _SELECTS]
    for node in nodes:
        _forwards(graph, node)
    for node in reversed(nodes):
        _backwards(graph, node)
    for node in nodes:
        _forwards(graph, node)


def quant_of(value: ir.Value | None) -> Quant | None:
    """The parameters of a dequantised activation, None for any other value."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    scale, zero_point = constant(producer.inputs[1]), constant(producer.inputs[2])
    if scale is None or zero_point is None or zero_point.dtype != np.uint8:
        return None
    return Quant(float(scale.item()), int(zero_point.item()))


def only_quant(value: ir.Value) -> Quant | None:
    """The parameters by which a tensor is quantised, None where a reader takes it as it is."""
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    [reader] = value.consumers()
    return _quant_of_pair(reader) if reader.op_type == "QuantizeLinear" else None


def name_pair(graph: ir.Graph, quantize: ir.Node, name: str) -> None:
    """Name a pair, its integers, its parameters and its result after a tensor."""
    [dequantize] = quantize.outputs[0].consumers()
    for position, role in ((1, "scale"), (2, "zero_point")):
        old = quantize.inputs[position]
        array = constant(old)
        assert old is not None
        assert array is not None
        for node in (quantize, dequantize):
            node.replace_input_with(position, None)
        if not old.uses():
            graph.initializers.pop(str(old.name))
        stated = initializer(graph, f"{name}:{role}", array)
        for node in (quantize, dequantize):
            node.replace_input_with(position, stated)
    quantize.name, dequantize.name = f"{name}:QuantizeLinear", f"{name}:DequantizeLinear"
    quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}:quantized", f"{name}:dequantized"


def is_on(quant: Quant, values: np.ndarray) -> bool:
    """Whether values are on a grid, to float rounding."""
    steps = values.astype(np.float64) / quant.scale + quant.zero_point
    return bool(np.abs(steps - np.rint(steps)).max() <= 1e-4 and steps.min() >= -0.5 and steps.max() <= 255.5)


def _forwards(graph: ir.Graph, node: ir.Node) -> None:
    quants = {quant_of(value) for value in _moved(node) if constant(value) is None}
    quant = quants.pop() if len(quants) == 1 else None
    given = only_quant(node.outputs[0])
    if quant is None or given == quant or not _keeps(node, quant):
        return
    if given is not None and node.op_type in _SELECTS | {"Concat"}:
        return  # their kernels, or their inputs, are brought to another scale
    result = node.outputs[0]
    users = [(use.node, use.idx) for use in result.uses()]
    is_output = result.is_graph_output()
    for reader, _ in users:
        if reader.op_type == "QuantizeLinear":
            name_pair(graph, reader, f"{result.name}/Requantize")
    dequantized = quantize_dequantize(graph, result, quant, node)
    for reader, position in users:
        reader.replace_input_with(position, dequantized)
        if reader.op_type == "QuantizeLinear" and _quant_of_pair(reader) == quant:
            _drop_pair(graph, reader, dequantized)
    if is_output:
        graph.outputs[0] = dequantized


def _backwards(graph: ir.Graph, node: ir.Node) -> None:
    quant = only_quant(node.outputs[0])
    if quant is None or (node.op_type in _SELECTS and _is_fused(node)):
        return
    for position, value in enumerate(node.inputs):
        if value is None or value not in _moved(node) or quant_of(value) == quant:
            continue
        if constant(value) is not None:
            continue  # the writer of constants puts it on the output's grid
        if node.op_type == "Concat" and (quant_of(value) is not None or len(value.uses()) > 1):
            source = quantize_dequantize(graph, value, quant, value.producer(), f"{node.name}.{position}")
        elif quant_of(value) is None and len(value.uses()) == 1:
            source = quantize_dequantize(graph, value, quant, value.producer())
        else:
            continue
        node.replace_input_with(position, source)


def _moved(node: ir.Node) -> list[ir.Value]:
    """The inputs whose values an operator moves or selects."""
    inputs = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return [value for value in inputs if value is not None]


def _keeps(node: ir.Node, quant: Quant) -> bool:
    """Whether what an operator adds of its own is on the grid of what it moves."""
    added: list[float] = []
    if node.op_type in _SELECTS:
        added = [bound for bound in clip_bounds(node) if np.isfinite(bound)]
    elif node.op_type == "Pad":
        fill = constant(operand(node, 2))
        added = [0.0 if fill is None else float(fill.item())]
        if node.attributes.get_string("mode", "constant") != "constant":
            added = []
    elif node.op_type == "Concat":
        arrays = [constant(value) for value in node.inputs]
        return all(array is None or is_on(quant, array) for array in arrays)
    return not added or is_on(quant, np.asarray(added))


def _is_fused(node: ir.Node) -> bool:
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    return source is not None and fusible_activation(source) is node


def _quant_of_pair(quantize: ir.Node) -> Quant | None:
    return quant_of(quantize.outputs[0].consumers()[0].outputs[0])


def _drop_pair(graph: ir.Graph, quantize: ir.Node, source: ir.Value) -> None:
    """Take away a pair whose input is on its grid already."""
    [dequantize] = quantize.outputs[0].consumers()
    ir.convenience.replace_all_uses_with(dequantize.outputs[0], source, replace_graph_outputs=True)
    graph.remove([dequantize, quantize], safe=True)

"""A file that was quantised elsewhere, brought into the canonical QDQ form without changing what it computes.

The form is that of ``edgecnn.quantize.form``. What a file states in another way is restated:

- int8 activations are uint8 with zero points 128 higher, weights are symmetric int8 by output channel or by
  tensor, transposed as Gemm wants them, with batch norm folded in;
- what lies on a neighbour's integers is quantised like it (``edgecnn.quantize.propagate``);
- a Relu or Clip that the quantisation behind it enforces is dropped;
- a layer whose output, weights or operands the file leaves in float computes in float.

One thing may move, by less than runtimes' own rounding: biases that the file leaves in float become int32 of
input scale x weight scale, at most half a unit of what an integer kernel sums up.

What none of this serves is refused. ``verify`` compares the result with the file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import serde

from edgecnn.check import Check, int8_artifact, outputs_of
from edgecnn.data.sets import Images
from edgecnn.errors import ConversionError, ParityError
from edgecnn.graph.from_onnx.quantized import parameters
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FUSES_ACTIVATION, Operand, clip_bounds, fusible_activation, operators
from edgecnn.graph.reference import Runner
from edgecnn.graph.rewrite import constant
from edgecnn.graph.rewrite.edit import unique
from edgecnn.quantize.form import Quant, drop_activation, quantize_dequantize, stored_dequantize
from edgecnn.quantize.grid import Grid, is_whole, operand_grid, weight_grid
from edgecnn.quantize.groups import WEIGHTED
from edgecnn.quantize.propagate import name_pair, only_quant, quant_of, state_every_grid
from edgecnn.quantize.twin import float_twin, nonnegative, restored_activation

# Half of int32's range leaves room for the accumulated products on top of the bias.
_BIAS_LIMIT = 2**30
# Below it a channel's products reach no thousandth of a step of the output, and XNNPACK takes no such factor.
_LEAST_FACTOR = 2.0**-31


@dataclass(frozen=True)
class Imported:
    """A quantised file in canonical form."""

    graph: Graph = field(repr=False)
    """The float twin: the same network with dequantised weights and without rounding of activations."""
    qdq: Graph = field(repr=False)
    """The canonical QDQ graph."""
    notes: tuple[str, ...]
    """What the user should know of how the file was taken, a sentence each."""


def bring(graph: Graph, file: bytes) -> Imported:
    """Bring a quantised file into the canonical form.

    Args:
        graph: as ``edgecnn.graph.from_onnx.read`` gives it; it stays as it is.
        file: the file's own model, which comes back untouched where it is edgecnn's own artifact.

    Raises:
        ConversionError: a tensor that is quantised in two ways, or no layer that can compute on integers.
    """
    model = graph.copy()
    _restate_pairs(model.graph)
    state_every_grid(model.graph)
    stored = _store_constants(model.graph)
    for node in stored.layers:
        activation = fusible_activation(node)
        quant = only_quant(activation.outputs[0]) if activation is not None else None
        if activation is not None and quant is not None and quant.enforces(*clip_bounds(activation)):
            drop_activation(model.graph, node, activation)
    _name_output(model.graph, str(graph.output.name))
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]
    qdq = Graph(model, "int8")
    qdq = _as_it_came(qdq, file) or qdq
    return Imported(float_twin(qdq), qdq, _notes(qdq, stored))


def verify(imported: Imported, original: Runner, images: Images) -> Check:
    """The canonical QDQ graph against the file, both run operator by operator.

    Most files come out the same to the bit. Where biases were rounded, or float32 sums are added up in
    another order, a value here and there falls on the other side of a tie; networks spread that to a step
    or two of the output, as changing the last bit of the file's own scales does. So the rules are those for
    an artifact: a small mean difference, or as near to the float twin as the file is.

    Args:
        imported: the file in canonical form.
        original: the file, from one input (NCHW, float32) to its output.
        images: inputs (1, C, H, W).

    Raises:
        ParityError: they differ by more.
    """

    def no_layers(taps: Sequence[str]) -> Runner:
        return lambda _: [np.asarray(np.nan, np.float32)] * len(taps)  # the file has its own names

    try:
        outputs = outputs_of(imported.graph, imported.qdq, images)
        check = int8_artifact(imported.qdq, outputs, no_layers, original, images)
    except ParityError as error:
        raise ParityError(
            f"in the canonical form the quantised file computes something else ({error})",
            hint="pass the float model; edgecnn quantises it with --precision int8",
        ) from error
    return replace(check, stage="imported int8 graph", against=f"file in ONNX Runtime, {check.against}")


@dataclass
class _Stored:
    """What became of a graph's constants."""

    layers: list[ir.Node]
    """Those that compute on integers."""
    rounded: list[str]
    """Layers whose biases were no integers."""


def _restate_pairs(graph: ir.Graph) -> None:
    """One QuantizeLinear and one DequantizeLinear of uint8 a quantised tensor, right behind its producer."""
    positive = nonnegative(graph)
    for node in list(graph):
        if node.op_type != "QuantizeLinear" or node.graph is None:
            continue  # a pair that was restated with another one of its tensor is gone
        value = node.inputs[0]
        assert value is not None
        producer = value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear":
            _restate_requantization(graph, value, node)
        else:
            readers = [use.node for use in value.uses()]
            _restate_pair(
                graph, value, [reader for reader in readers if reader.op_type == "QuantizeLinear"], positive
            )


def _restate_pair(
    graph: ir.Graph, value: ir.Value, quantizes: Sequence[ir.Node], positive: set[ir.Value]
) -> None:
    """One pair for all that quantise a tensor computed in float."""
    found = {parameters(node) for node in quantizes}
    if len(found) > 1:
        raise ConversionError(
            f"tensor '{value.name}' is quantised in {len(found)} ways: "
            + ", ".join(f"scale {scale:.4g} and zero point {zero}" for scale, zero in sorted(found)),
            hint="quantise it with one scale for all its readers",
        )
    quant, producer = Quant(*found.pop()), value.producer()
    # Tools leave out a Relu that the zero point enforces; the tensor is named as if it were there.
    activation = restored_activation(value, quant, positive)
    if activation is not None and producer is not None and value.name == producer.name:
        value.name = f"{value.name}/{activation[0]}"
    source = quantize_dequantize(graph, value, quant, producer)
    for node in quantizes:
        _replace_pair(graph, node, source)


def _restate_requantization(graph: ir.Graph, value: ir.Value, quantize: ir.Node) -> None:
    """A dequantised tensor that is quantised again: by other parameters, or to no effect."""
    quant = Quant(*parameters(quantize))
    source = value
    if quant_of(value) != quant:
        name = unique(f"{value.name}/Requantize", {str(node.name).rpartition(":")[0] for node in graph})
        source = quantize_dequantize(graph, value, quant, value.producer(), name)
    _replace_pair(graph, quantize, source)


def _replace_pair(graph: ir.Graph, quantize: ir.Node, source: ir.Value) -> None:
    for dequantize in quantize.outputs[0].consumers():
        ir.convenience.replace_all_uses_with(dequantize.outputs[0], source, replace_graph_outputs=True)
        graph.remove(dequantize, safe=True)
    graph.remove(quantize, safe=True)


def _store_constants(graph: ir.Graph) -> _Stored:
    """Give the layers between quantised tensors integers for their weights, biases and operands."""
    result = _Stored([], [])
    for node in list(graph):
        if node.op_type not in FUSES_ACTIVATION | {"Concat"} or node.op_type == "BatchNormalization":
            continue
        activation = fusible_activation(node)
        quant = only_quant((activation or node).outputs[0])
        computed = [value for value in node.inputs if value is not None and constant(value) is None]
        if quant is None or not computed or any(quant_of(value) is None for value in computed):
            continue
        if node.op_type in WEIGHTED:
            is_stored = _store_weights(graph, node, quant, result)
        else:
            is_stored = _store_operands(graph, node, quant)
        if is_stored:
            result.layers.append(node)
    return result


def _store_weights(graph: ir.Graph, node: ir.Node, quant: Quant, result: _Stored) -> bool:
    """Store a Conv's or Gemm's weight and bias as integers; False where they must stay in float."""
    x = quant_of(node.inputs[0])
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
    if x is None or weight is None or bias is None:
        return False
    units = bias / np.float64(x.scale)
    grid = weight_grid(weight, units)
    if grid is None:
        return False
    if grid.scale.ndim:
        grid = _without_tiny(grid, np.float64(x.scale) / quant.scale, units)
    bias_scale = (np.float32(x.scale) * grid.scale).astype(np.float32)
    exact = bias.astype(np.float64) / bias_scale
    if np.abs(exact).max(initial=0) > _BIAS_LIMIT:
        return False
    stored = np.rint(exact).astype(np.int32)
    if not is_whole(exact).all():
        result.rounded.append(str(node.name))
    axis = 0 if grid.scale.ndim else None
    for position, role, integers, steps in (
        (1, "weight", grid.stored, grid.scale),
        (2, "bias", stored, bias_scale),
    ):
        zeros = np.zeros_like(steps, integers.dtype)
        name = f"{node.name}.{role}"
        node.replace_input_with(position, stored_dequantize(graph, node, name, integers, steps, zeros, axis))
    return True


def _without_tiny(grid: Grid, gain: np.float64, bias: np.ndarray) -> Grid:
    """The grid with channels of no effect at zero, and with a scale for those that holds their bias exactly.

    ``gain`` is the input's scale over the output's; ``bias`` is in units of the input's scale.
    """
    rows = grid.stored.reshape(len(grid.stored), -1)
    dead = ~rows.any(axis=1) | (gain * grid.scale < _LEAST_FACTOR)
    if not dead.any():
        return grid
    scale, stored = grid.scale.copy(), grid.stored.copy()
    stored[dead] = 0
    usual = np.float64(scale.max())
    units = np.maximum(np.rint(np.abs(bias[dead]) / usual), 1)
    scale[dead] = np.where(bias[dead] == 0, usual, np.abs(bias[dead]) / units)
    return Grid(stored, scale, 0)


def _store_operands(graph: ir.Graph, node: ir.Node, quant: Quant) -> bool:
    """Store the constants that a node adds, multiplies by or concatenates; False where they stay in float."""
    grids: dict[int, Grid] = {}
    for position, value in enumerate(node.inputs):
        array = constant(value)
        if array is None:
            continue
        if node.op_type == "Concat":
            # What it gives is rounded to this grid right behind it.
            rounded = np.clip(np.rint(array / np.float32(quant.scale)) + quant.zero_point, 0, 255)
            grids[position] = Grid(
                rounded.astype(np.uint8), np.asarray(quant.scale, np.float32), quant.zero_point
            )
        elif (grid := operand_grid(array)) is not None:
            grids[position] = grid
        else:
            return False
    for position, grid in grids.items():
        name, zero_point = f"{node.name}.{position}", np.uint8(grid.zero_point)
        node.replace_input_with(
            position, stored_dequantize(graph, node, name, grid.stored, grid.scale, zero_point)
        )
    return True


def _name_output(graph: ir.Graph, name: str) -> None:
    """Give the graph's output its name, and the tensors of its pair theirs."""
    result = graph.outputs[0]
    dequantize = result.producer()
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        result.name = name
        return
    quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
    computed = quantize.inputs[0] if quantize is not None else None
    assert quantize is not None
    assert computed is not None
    name_pair(graph, quantize, name)
    if quant_of(computed) is None:
        computed.name = f"{name}:float"
    result.name = name


def _as_it_came(qdq: Graph, file: bytes) -> Graph | None:
    """The file's own graph where it is edgecnn's own artifact: the same operators on the same numbers."""
    model = serde.deserialize_model(onnx.load_model_from_string(file))
    if model.producer_name != "edgecnn" or any(node.domain for node in model.graph):
        return None
    own = Graph(model, "int8")
    ours, theirs = operators(qdq), operators(own)
    same = len(ours) == len(theirs) and all(
        a.op_type == b.op_type
        and dict(a.attributes) == dict(b.attributes)
        and a.activation == b.activation
        and len(a.inputs) == len(b.inputs)
        and all(
            map(_is_same, (*a.inputs, *a.outputs), (*b.inputs, *b.outputs)),
        )
        for a, b in zip(ours, theirs, strict=True)
    )
    return own if same else None


def _is_same(a: Operand | None, b: Operand | None) -> bool:
    """Whether two operands are stored alike and, where they are constants, have the same values."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype or (a.data is None) != (b.data is None):
        return False
    if a.data is not None:
        step = 0 if a.scale is None else float(a.scale.max())
        return bool(np.allclose(a.real, b.real, rtol=1e-6, atol=step * 1e-3))
    return a.scale is None or bool(
        b.scale is not None
        and np.array_equal(a.scale, b.scale)
        and np.array_equal(np.asarray(a.zero_point), np.asarray(b.zero_point))
    )


def _notes(qdq: Graph, stored: _Stored) -> tuple[str, ...]:
    """What is worth saying, a sentence each.

    Raises:
        ConversionError: no Conv and no Gemm computes on integers.
    """
    weights = {
        operator.name: operator.inputs[1] for operator in operators(qdq) if operator.op_type in WEIGHTED
    }
    floating = [name for name, weight in weights.items() if weight is None or weight.scale is None]
    if len(floating) == len(weights):
        raise ConversionError(
            "the file quantises tensors, but none of its layers can compute on integers: "
            "each reads or writes floats, or has weights that are not quantised",
            hint="quantise the inputs, the weights and the outputs of layers",
        )
    notes = ["the file is quantised: its integers are kept; fp32 and fp16 come from its dequantised weights"]
    if floating:
        notes.append(
            f"{len(floating)} of {len(weights)} layers compute in float, as the file leaves their outputs, "
            f"weights or operands in float: {_some(floating)}"
        )
    if stored.rounded:
        notes.append(
            f"the biases of {len(stored.rounded)} layers, which the file leaves in float, "
            "were rounded to int32, as runtimes round them"
        )
    if lowest := [name for name, weight in weights.items() if weight is not None and _reaches_128(weight)]:
        notes.append(
            f"the weights of {len(lowest)} layers reach -128, where TFLite's specification ends at -127: "
            f"{_some(lowest)}"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _reaches_128(weight: Operand) -> bool:
    return weight.data is not None and weight.data.dtype == np.int8 and bool((weight.data == -128).any())

"""What a network costs before it runs anywhere: arithmetic, parameters, memory, receptive field, by layer.

docs/cost.md says what is counted and how that compares with other tools.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.cost import layers, memory, receptive
from edgecnn.cost.values import Bytes, Costs, Extent, LayerCost, ReceptiveField
from edgecnn.errors import ConversionError
from edgecnn.progress import Progress, silent
from edgecnn.source.request import LIBRARIES, make_request

if TYPE_CHECKING:
    from edgecnn.graph.graph import Graph
    from edgecnn.graph.operators import Operator

__all__ = ["Bytes", "Costs", "Extent", "LayerCost", "ReceptiveField", "analyze", "inspect"]


def inspect(
    model: str | Path,
    *,
    width: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    input_shape: tuple[int, ...] | str | None = None,
    progress: Progress = silent,
) -> Costs:
    """What a network costs. No weights are fetched, and nothing but a factory's own code is run.

    The arguments are those of ``edgecnn.export``.

    Raises:
        EdgeCNNError: one of its subclasses: a network that does not exist, cannot be, or cannot be read.
    """
    request = make_request(
        model,
        width=width,
        resolution=resolution,
        classes=classes,
        in_channels=in_channels,
        input_shape=input_shape,
    )
    if request.kind in ("zoo", *LIBRARIES):
        request = replace(request, weights="random")  # their values cost nothing, and need not be fetched
    from edgecnn.source.load import load  # brings torch

    network = load(request, progress)
    return analyze(network.graph, network.params)


def analyze(graph: Graph, trained_params: int | None = None) -> Costs:
    """The cost of a canonical float graph, for one input.

    A row is an operator that a runtime executes: a Relu or Clip behind a convolution, dense layer or addition
    belongs to its row, and so does its arithmetic.

    Args:
        graph: fp32.
        trained_params: learned parameters of the network that it was exported from, where they are known.

    Raises:
        ConversionError: the graph is not fp32, is empty, or a tensor has no static shape.
    """
    # Loads onnx, which a command that only prints its help does without.
    from edgecnn.graph.graph import shape_of
    from edgecnn.graph.operators import operators

    if graph.precision != "fp32":
        raise ConversionError(f"costs are counted on the fp32 graph, not on the {graph.precision} one")
    source, shape = str(graph.input.name), shape_of(graph.input)
    ops = operators(graph)
    if not ops:
        raise ConversionError("the graph computes nothing", hint="its output is its input")
    live = memory.live_values(ops, source, str(graph.output.name))
    fields = receptive.receptive_fields(ops, source, shape)
    rows = tuple(_row(op, values, field) for op, values, field in zip(ops, live, fields, strict=True))
    return Costs(str(graph.model.graph.name), shape, rows, trained_params)


def _row(op: Operator, live_values: int, field: ReceptiveField | None) -> LayerCost:
    window, other_ops = layers.window(op), layers.other_ops(op)
    stored, (read, written) = layers.weights(op), memory.traffic(op)
    return LayerCost(
        name=op.name,
        op_type=op.op_type,
        activation=layers.activation(op),
        kernel=window.kernel if window else None,
        stride=window.stride if window else None,
        dilation=window.dilation if window else None,
        groups=int(op.attributes.get("group", 1)) if op.op_type == "Conv" else None,
        input_shapes=tuple(operand.shape for operand in memory.activations(op)),
        output_shape=op.outputs[0].shape,
        macs=layers.macs(op),
        other_ops=other_ops or 0,
        counted=other_ops is not None,
        params=stored.factors + stored.biases,
        weights=Bytes(4 * (stored.factors + stored.biases), stored.factors + 4 * stored.biases),
        read=_activations(read),
        written=_activations(written),
        live=_activations(live_values),
        receptive=field,
    )


def _activations(values: int) -> Bytes:
    return Bytes(4 * values, values)

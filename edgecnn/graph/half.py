"""fp16: weights stored in half precision and widened to float32 where they are used.

It halves the file. CPUs compute in float32 all the same, so the latency is fp32's; targets with
half-precision arithmetic take the widening away.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import constant, initializer


def to_fp16(graph: Graph) -> Graph:
    """The float graph with the weights and biases of Conv and Gemm in half precision behind a Cast.

    Raises:
        ConversionError: a weight beyond half precision's range.
    """
    model = graph.copy()
    widened: dict[str, ir.Value] = {}
    for node in list(model.graph):
        if node.op_type not in ("Conv", "Gemm"):
            continue
        for position in (1, 2):
            value = node.inputs[position]
            array = constant(value)
            if value is None or array is None:
                continue
            name = str(value.name)
            if name not in widened:
                widened[name] = _widen(model.graph, node, name, array)
            node.replace_input_with(position, widened[name])
            if not value.uses():
                del model.graph.initializers[name]
    return Graph(model, "fp16")


def _widen(graph: ir.Graph, before: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """A Cast to float32 of the array stored in half precision."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ConversionError(
            f"'{name}' holds {np.abs(array).max():.3g}, beyond fp16's largest number 65504",
            hint="export with --precision fp32",
        )
    stored = initializer(graph, f"{name}:fp16", half)
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}:Cast")
    cast.outputs[0].name = f"{name}:float32"
    cast.outputs[0].shape, cast.outputs[0].type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(before, cast)
    return cast.outputs[0]

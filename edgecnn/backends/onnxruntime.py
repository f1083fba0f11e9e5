"""ONNX Runtime on the CPU: the canonical graph itself is the artifact; the runtime fuses it when it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import load_model_from_string

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner, load_onnx
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.target import Target

LAYOUT = "NCHW"
PACKAGES = ("onnxruntime",)


def compile(graph: Graph, target: Target, folder: Path) -> list[Path]:
    """Write ``model.onnx``."""
    path = folder / "model.onnx"
    path.write_bytes(for_fusing(graph).serialized)
    return [path]


def load(model: Path, target: Target, taps: Sequence[str] | None = None) -> Runner:
    """A function from one input (NCHW, float32) to the output, or to the tensors named in ``taps``."""
    serialized = model.read_bytes()
    if taps is not None:
        computed = {name for node in load_model_from_string(serialized).graph.node for name in node.output}
        taps = [f"{name}:dequantized" if f"{name}:dequantized" in computed else name for name in taps]
    return load_onnx(serialized, taps, fused=True)


def load_fused(graph: Graph) -> Runner:
    """A graph as it is compiled, at the fused kernels' speed and with every CPU's same integers."""
    return load_onnx(for_fusing(graph).serialized, fused=True, saturates=False)


def for_fusing(graph: Graph) -> Graph:
    """The same numbers in a form that ONNX Runtime's graph optimisation leaves as they are.

    A Conv or Gemm that stays in float and reads a tensor dequantised with one scale would have its weights
    quantised, all channels with one scale (the runtime's ``WeightBiasQuantization``: for one depthwise layer
    of MobileNetV2 the network's SQNR falls from 20.4 to 9.2 dB). Such a layer gets the tensor dequantised
    with a scale for each channel, all of them equal.
    """
    if graph.precision != "int8":
        return graph
    model = graph.copy()
    for node in list(model.graph):
        if node.op_type in ("Conv", "Gemm") and constant(node.inputs[1]) is not None:
            _dequantize_by_channel(model.graph, node)
    return Graph(model, graph.precision)


def _dequantize_by_channel(graph: ir.Graph, node: ir.Node) -> None:
    x = node.inputs[0]
    dequantize = x.producer() if x is not None else None
    if x is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    name, channels = str(node.name), shape_of(x)[1]
    inputs = [dequantize.inputs[0]]
    for value, role in zip(dequantize.inputs[1:], ("scale", "zero_point"), strict=True):
        array = constant(value)
        assert array is not None
        inputs.append(initializer(graph, f"{name}.input:{role}", np.repeat(array.reshape(1), channels)))
    by_channel = ir.node("DequantizeLinear", inputs, {"axis": 1}, name=f"{name}.input:DequantizeLinear")
    result = by_channel.outputs[0]
    result.name, result.shape, result.type = f"{name}.input:dequantized", x.shape, x.type
    graph.insert_before(node, by_channel)
    node.replace_input_with(0, result)
    if not x.uses() and not x.is_graph_output():
        graph.remove(dequantize, safe=True)

"""OpenVINO on the CPU: the canonical graph as OpenVINO IR, ``model.xml`` and ``model.bin``."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.graph.rewrite.edit import insert, replace
from edgecnn.target import Target

# OpenVINO reports its use to its makers through this package. Without it it has a stub and sends nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov  # noqa: E402

LAYOUT = "NCHW"
PACKAGES = ("openvino",)

_MOVES = frozenset({"Concat", "Flatten", "MaxPool", "Reshape", "Slice", "Transpose"})
"""Operators whose output values are input values."""

# On CPUs that have bf16 the default computes fp32 models in it: neither numbers nor latency are fp32's.
_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compile(graph: Graph, target: Target, folder: Path) -> list[Path]:
    """Write ``model.xml`` and ``model.bin``.

    Raises:
        OSError: they cannot be written in full.
    """
    model = ov.Core().read_model(_for_plugin(graph).serialized)
    for index, op in enumerate(model.get_ordered_ops()):
        if not any(output.get_names() for output in op.outputs()):
            # The given name counts every operation of the process; equal graphs shall give equal files.
            op.set_friendly_name(f"{op.get_type_name()}#{index}")
    path = folder / "model.xml"
    try:
        ov.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:  # its writer loses the system's reason
        raise OSError(errno.EIO, "model.xml and model.bin could not be written in full") from error
    return [path, path.with_suffix(".bin")]


def load(model: Path, target: Target, taps: Sequence[str] | None = None) -> Runner:
    """A function from one input (NCHW, float32) to the output, or to those of ``taps`` that the IR has."""
    core = ov.Core()
    loaded = core.read_model(str(model))
    known = {
        name: output for op in loaded.get_ops() for output in op.outputs() for name in output.get_names()
    }
    names = None
    if taps is not None:
        names = [f"{name}:dequantized" if f"{name}:dequantized" in known else name for name in taps]
        loaded.add_outputs([known[name] for name in names if name in known])
    compiled = core.compile_model(loaded, "CPU", _CONFIG)
    request = compiled.create_infer_request()

    def run(x: np.ndarray) -> list[np.ndarray]:
        request.infer([x])
        if names is None:
            return [np.array(request.get_output_tensor(0).data)]
        return [
            np.array(request.get_tensor(name).data) if name in known else np.asarray(np.nan, np.float32)
            for name in names
        ]

    return run


def _for_plugin(graph: Graph) -> Graph:
    """The same numbers in a form that the CPU plug-in of 2026.4 computes without faults.

    - LRN's bias is cut down to an integer (1.5 counts as 1): where it is none, it is divided out.

    In int8:

    - Quantising again what was only moved is left out: where another scale follows, as in Concat and then
      Relu, the plug-in's low-precision passes end in a segmentation fault.
    - Every Gemm of integers but the last Gemm of all is a 1 x 1 Conv: the plug-in fuses neighbouring small
      Gemms into one kernel, whose int8 results are wrong (for LeNet-5's three layers as for any two); where
      another is in float, the last is, too.
    """
    if graph.precision != "int8" and not any(_has_fraction(node) for node in graph.model.graph):
        return graph
    model = graph.copy()
    for node in list(model.graph):
        if _has_fraction(node):
            _divide_out_bias(model.graph, node)
    if graph.precision != "int8":
        return Graph(model, graph.precision)
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear" and _only_moved(node):
            source, (pair,) = node.inputs[0], node.outputs[0].uses()
            assert source is not None
            pair.node.outputs[0].replace_all_uses_with(source)
            model.graph.remove([pair.node, node], safe=True)
    gemms = [node for node in model.graph if node.op_type == "Gemm"]
    of_integers = [node for node in gemms if constant(node.inputs[1]) is None]
    for node in of_integers[:-1] if of_integers == gemms else of_integers:
        _as_conv(model.graph, node)
    return Graph(model, graph.precision)


def _has_fraction(node: ir.Node) -> bool:
    return node.op_type == "LRN" and node.attributes.get_float("bias", 1.0) % 1 != 0


def _divide_out_bias(graph: ir.Graph, node: ir.Node) -> None:
    """x / (b + s) ** beta = b ** -beta * (x / (1 + s / b) ** beta), where s has alpha as a factor."""
    bias, beta = node.attributes.get_float("bias", 1.0), node.attributes.get_float("beta", 0.75)
    alpha = node.attributes.get_float("alpha", 1e-4)
    attributes = {
        "size": node.attributes.get_int("size", 0),
        "alpha": alpha / bias,
        "beta": beta,
        "bias": 1.0,
    }
    name = str(node.name)
    factor = initializer(graph, f"{name}:factor", np.asarray(bias**-beta, np.float32))
    shape = shape_of(node.outputs[0])
    plain = insert(graph, node, "LRN", node.inputs[:1], attributes, shape=shape, name=f"{name}:plain")
    replace(graph, node, ir.node("Mul", [plain, factor], name=name))


def _only_moved(quantize: ir.Node) -> bool:
    """Whether a QuantizeLinear puts values on the grid on which they already are."""
    source = quantize.inputs[0]
    mover = source.producer() if source is not None else None
    if (
        mover is None
        or mover.op_type not in _MOVES
        or quantize.outputs[0].consumers()[0].outputs[0].is_graph_output()
    ):
        return False
    return _grid(mover) == _grid(quantize)


def _grid(node: ir.Node | None) -> tuple[float, int] | None:
    """Scale and zero point of what a node gives, where it quantises or only moves values of one grid."""
    if node is not None and node.op_type in _MOVES:
        moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        grids = {_grid(value.producer() if value is not None else None) for value in moved}
        return grids.pop() if len(grids) == 1 else None
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or zero_point is None or scale.ndim:
        return None
    return float(scale), int(zero_point)


def _as_conv(graph: ir.Graph, node: ir.Node) -> None:
    x, weight, bias = node.inputs
    assert x is not None
    assert weight is not None
    producer = weight.producer()
    assert producer is not None
    stored = producer.inputs[0]
    array = constant(stored)
    assert stored is not None
    assert array is not None
    producer.replace_input_with(0, initializer(graph, f"{stored.name}:1x1", array[:, :, None, None]))
    weight.shape = ir.Shape((*array.shape, 1, 1))
    old = node.outputs[0]
    name = str(old.name)
    pixel = initializer(graph, f"{name}:pixel", np.asarray((1, array.shape[1], 1, 1), np.int64))
    row = initializer(graph, f"{name}:row", np.asarray((1, array.shape[0]), np.int64))
    to_pixel = ir.node("Reshape", [x, pixel], name=f"{node.name}:pixel")
    conv = ir.node("Conv", [to_pixel.outputs[0], weight, bias], {"kernel_shape": (1, 1)}, name=node.name)
    to_row = ir.node("Reshape", [conv.outputs[0], row], name=f"{node.name}:row")
    graph.insert_before(node, [to_pixel, conv, to_row])
    ir.convenience.replace_all_uses_with(old, to_row.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    to_pixel.outputs[0].name, conv.outputs[0].name = f"{name}:pixels", f"{name}:conv"
    to_row.outputs[0].name = name

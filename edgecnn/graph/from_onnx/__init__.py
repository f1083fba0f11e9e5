"""A user's .onnx file -> canonical float graph; where the file is quantised, with its QDQ pairs in place."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import ModelProto
from onnx_ir import serde

from edgecnn.errors import ConversionError, EdgeCNNError, one_line
from edgecnn.graph.from_onnx.accept import (
    check_network,
    check_valid,
    check_weights,
    in_training_mode,
    sort_nodes,
)
from edgecnn.graph.from_onnx.file import label, parse, read_bytes, shown, take_in_external_data
from edgecnn.graph.from_onnx.inputs import TO_NCHW, TO_NHWC, fix_input, give_channels_first, widen_halves
from edgecnn.graph.from_onnx.opset import OPSET, to_opset
from edgecnn.graph.from_onnx.quantized import check_pairs, is_quantized, name_standard_operators
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner, load_onnx
from edgecnn.graph.rewrite import canonicalize, constant
from edgecnn.graph.rewrite.constants import LARGEST_TENSOR, fold_constants

# The format of files that came with opset 17.
_IR_VERSION = 8
# Operators that have learned parameters, with their positions among the inputs. Batch norm's running mean and
# variance (3, 4) are measured, not learned.
_LEARNED = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "PRelu": (1,)}
_LEARNED |= {"BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2)}
_LEARNED |= {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Div": (0, 1)}
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True)
class OnnxFile:
    """An .onnx file that was read, with its input shape decided."""

    graph: Graph
    """The canonical fp32 graph. Where the file is quantised, its activations pass through the QuantizeLinear
    and DequantizeLinear that the file has, its weights are dequantised, and the precision is ``int8``: what
    ``edgecnn.quantize.imported`` brings into the canonical QDQ form."""
    original: bytes = field(repr=False)
    """The file's model with its external data taken in and the shape of its input fixed: what the canonical
    graph is checked against. ``load_original`` runs it. Half precision is float32 in it, and an input that
    was NHWC is NCHW."""
    params: int
    """Learned parameters as the file has them: batch norm's scale and bias count, its statistics do not."""
    sha256: str
    """Of the .onnx file, in hexadecimal."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the file was taken, a sentence each."""


def read(path: Path, input_shape: tuple[int, ...] | None, name: str) -> OnnxFile:
    """Read an .onnx file of opset 9 to 22 into a canonical graph.

    Args:
        path: the file; external data are read from its folder alone.
        input_shape: of the input in the file's layout, where the file leaves more open than the batch.
        name: the graph's.

    Raises:
        ConfigError: the path or the input shape is wrong.
        ConversionError: the file is damaged, unsafe, no image network of ONNX's own float operators, or
            quantised in a way that no integer runtime executes.
    """
    data = read_bytes(path)
    model, sha256 = parse(data, path), hashlib.sha256(data).hexdigest()
    notes = []
    changed = name_standard_operators(model)
    check_network(model)
    changed |= take_in_external_data(model, path.parent)
    check_weights(model)
    changed |= sort_nodes(model.graph)
    if widen_halves(model):
        changed = True
        notes.append("half precision was widened to float32, with the values that the file has")
    changed |= fix_input(model, input_shape)
    if (shape := give_channels_first(model)) is not None:
        changed = True
        notes.append(f"the file's input is NHWC, {shape}; the compiled one is NCHW")
    check_valid(model)
    original = model.SerializeToString() if changed else data
    try:
        graph, params = _convert(model, name)
    except (EdgeCNNError, MemoryError):
        raise
    except Exception as error:  # of any type, on nonsense that ONNX's checker and shape inference let pass
        raise ConversionError(
            f"the model cannot be brought into the canonical form: {one_line(error)}",
            hint="export it again, with opset 17 and constant folding",
        ) from error
    return OnnxFile(graph, original, params, sha256, tuple(notes))


def load_original(file: OnnxFile) -> Runner:
    """A function from one input (NCHW, float32) to what the file's own model gives, in a list of one.

    Raises:
        ConversionError: ONNX Runtime cannot load the model; the function, that it cannot run it.
    """

    def refusal(error: Exception) -> ConversionError:
        return ConversionError(
            f"ONNX Runtime cannot run the model: {one_line(error)}",
            hint="check that the file runs in onnxruntime as it is",
        )

    try:
        original = load_onnx(file.original, fused=False)
    except Exception as error:  # of a type of its own for each status
        raise refusal(error) from error

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            return original(x)
        except Exception as error:
            raise refusal(error) from error

    return run


def _convert(proto: ModelProto, name: str) -> tuple[Graph, int]:
    """The canonical graph of a model with a static input, and its number of learned parameters."""
    model = serde.deserialize_model(proto)
    if model.functions:
        passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    quantized = is_quantized(proto)
    if quantized:
        fold_constants(model, keep=("DequantizeLinear",))
        check_pairs(model.graph)
    fold_constants(model)
    _check_sizes(model.graph)
    for node in model.graph:
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            training = constant(node.inputs[2])
            if training is None or training.any():
                raise in_training_mode(label(serde.serialize_node(node)))
    params = _learned(model.graph)
    model = to_opset(model)
    for node in model.graph:
        _join_transposes(node)
    graph = model.graph
    graph.name = name
    graph.opset_imports.clear()
    graph.opset_imports[""] = OPSET
    # A new model: what the file says of its maker and of that one's folders stays behind.
    model = ir.Model(graph, ir_version=_IR_VERSION, producer_name="edgecnn")
    return canonicalize(Graph(model, "int8" if quantized else "fp32")), params


def _check_sizes(graph: ir.Graph) -> None:
    """Whether the network makes something of the image, and no tensor is empty or beyond all use."""
    if not graph.inputs[0].uses():
        raise ConversionError(
            "the model's output does not depend on its input", hint="export the network itself"
        )
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    for value in values:
        if value.shape is None or not value.shape.is_static():
            continue
        if not 0 < math.prod(shape_of(value)) <= LARGEST_TENSOR:
            raise ConversionError(
                f"tensor '{shown(str(value.name))}' of shape {value.shape} is empty, or too large to compute",
                hint="choose another input shape",
            )


def _learned(graph: ir.Graph) -> int:
    """Elements of the constants that are an operator's weights, each counted once.

    Of element-wise operators those with one element are not, nor those that normalise the image.
    """
    sizes: dict[ir.Value, int] = {}
    for node in graph:
        elementwise = node.op_type in _ELEMENTWISE
        if elementwise and any(value in graph.inputs for value in node.inputs):
            continue
        for value in (node.inputs[i] for i in _LEARNED.get(node.op_type, ()) if i < len(node.inputs)):
            stored = value.const_value if value is not None else None
            if value is None or stored is None or not stored.dtype.is_floating_point():
                continue
            if stored.size > 1 or not elementwise:
                sizes[value] = int(stored.size)
    return sum(sizes.values())


def _join_transposes(node: ir.Node) -> None:
    """The consumers of a Transpose that undoes the one before it take what that one takes."""
    between = node.inputs[0] if node.op_type == "Transpose" else None
    before = between.producer() if between is not None else None
    if before is None or before.op_type != "Transpose" or before.inputs[0] is None:
        return
    if (before.attributes.get_ints("perm"), node.attributes.get_ints("perm")) == (TO_NHWC, TO_NCHW):
        ir.convenience.replace_all_uses_with(node.outputs[0], before.inputs[0])

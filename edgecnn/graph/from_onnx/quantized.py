"""What the QuantizeLinear and DequantizeLinear of a file must be for int8 hardware to compute the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir import serde

from edgecnn.errors import ConversionError
from edgecnn.graph.from_onnx.file import label, nodes
from edgecnn.graph.rewrite import constant

PAIR = ("QuantizeLinear", "DequantizeLinear")
_EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)
# Attributes that name the type which the zero point gives, or that matter to other types alone.
_STATED = ("saturate", "output_dtype", "precision")
# Where the output channels of a weight are; None: the last axis.
_OUTPUT_AXIS = {"Conv": 0, "MatMul": None}


def is_quantized(model: ModelProto) -> bool:
    """Whether a file has been quantised."""
    return any(node.op_type in PAIR for node in nodes(model))


def name_standard_operators(model: ModelProto) -> bool:
    """Bring QuantizeLinear and DequantizeLinear of Microsoft's domain into ONNX's own, in place.

    With 8 bits they compute the same. True where there were any.
    """
    found = False
    for node in nodes(model):
        if node.op_type in PAIR and node.domain == "com.microsoft":
            node.domain, found = "", True
    return found


def check_pairs(graph: ir.Graph) -> None:
    """Refuse quantisation that no integer runtime executes, or not each of them. Constants must be folded.

    Raises:
        ConversionError: other types than int8 and uint8; activations with a scale a channel, or one that is
            computed; weights with zero points, or with scales along another axis than output channels;
            operators that read the integers themselves.
    """
    for node in graph:
        if node.op_type in PAIR:
            _check_parameters(graph, node)
    for node in graph:
        if node.op_type == "QuantizeLinear":
            _check_readers(node)
        elif node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is None:
            _check_source(node)
        elif node.op_type in ("Conv", "Gemm", "MatMul") and len(node.inputs) > 1:
            _check_weight(node)


def _check_parameters(graph: ir.Graph, node: ir.Node) -> None:
    name = label(serde.serialize_node(node))
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if scale is None or (given is not None and constant(given) is None):
        raise ConversionError(
            f"{name} has a scale or zero point that is computed for each image",
            hint="quantise with calibration (statically); integer runtimes need scales that are known",
        )
    stored = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    is_weight = constant(node.inputs[0]) is not None
    dtype = None if stored is None else stored.dtype
    if dtype not in (*_EIGHT_BITS, *([ir.DataType.INT32] if is_weight else [])):
        found = "unknown" if dtype is None else dtype.name.lower()
        raise ConversionError(
            f"{name} works on {found}; int8 and uint8 are taken",
            hint="quantise weights and activations to 8 bits",
        )
    if node.attributes.get_int("block_size", 0):
        raise ConversionError(
            f"{name} has a scale for each block of values", hint="quantise with one scale an output channel"
        )
    if not np.isfinite(scale).all() or scale.min() <= 0:
        raise ConversionError(f"{name} has a scale that is not positive", hint="calibrate and quantise again")
    if scale.size > 1 and not is_weight:
        raise ConversionError(
            f"{name} gives an activation {scale.size} scales, one a channel, which few runtimes execute",
            hint="quantise with one scale an activation (NNCF: QuantizationParameters(per_channel=False))",
        )
    for attribute in _STATED:
        node.attributes.pop(attribute, None)


def _check_readers(node: ir.Node) -> None:
    """Whether every reader of the integers is a DequantizeLinear with the same parameters."""
    name = label(serde.serialize_node(node))
    if _is_output(node.outputs[0]):
        raise ConversionError(
            f"{name} gives the model's output, as integers", hint="let the model end in DequantizeLinear"
        )
    for reader in _readers(node.outputs[0]):
        if reader.op_type != "DequantizeLinear":
            raise ConversionError(
                f"{label(serde.serialize_node(reader))} reads the integers that {name} gives",
                hint="export as QDQ: every operator between DequantizeLinear and QuantizeLinear",
            )
        if parameters(reader) != parameters(node):
            raise ConversionError(
                f"{name} and {label(serde.serialize_node(reader))} have other scales or zero points",
                hint="quantise again; a tensor is dequantised as it was quantised",
            )


def _check_source(node: ir.Node) -> None:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    while producer is not None and _is_idle(producer):
        producer = producer.inputs[0].producer() if producer.inputs[0] is not None else None
    if producer is None or producer.op_type != "QuantizeLinear":
        raise ConversionError(
            f"{label(serde.serialize_node(node))} reads integers that are not quantised from floats",
            hint="export as QDQ: every operator between DequantizeLinear and QuantizeLinear",
        )


def _check_weight(node: ir.Node) -> None:
    """Whether a quantised weight has zero points of 0 and scales along the output channels."""
    value = node.inputs[1]
    source = None if value is None else value.producer()
    if source is None or source.op_type != "DequantizeLinear":
        return
    stored, scale = constant(source.inputs[0]), constant(source.inputs[1])
    if stored is None or scale is None:
        return
    name = label(serde.serialize_node(node))
    along = source.attributes.get_int("axis", 1) % stored.ndim
    zero_point = _zero_point(source).astype(np.int32)
    shape = [1] * stored.ndim
    if scale.size > 1:
        shape[along] = -1
    shifted = stored.astype(np.int32) - zero_point.reshape(
        shape if zero_point.size > 1 else [1] * stored.ndim
    )
    if shifted.min(initial=0) < -128 or shifted.max(initial=0) > 127:
        raise ConversionError(
            f"the weights of {name} are asymmetric: {shifted.min()} to {shifted.max()} steps from zero",
            hint="quantise weights as symmetric int8 (onnxruntime: weight_type=QuantType.QInt8)",
        )
    output = _OUTPUT_AXIS.get(node.op_type, 0 if node.attributes.get_int("transB", 0) else 1)
    output = stored.ndim - 1 if output is None else output
    if scale.size > 1 and along != output and len(np.unique(scale)) > 1:
        raise ConversionError(
            f"the weights of {name} have scales along axis {along}; output channels are axis {output}",
            hint="quantise weights with one scale an output channel, or one a tensor",
        )


def parameters(node: ir.Node) -> tuple[float, int]:
    """Scale, and zero point as uint8 has it, of a QuantizeLinear or DequantizeLinear of an activation.

    int8 is uint8 with zero points, and integers, 128 lower: the same values.
    """
    scale, zero_point = constant(node.inputs[1]), _zero_point(node)
    assert scale is not None
    return float(scale.item()), int(zero_point.item()) + (128 if zero_point.dtype == np.int8 else 0)


def _zero_point(node: ir.Node) -> np.ndarray:
    """A node's zero point; ONNX's default is a 0 of the type at hand."""
    given = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if given is not None:
        return given
    stored = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    dtype = None if stored is None else stored.dtype
    return np.zeros((), np.uint8 if dtype is None else dtype.numpy())


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a value, seen through those that change nothing."""
    for use in value.uses():
        if _is_idle(use.node):
            yield from _readers(use.node.outputs[0])
        else:
            yield use.node


def _is_output(value: ir.Value) -> bool:
    return value.is_graph_output() or any(
        _is_idle(use.node) and _is_output(use.node.outputs[0]) for use in value.uses()
    )


def _is_idle(node: ir.Node) -> bool:
    source = node.inputs[0] if node.inputs else None
    return node.op_type == "Identity" or (
        node.op_type == "Cast" and source is not None and source.dtype == node.attributes.get_int("to", 0)
    )

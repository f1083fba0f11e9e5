"""A model of opset 9 to 22 brought to opset 17, the one that every later stage reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto, ModelProto, defs, helper, inliner, shape_inference, version_converter
from onnx_ir import serde

from edgecnn.errors import ConversionError, one_line
from edgecnn.graph.from_onnx.file import label, shown
from edgecnn.graph.graph import shape_of
from edgecnn.graph.rewrite import constant, initializer
from edgecnn.graph.rewrite.constants import fold_constants, without_weights

OPSET = 17


def to_opset(model: ir.Model) -> ir.Model:
    """The model in opset 17. Constants must have been folded; the model may be changed.

    Older ones are raised by ONNX's own converter. In newer ones most operators only take more number formats;
    what was given as an attribute in opset 17 becomes one again, and operators that came later are replaced
    by what ONNX defines them to compute.

    Raises:
        ConversionError: an operator that opset 17 cannot express, or that the converter cannot raise.
    """
    opset = model.opset_imports[""]
    if opset < OPSET:
        model = _through(model, lambda proto: version_converter.convert_version(proto, OPSET))
        if opset <= 10:
            _name_old_resize(model)
    elif opset > OPSET:
        if newer := {node.op_type for node in model.graph if not _known(node.op_type)}:
            model = _through(model, lambda proto: _open(proto, newer))
            fold_constants(model)
        _lower(model, opset)
    return model


def _through(model: ir.Model, convert: Callable[[ModelProto], ModelProto]) -> ir.Model:
    """The model after one of ONNX's own conversions, which does not see the large weights."""
    weights = model.graph.initializers
    try:
        converted = serde.deserialize_model(convert(without_weights(model)))
    except Exception as error:  # the C++ raises several types
        raise ConversionError(
            f"opset {model.opset_imports['']} cannot be brought to {OPSET}: {one_line(error)}",
            hint=f"export with opset {OPSET}",
        ) from error
    graph = converted.graph
    for value in list(graph.inputs):
        if (stored := weights.get(str(value.name))) is not None:
            value.const_value = stored.const_value
            graph.inputs.remove(value)
            graph.register_initializer(value)
    return converted


def _name_old_resize(model: ir.Model) -> None:
    """Until opset 10 Resize and Upsample knew one rule, which is not what later ones do unasked."""
    for node in model.graph:
        if node.op_type == "Resize":
            for name, rule in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
                node.attributes[name] = ir.convenience.convert_attribute(name, rule)


def _open(proto: ModelProto, op_types: set[str]) -> ModelProto:
    """The model with operators replaced by the functions that define them."""
    typed = shape_inference.infer_shapes(proto)
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
    )
    return inliner.inline_selected_functions(
        typed, [("", op_type) for op_type in op_types], inline_schema_functions=True
    )


def _lower(model: ir.Model, opset: int) -> None:
    newer = Counter(node.op_type for node in model.graph if not _known(node.op_type))
    if newer:
        listed = ", ".join(f"{count} x {name}" for name, count in sorted(newer.items()))
        raise ConversionError(
            f"operators that came after opset {OPSET}: {listed}", hint=f"export with opset {OPSET}"
        )
    for node in list(model.graph):
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
            _axes_to_attribute(node)
        elif node.op_type == "Split" and "num_outputs" in node.attributes:
            _state_split(model.graph, node)
        elif node.op_type == "Pad" and len(node.inputs) > 3:
            _pad_every_axis(model.graph, node)
        _drop_new_defaults(node, opset)
    model.opset_imports[""] = OPSET


def _known(op_type: str) -> bool:
    try:
        defs.get_schema(op_type, OPSET, "")
    except defs.SchemaError:
        return False
    return True


def _axes_to_attribute(node: ir.Node) -> None:
    """ReduceMean and its like took their axes as an input from opset 18 on."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        axes = constant(given)
        if axes is None:
            raise _too_new(node, "axes that are computed")
        if axes.size:
            node.attributes["axes"] = ir.convenience.convert_attribute("axes", axes.tolist())
    node.resize_inputs(1)
    if node.attributes.get_int("noop_with_empty_axes", 0) and "axes" not in node.attributes:
        raise _too_new(node, "no axes")
    node.attributes.pop("noop_with_empty_axes", None)


def _state_split(graph: ir.Graph, node: ir.Node) -> None:
    """Split into a number of parts, the last one smaller where they are not equal (opset 18)."""
    [x] = node.inputs[:1]
    assert x is not None
    parts = node.attributes.pop("num_outputs").as_int()
    size = shape_of(x)[node.attributes.get_int("axis", 0)]
    each = -(-size // parts)
    sizes = np.asarray([each] * (parts - 1) + [size - each * (parts - 1)], np.int64)
    node.resize_inputs(2)
    node.replace_input_with(1, initializer(graph, f"{node.outputs[0].name}.split", sizes))


def _pad_every_axis(graph: ir.Graph, node: ir.Node) -> None:
    """Pad names the axes that it pads from opset 18 on; before, it states an amount for each."""
    x, pads, axes = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[3])
    assert x is not None
    if node.inputs[3] is not None:
        if pads is None or axes is None:
            raise _too_new(node, "axes that are computed")
        amounts = np.zeros((2, len(shape_of(x))), np.int64)
        amounts[:, axes] = pads.reshape(2, -1)
        node.replace_input_with(1, initializer(graph, f"{node.outputs[0].name}.pads", amounts.reshape(-1)))
    node.resize_inputs(3)


def _drop_new_defaults(node: ir.Node, opset: int) -> None:
    """Attributes and inputs that opset 17 lacks go where they say what it does anyway."""
    new, old = defs.get_schema(node.op_type, opset, ""), defs.get_schema(node.op_type, OPSET, "")
    for name in [name for name in node.attributes if name not in old.attributes]:
        default, value = new.attributes[name].default_value, node.attributes[name].value
        undilated = name == "dilations" and set(value) <= {1}  # its default depends on the rank
        if not undilated and (not default.name or value != _python(default)):
            raise _too_new(node, f"attribute '{shown(name)}'")
        del node.attributes[name]
    if len(node.inputs) > old.max_input or len(node.outputs) > old.max_output:
        raise _too_new(node, "more inputs or outputs")


def _python(attribute: AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _too_new(node: ir.Node, what: str) -> ConversionError:
    return ConversionError(
        f"{label(serde.serialize_node(node))} has {what}, which opset {OPSET} cannot express",
        hint=f"export with opset {OPSET}",
    )

"""What does not depend on the image computed once: shape arithmetic, constants, transposed weights."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import GraphProto, ModelProto, helper, numpy_helper, shape_inference
from onnx_ir import serde

from edgecnn.errors import ConversionError, one_line
from edgecnn.graph.graph import shape_of
from edgecnn.graph.reference import open_session
from edgecnn.graph.rewrite.edit import constant, initializer

LARGEST_TENSOR = 2**28
"""Values of the largest tensor that is computed, 1 GiB of float32; the largest dense layers have 10^8."""
# Weights that are larger stay out of what the libraries written in C++ are handed, which copy it often.
_LIGHT_BYTES = 1024


class FoldConstants(ir.passes.InPlacePass):
    """:func:`fold_constants` among other rewrites."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold all there is."""
        fold_constants(model)
        return ir.passes.PassResult(model, True)


def fold_constants(model: ir.Model, keep: Collection[str] = ()) -> None:
    """Replace, in place, every node whose result is the same for all images; all static shapes are set.

    The nodes are run in ONNX Runtime. Operators in ``keep`` stay.

    Exporters trace ``x.flatten(1, 2)`` or a padding as Shape, Gather, Concat and the like. The shapes behind
    such a calculation are known only after it has been made, hence the repetition.

    Raises:
        ConversionError: shapes that contradict each other, or a constant that cannot be computed.
    """
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    clean = ir.passes.Sequential(lift, passes.RemoveUnusedNodesPass())
    found = True
    while found:
        clean(model)
        infer_shapes(model)
        found = _fold_shapes(model.graph) | _run_constants(model, keep)


def infer_shapes(model: ir.Model) -> None:
    """Set type and shape of every tensor, in place, from the input's.

    Raises:
        ConversionError: they contradict each other.
    """
    try:
        inferred = shape_inference.infer_shapes(
            without_weights(model), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # InferenceError, and what the C++ below it raises
        raise ConversionError(
            f"the tensors' shapes do not fit together: {one_line(error)}",
            hint="check the network with onnx.checker.check_model(model, full_check=True)",
        ) from error
    values = {output.name: output for node in model.graph for output in node.outputs}
    for value in values.values():
        value.shape = None  # what the file states may be of another input
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        if info.name in values:
            values[info.name].type = serde.deserialize_type_proto_for_type(info.type)
            values[info.name].shape = serde.deserialize_type_proto_for_shape(info.type)


def without_weights(model: ir.Model) -> ModelProto:
    """The model with its large weights as inputs, and no shapes but those of the inputs."""
    inputs, light = list(model.graph.inputs), []
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        if value.const_value.nbytes > _LIGHT_BYTES:
            inputs.append(value)
        else:
            light.append(numpy_helper.from_array(value.const_value.numpy(), str(value.name)))
    graph = GraphProto(
        name="network",
        node=[serde.serialize_node(node) for node in model.graph],
        input=[serde.serialize_value(value) for value in inputs],
        initializer=light,
        output=[helper.make_empty_tensor_value_info(str(value.name)) for value in model.graph.outputs],
    )
    return _model(graph, model)


def _model(graph: GraphProto, like: ir.Model) -> ModelProto:
    opsets = [helper.make_opsetid(domain, version) for domain, version in like.opset_imports.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _fold_shapes(graph: ir.Graph) -> bool:
    """What needs only the shape or the type of a tensor; True where there was anything."""
    found = False
    for node in list(graph):
        if not node.outputs or node.outputs[0].is_graph_output():
            continue
        x = node.inputs[0] if node.inputs else None
        if node.op_type in ("Shape", "Size") and x is not None and _is_static(x):
            shape = np.asarray(shape_of(x), np.int64)
            part = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape)))
            _replace(graph, node.outputs[0], shape[part] if node.op_type == "Shape" else shape.prod())
        elif node.op_type == "CastLike" and (dtype := node.outputs[0].dtype) is not None:
            cast = ir.node("Cast", [x], {"to": dtype}, name=node.name)
            cast.outputs[0].name = f"{node.outputs[0].name}:cast"
            graph.insert_before(node, cast)
            ir.convenience.replace_all_uses_with(node.outputs[0], cast.outputs[0])
        else:
            continue
        graph.remove(node, safe=True)
        found = True
    return found


def _run_constants(model: ir.Model, keep: Collection[str]) -> bool:
    """Run the nodes all of whose inputs are constants, but those in ``keep``; True where there were any."""
    chosen: dict[ir.Node, None] = {}
    computed: dict[ir.Value, None] = {}
    sources: dict[str, np.ndarray] = {}
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None and value not in computed]
        arrays = {str(value.name): _plain(value) for value in inputs}
        if (
            node.op_type not in keep
            and any(node.inputs)
            and all(array is not None for array in arrays.values())
            and all(_is_static(value) and not value.is_graph_output() for value in node.outputs)
        ):
            chosen[node] = None
            computed |= dict.fromkeys(node.outputs)
            sources |= {name: array for name, array in arrays.items() if array is not None}
    results = [value for value in computed if any(use.node not in chosen for use in value.uses())]
    if not results:
        return False
    graph = GraphProto(
        name="constants",
        node=[serde.serialize_node(node) for node in chosen],
        input=[
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in sources.items()
        ],
        output=[helper.make_empty_tensor_value_info(str(value.name)) for value in results],
    )
    arrays_found = _run(_model(graph, model), sources)
    for value, array in zip(results, arrays_found, strict=True):
        _replace(model.graph, value, array)
    return True


def _run(model: ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return open_session(model.SerializeToString(), fused=False).run(None, inputs)  # type: ignore[no-any-return]
    except Exception as error:  # ONNX Runtime raises a type of its own for each status
        raise ConversionError(
            f"a constant of the model cannot be computed: {one_line(error)}",
            hint="export the model with constant folding",
        ) from error


def _is_static(value: ir.Value | None) -> bool:
    """Whether the shape of a tensor is known, and none too large to keep."""
    if value is None or value.shape is None or value.dtype is None:
        return False
    sizes = [dim for dim in value.shape if isinstance(dim, int)]
    return len(sizes) == len(value.shape) and math.prod(sizes) <= LARGEST_TENSOR


def _plain(value: ir.Value) -> np.ndarray | None:
    """The array of a constant in a number format that numpy has."""
    array = constant(value)
    return array if array is not None and array.dtype.kind in "biuf" else None


def _replace(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    stored = initializer(graph, str(value.name), np.asarray(array))
    ir.convenience.replace_all_uses_with(value, stored)

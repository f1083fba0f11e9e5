"""What depends on constants and static shapes alone is computed once, here."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime as ort
from onnx import ModelProto, helper

from edgecnn.graph.rewrite.edit import Rewrite, constant, initializer, known_shape

_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})


class InferShapes(ir.passes.InPlacePass):
    """Every tensor's shape, and every constant that follows from shapes.

    Exporters trace ``x.flatten(1, 2)`` or a padding as Shape, Gather, Concat and the like. The shapes behind
    such a calculation are known only after it has been made, hence the repetition.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Infer and compute until nothing is left to compute."""
        infer = passes.ShapeInferencePass()
        infer(model)
        while _ShapeToConstant()(model).modified | _compute(model):
            infer(model)
        return ir.passes.PassResult(model, True)


class _ShapeToConstant(Rewrite):
    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        shape = known_shape(node.inputs[0]) if node.op_type == "Shape" else None
        if shape is None or node.outputs[0].is_graph_output():
            return False
        part = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape)))
        _put_constant(graph, node.outputs[0], np.asarray(shape[part], np.int64))
        graph.remove(node, safe=True)
        return True


def _compute(model: ir.Model) -> bool:
    """Replace every node that reads constants alone by what ONNX Runtime computes for it."""
    graph = model.graph
    nodes: list[ir.Node] = []
    computed: set[ir.Value] = set()
    for node in graph:
        if _reads_only(node, computed):
            nodes.append(node)
            computed |= set(node.outputs)
    if not nodes:
        return False
    inner = set(nodes)
    results = [value for node in nodes for value in node.outputs]
    wanted = [value for value in results if any(use.node not in inner for use in value.uses())]
    session = ort.InferenceSession(_program(model, nodes, wanted).SerializeToString(), _quiet())
    for value, array in zip(wanted, session.run(None, {}), strict=True):
        _put_constant(graph, value, array)
    graph.remove(nodes)
    return True


def _reads_only(node: ir.Node, computed: set[ir.Value]) -> bool:
    """Whether a node's inputs are constants or in ``computed``, and its result is the same each time."""
    if not node.inputs or node.op_type in _RANDOM or node.domain not in ("", "ai.onnx"):
        return False
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    ):
        return False
    if any(value.is_graph_output() for value in node.outputs):
        return False
    return all(value is None or value in computed or constant(value) is not None for value in node.inputs)


def _program(model: ir.Model, nodes: list[ir.Node], wanted: list[ir.Value]) -> ModelProto:
    """A model without inputs that computes the values in ``wanted``."""
    stored = {
        str(value.name): value.const_value
        for node in nodes
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    program = helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constants",
        [],
        [helper.make_empty_tensor_value_info(str(value.name)) for value in wanted],
        [ir.to_proto(tensor) for tensor in stored.values()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return helper.make_model(program, opset_imports=opsets, ir_version=model.ir_version)


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return options


def _put_constant(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    replacement = initializer(graph, str(value.name), array)
    ir.convenience.replace_all_uses_with(value, replacement)

"""Rewrites from an exported ONNX graph to the canonical float graph. Each keeps the numbers as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from edgecnn.graph.graph import Graph, shape_of


def canonicalize(graph: Graph) -> Graph:
    """The canonical form of an exported float graph.

    After it: constants are initialisers; no Identity or Dropout is left; every tensor has a static shape;
    every Conv and Gemm has a bias of shape (out,); Gemm is ``x @ W.T + b`` with W as (out, in); a mean over
    height and width is GlobalAveragePool and GlobalMaxPool is MaxPool; no AveragePool counts its padding;
    every node and every weight has a readable, unique name.

    Raises:
        ConversionError: more than one input or output, or a shape that is not static.
    """
    model = graph.copy()
    sequence = ir.passes.Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.IdentityEliminationPass(),
        _DropDropout(),
        passes.ShapeInferencePass(),
        _MeanToGlobalAveragePool(),
        _GlobalMaxToMaxPool(),
        _SeparateCountedPadding(),
        _NormalizeGemm(),
        _AddBiases(),
        passes.RemoveUnusedNodesPass(),
        passes.ShapeInferencePass(),
        _ReadableNames(),
    )
    model = sequence(model).model
    canonical = Graph(model, graph.precision)
    for value in (
        canonical.input,
        canonical.output,
        *(output for node in model.graph for output in node.outputs),
    ):
        shape_of(value)
    return canonical


class _Rewrite(ir.passes.InPlacePass):
    """A pass that visits every node once."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        changed = False
        for node in list(model.graph):
            changed |= self.visit(model.graph, node)
        return ir.passes.PassResult(model, changed)

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        raise NotImplementedError


class _DropDropout(_Rewrite):
    """In inference Dropout is the identity; exporters leave it in when asked for training mode."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        if node.op_type != "Dropout":
            return False
        bypass(graph, node)
        return True


class _MeanToGlobalAveragePool(_Rewrite):
    """ReduceMean over H and W is GlobalAveragePool, followed by Flatten where the axes are dropped."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        x = node.inputs[0]
        if node.op_type != "ReduceMean" or x is None or x.shape is None or len(x.shape) != 4:
            return False
        axes = node.attributes.get_ints("axes") if "axes" in node.attributes else None
        if axes is None and len(node.inputs) > 1:
            given = constant(node.inputs[1])
            axes = None if given is None else given.tolist()
        if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
            return False
        pooled = ir.node("GlobalAveragePool", [x], name=f"{node.name}/GlobalAveragePool")
        if node.attributes.get_int("keepdims", 1):
            _replace(graph, node, pooled)
            return True
        pooled.outputs[0].name = f"{node.outputs[0].name}/pooled"
        graph.insert_before(node, pooled)
        _replace(graph, node, ir.node("Flatten", pooled.outputs, {"axis": 1}, name=f"{node.name}/Flatten"))
        return True


class _GlobalMaxToMaxPool(_Rewrite):
    """GlobalMaxPool is MaxPool with a window of the whole map, which every runtime has."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        x = node.inputs[0]
        if node.op_type != "GlobalMaxPool" or x is None or x.shape is None or len(x.shape) != 4:
            return False
        _replace(graph, node, ir.node("MaxPool", [x], {"kernel_shape": shape_of(x)[2:]}, name=node.name))
        return True


class _SeparateCountedPadding(_Rewrite):
    """AveragePool that counts its padding becomes Pad and AveragePool without padding.

    OpenVINO also counts what ceil mode reaches beyond the padding, and in int8 pads with the integer 0
    instead of the zero point. With the padding made part of the input nothing is left to disagree about.
    """

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        x, pads = node.inputs[0], node.attributes.get_ints("pads", ())
        counted = node.attributes.get_int("count_include_pad", 0)
        if node.op_type != "AveragePool" or x is None or not counted or not any(pads):
            return False
        half = len(pads) // 2
        amounts = np.asarray([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
        padding = ir.node(
            "Pad", [x, initializer(graph, f"{node.name}.pads", amounts)], name=f"{node.name}/Pad"
        )
        padding.outputs[0].name = f"{node.outputs[0].name}/padded"
        graph.insert_before(node, padding)
        node.replace_input_with(0, padding.outputs[0])
        del node.attributes["pads"], node.attributes["count_include_pad"]
        return True


class _NormalizeGemm(_Rewrite):
    """MatMul by a constant becomes Gemm; Gemm gets weights (out, in), a bias (out,), alpha and beta of 1."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        if node.op_type == "MatMul":
            return self._matmul(graph, node)
        if node.op_type != "Gemm" or (weight := constant(node.inputs[1])) is None:
            return False
        alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        transposed = bool(node.attributes.get_int("transB", 0))
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is None and len(node.inputs) > 2 and node.inputs[2] is not None:
            return False
        flat = bias is None or bias.shape == (weight.shape[0 if transposed else 1],)
        if transposed and flat and alpha == beta == 1.0:
            return False
        weight = np.ascontiguousarray((weight if transposed else weight.T) * np.float32(alpha))
        node.replace_input_with(1, initializer(graph, f"{node.name}.weight", weight))
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1) * np.float32(beta), weight.shape[:1]).copy()
            node.replace_input_with(2, initializer(graph, f"{node.name}.bias", bias))
        _set_attributes(node, {"alpha": 1.0, "beta": 1.0, "transB": 1})
        return True

    def _matmul(self, graph: ir.Graph, node: ir.Node) -> bool:
        x, weight = node.inputs[0], constant(node.inputs[1])
        if x is None or weight is None or weight.ndim != 2 or x.shape is None or len(x.shape) != 2:
            return False
        gemm_inputs = [x, initializer(graph, f"{node.name}.weight", np.ascontiguousarray(weight.T))]
        last = node
        users = [use.node for use in node.outputs[0].uses()]
        if len(users) == 1 and users[0].op_type == "Add" and not node.outputs[0].is_graph_output():
            other = [i for i in users[0].inputs if i is not node.outputs[0]]
            if (
                len(other) == 1
                and (bias := constant(other[0])) is not None
                and bias.shape == (weight.shape[1],)
            ):
                gemm_inputs.append(initializer(graph, f"{node.name}.bias", bias))
                last = users[0]
        gemm = ir.node("Gemm", gemm_inputs, {"transB": 1}, name=node.name)
        _replace(graph, last, gemm)
        if last is not node:
            graph.remove(node, safe=True)
        return True


class _AddBiases(_Rewrite):
    """Every Conv and Gemm carries a bias, so that quantisation and lowering meet one shape of node."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        if node.op_type not in ("Conv", "Gemm") or (len(node.inputs) > 2 and node.inputs[2] is not None):
            return False
        weight = constant(node.inputs[1])
        if weight is None:
            return False
        zero = initializer(graph, f"{node.name}.bias", np.zeros(weight.shape[0], np.float32))
        node.resize_inputs(3)
        node.replace_input_with(2, zero)
        return True


class _ReadableNames(ir.passes.InPlacePass):
    """Nodes are named by their module path, weights by their node, without slashes at the ends."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        taken = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
        # Taken out while nodes get their names: some of those may have been a weight's.
        stored = set(graph.initializers.values())
        graph.initializers.clear()
        for index, node in enumerate(graph):
            node.name = _unique(_module_path(node.name or f"{node.op_type}_{index}"), taken)
            for output in node.outputs:
                if not output.is_graph_output():
                    output.name = node.name if len(node.outputs) == 1 else f"{node.name}:{output.index()}"
        renamed: dict[str, ir.Value] = {}
        for node in graph:
            for position, value in enumerate(node.inputs):
                if value is None or value not in stored or value in renamed.values():
                    continue
                role = {1: "weight", 2: "bias"}.get(position) if node.op_type in ("Conv", "Gemm") else None
                renamed[_unique(f"{node.name}.{role or position}", taken)] = value
        for name, value in renamed.items():
            value.name = name
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy(), name=name)
            graph.initializers[name] = value
        return ir.passes.PassResult(model, True)


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initialiser, or None for anything computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant to the graph under a name that is not yet taken."""
    name = _unique(name, set(graph.initializers), register=False)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def bypass(graph: ir.Graph, node: ir.Node) -> None:
    """Remove a node with one data input and connect its input to its consumers."""
    source, old = node.inputs[0], node.outputs[0]
    assert source is not None
    if old.is_graph_output():
        # The output keeps its name; its producer, which must have one, takes it over.
        source.name = old.name
    ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node with one output in another's place; the output keeps its name, shape and type."""
    result = old.outputs[0]
    new.outputs[0].name, new.outputs[0].shape, new.outputs[0].type = result.name, result.shape, result.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(result, new.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)


def _set_attributes(node: ir.Node, values: dict[str, float | int]) -> None:
    for name, value in values.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)


def _module_path(exported: str) -> str:
    """``/features/features.1/conv/conv.0/conv.0.0/Conv`` -> ``features.1.conv.0.0/Conv``.

    The exporter repeats the path of the enclosing container in each part; the last part that starts with
    its predecessor's name says it all.
    """
    *modules, op = exported.strip("/").split("/") if "/" in exported else ["", exported]
    path: list[str] = []
    for part in filter(None, modules):
        container = path[-1].rsplit(".", 1)[-1] if path else ""
        if path and (part.startswith(f"{path[-1]}.") or path[-1] == part):
            path[-1] = part
        elif container and part.startswith(f"{container}."):
            path[-1] += part[len(container) :]
        else:
            path.append(part)
    return "/".join([*path, op])


def _unique(name: str, taken: set[str], *, register: bool = True) -> str:
    candidate, suffix = name, 1
    while candidate in taken:
        suffix += 1
        candidate = f"{name}_{suffix}"
    if register:
        taken.add(candidate)
    return candidate

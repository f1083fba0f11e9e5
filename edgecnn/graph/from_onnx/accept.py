"""What an .onnx file must be to be taken in; everything else is refused before any work on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, checker, defs, helper, numpy_helper

from edgecnn.errors import ConversionError, one_line
from edgecnn.graph.from_onnx.file import label, nodes, shown, tensors

OLDEST_OPSET, NEWEST_OPSET = 9, 22
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_DEFAULT_DOMAINS = ("", "ai.onnx")
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})


def check_network(model: ModelProto) -> None:
    """Refuse what edgecnn cannot compile whatever its weights and sizes are.

    Raises:
        ConversionError: another opset, operators on integers, operators that ONNX does not define, with
            control flow or random numbers, batch norm in training mode, several inputs or outputs.
    """
    opset = opset_of(model)
    if not opset:
        raise ConversionError("the model states no opset of ONNX's own operators", hint="export it again")
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ConversionError(
            f"the model has opset {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are taken",
            hint="export it with opset 17",
        )
    check_operators(model, opset)
    for node in nodes(model):
        if node.op_type != "BatchNormalization":
            continue
        training = any(item.name == "training_mode" and item.i for item in node.attribute)
        if training or sum(bool(name) for name in node.output) > 1:
            raise in_training_mode(label(node))
    _only(inputs_of(model.graph), "input")
    _only(model.graph.output, "output")


def check_weights(model: ModelProto) -> None:
    """Refuse tensors that do not hold what they state, or no numbers.

    An infinity is taken where a tensor has one element: it is a bound or a padding.

    Raises:
        ConversionError: sparse tensors, names given twice, a shape that does not match its data, NaN, Inf.
    """
    graph = model.graph
    sparse = any(item.HasField("sparse_tensor") for node in nodes(model) for item in node.attribute)
    if graph.sparse_initializer or sparse:
        raise ConversionError("the model holds sparse tensors", hint="export it with dense weights")
    names = Counter(tensor.name for tensor in graph.initializer)
    names.update(name for node in graph.node for name in node.output if name)
    names.update(value.name for value in inputs_of(graph))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConversionError(
            f"the model has {len(twice)} tensor names given twice, '{shown(twice[0])}' the first of them",
            hint="export it again",
        )
    for tensor in tensors(model):
        if tensor.data_type == TensorProto.STRING:
            continue
        array = array_of(tensor)
        if tensor.data_type not in FLOATS:
            continue
        bad = np.isnan(array) if array.size == 1 else ~np.isfinite(array)
        if bad.any():
            raise ConversionError(
                f"tensor '{shown(tensor.name)}' holds {int(bad.sum())} values that are NaN or infinite",
                hint="training diverged, or the export is damaged: export a good checkpoint",
            )


def array_of(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor.

    Raises:
        ConversionError: its data do not match its shape and type.
    """
    try:
        if min(tensor.dims, default=0) < 0 or tensor.HasField("segment"):
            raise ValueError("a negative size, or in segments")
        return numpy_helper.to_array(tensor)
    except Exception as error:  # of many types, on data that are too short, too long or of no known type
        raise ConversionError(
            f"the data of tensor '{shown(tensor.name)}' do not match its shape {tuple(tensor.dims)} and type",
            hint="the file is damaged; export or download it again",
        ) from error


def sort_nodes(graph: GraphProto) -> bool:
    """Bring the nodes into the order in which they run; True where they were not.

    Raises:
        ConversionError: a cycle, or an input that nothing produces.
    """
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    known = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    after: dict[int, list[int]] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in producer and name not in known:
                raise ConversionError(
                    f"{label(node)} takes '{shown(name)}', which nothing gives",
                    hint="the file is damaged; export or download it again",
                )
        after[i] = [producer[name] for name in node.input if name in producer]
    if all(source < i for i, sources in after.items() for source in sources):
        return False
    try:
        order = list(TopologicalSorter(after).static_order())
    except CycleError as error:
        through = graph.node[error.args[1][0]]
        raise ConversionError(
            f"the graph has a cycle through {label(through)}",
            hint="feed-forward networks are compiled; unroll the loop when exporting",
        ) from None
    ordered = [graph.node[i] for i in order]
    del graph.node[:]
    graph.node.extend(ordered)
    return True


def check_valid(model: ModelProto) -> None:
    """Let ONNX's own checker look at everything but the weights and the shape of the output.

    Two things that it lets pass end the process in ONNX's shape inference or in ONNX Runtime, and are looked
    at before: a Split into another number of parts than it has outputs, and an input left out where it must
    not be.

    Raises:
        ConversionError: it is not valid; the message is the checker's.
    """
    opset = opset_of(model)
    for node in model.graph.node:
        parts = next((item.i for item in node.attribute if item.name == "num_outputs"), len(node.output))
        if node.op_type == "Split" and parts != len(node.output):
            raise not_valid(f"Split into {parts} parts has {len(node.output)} outputs")
        if "" in node.input and node.domain in _DEFAULT_DOMAINS:
            formal = list(defs.get_schema(node.op_type, opset, "").inputs)
            for name, place in zip(node.input, formal[:-1] + formal[-1:] * len(node.input), strict=False):
                if not name and place.option != defs.OpSchema.FormalParameterOption.Optional:
                    raise not_valid(f"{node.op_type} lacks its input '{place.name}'")
    graph, given = model.graph, {value.name for value in model.graph.input}
    weights = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in given
    ]
    light = helper.make_graph(
        graph.node,
        graph.name or "network",
        [*graph.input, *weights],
        [helper.make_tensor_value_info(value.name, TensorProto.FLOAT, []) for value in graph.output],
    )
    try:
        checker.check_model(
            helper.make_model(
                light,
                ir_version=model.ir_version,
                opset_imports=model.opset_import,
                functions=model.functions,
            )
        )
    except Exception as error:  # its own, and those of the C++ below it
        raise not_valid(error) from error


def inputs_of(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that are none of the weights; up to IR version 3 weights are listed with them."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that the model uses, 0 where it states none."""
    return next((item.version for item in model.opset_import if item.domain in _DEFAULT_DOMAINS), 0)


def in_training_mode(layer: str) -> ConversionError:
    """The refusal of a layer that computes what only training does."""
    return ConversionError(
        f"{layer} is in training mode",
        hint="call model.eval() before the export, and export for inference",
    )


def not_valid(error: Exception | str) -> ConversionError:
    """The refusal of what is not ONNX as it is specified."""
    return ConversionError(f"the model is not valid ONNX: {one_line(error)}", hint="export it again")


def check_operators(model: ModelProto, opset: int) -> None:
    """Refuse operators that compute on integers, and those that no later stage can know.

    Raises:
        ConversionError: operators on integers, or those that ONNX does not define, with control flow, or that
            draw random numbers: all of them, counted.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    integers, dynamic, unknown = Counter[str](), Counter[str](), Counter[str]()
    for node in nodes(model):
        own = node.domain in _DEFAULT_DOMAINS
        name = shown(node.op_type if own else f"{node.domain}.{node.op_type}")
        if node.op_type in _DYNAMIC:
            dynamic[name] += 1
        elif node.op_type.startswith("QLinear") or name == "com.microsoft.QGemm":
            integers[name] += 1
        elif (node.domain, node.op_type) in functions:
            continue
        elif not own or node.op_type in _CONTROL_FLOW | _RANDOM or not _defined(node.op_type, opset):
            unknown[name] += 1
    if dynamic:
        raise ConversionError(
            f"the model is quantised dynamically, with scales computed for each image: {_counted(dynamic)}",
            hint="pass the float model; edgecnn quantises it with --precision int8",
        )
    if integers:
        raise ConversionError(
            f"the model is quantised in operators that one runtime alone has: {_counted(integers)}",
            hint="quantise it as QDQ (onnxruntime: quant_format=QuantFormat.QDQ), or pass the float model",
        )
    if unknown:
        raise ConversionError(
            f"the model has operators that opset {opset} does not define, or with control flow or random "
            f"numbers: {_counted(unknown)}",
            hint="export for inference, with standard ONNX operators and without control flow",
        )


def _defined(op_type: str, opset: int) -> bool:
    try:
        return not defs.get_schema(op_type, opset, "").deprecated
    except defs.SchemaError:
        return False


def _counted(operators: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(operators.items()))


def _only(values: Iterable[ValueInfoProto], what: str) -> None:
    names = [f"'{shown(value.name)}'" for value in values]
    if len(names) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ConversionError(
            f"the model has {len(names)} {what}s{f' ({listed})' if names else ''}; one is taken",
            hint="cut out what you need with onnx.utils.extract_model(source, file, [input], [output])",
        )

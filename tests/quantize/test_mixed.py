"""QDQ graphs in which some layers stay in float, and the other choices of a scheme that the form writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnx_ir.serde
import pytest

from edgecnn import check
from edgecnn.errors import ConfigError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.quantize.form import Quant, quantized_at, to_qdq
from edgecnn.quantize.mixed import float_nodes
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.quantize.ranges import Ranges
from edgecnn.quantize.scheme import Scheme
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x, float[4,3,3,3] w0, float[4,4,3,3] w1, float[4,4,1,1] w2, float[5,4] w3)
    => (float[1,5] logits) {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0)
    [relu0] r0 = Relu(c0)
    [second] c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    [swish] h = HardSwish(c1)
    [third] c2 = Conv<kernel_shape=[1,1]>(h, w2)
    [add] a = Add(r0, c2)
    [relu] r = Relu(a)
    [mean] g = GlobalAveragePool(r)
    [flatten] f = Flatten(g)
    [classes] logits = Gemm<transB=1>(f, w3)
}"""
LAYERS = ("first", "second", "third", "classes")


def images(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(canonical(NETWORK), images())


def mixed(prepared: Prepared, *layers: str) -> Graph:
    return prepared.qdq(replace(prepared.scheme, float_layers=frozenset(layers)))


def node(graph: Graph, name: str) -> ir.Node:
    return next(node for node in graph.model.graph if node.name == name)


def rounded(graph: Graph) -> set[str]:
    """Names of the activations that the graph rounds."""
    return {
        str(node.outputs[0].name).removesuffix(":quantized")
        for node in graph.model.graph
        if node.op_type == "QuantizeLinear"
    }


def named(graph: Graph, names: set[str]) -> set[str]:
    """Names of the nodes of these that compute in float."""
    return {str(node.name) for node in float_nodes(graph.model, names)}


def test_a_float_layer_keeps_its_weights_and_lies_between_the_others_integers(prepared: Prepared) -> None:
    graph = mixed(prepared, "second")
    second = node(graph, "second")
    original = constant(node(prepared.graph, "second").inputs[1])
    assert np.array_equal(constant(second.inputs[1]), original)  # type: ignore[arg-type]
    assert second.inputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    assert {use.node.op_type for use in second.outputs[0].uses()} == {"HardSwish"}
    assert {use.node.op_type for use in node(graph, "swish").outputs[0].uses()} == {"QuantizeLinear"}


def test_between_two_float_layers_nothing_is_rounded(prepared: Prepared) -> None:
    everywhere = rounded(mixed(prepared))
    assert everywhere - rounded(mixed(prepared, "second", "third")) == {"second", "swish"}
    assert named(prepared.convs, {"first", "second"}) == {"first", "relu0", "second", "swish"}


def test_an_addition_between_float_layers_is_in_float(prepared: Prepared) -> None:
    found = named(prepared.convs, {"first", "third", "classes"})
    assert {"add", "relu", "mean", "flatten"} <= found
    assert "add" not in named(prepared.convs, {"first", "third"})


def test_the_first_layer_reads_the_input_itself(prepared: Prepared) -> None:
    graph = mixed(prepared, "first")
    assert node(graph, "first").inputs[0] is graph.input
    assert not any(node.op_type == "QuantizeLinear" for node in graph.input.consumers())


def test_the_last_layer_gives_the_output_itself(prepared: Prepared) -> None:
    graph = mixed(prepared, "classes")
    producer = graph.output.producer()
    assert graph.output.name == "logits"
    assert producer is not None
    assert producer.name == "classes"


def test_every_layer_in_float_is_the_float_graph(prepared: Prepared) -> None:
    graph = mixed(prepared, *LAYERS)
    assert not rounded(graph)
    for image in images(2):
        expected, got = load_reference(prepared.graph)(image)[0], load_reference(graph)(image)[0]
        assert np.abs(expected - got).max() <= 1e-5


def test_each_layer_in_float_loses_less(prepared: Prepared) -> None:
    def noise(graph: Graph) -> float:
        exact, run = load_reference(prepared.graph), load_reference(graph)
        return sum(float(np.square(exact(image)[0] - run(image)[0]).sum()) for image in images(4))

    graphs = [mixed(prepared, *LAYERS[:count]) for count in range(len(LAYERS) + 1)]
    assert noise(graphs[-1]) < noise(graphs[2]) < noise(graphs[0])


def test_a_layer_that_is_not_there_is_refused(prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="no layer is called 'fourth'"):
        mixed(prepared, "fourth")


def test_back_ends_see_where_values_change_form(prepared: Prepared) -> None:
    found = operators(mixed(prepared, "second"))
    forms = [operator.name for operator in found if operator.op_type.endswith("Linear")]
    assert forms == [
        "x:QuantizeLinear",
        "relu0:DequantizeLinear",
        "swish:QuantizeLinear",
        "logits:DequantizeLinear",
    ]
    second = next(operator for operator in found if operator.name == "second")
    assert {operand.dtype for operand in second.inputs if operand is not None} == {np.dtype(np.float32)}


def test_an_artifact_whose_last_layer_is_in_float_is_checked(prepared: Prepared) -> None:
    graph = mixed(prepared, "classes")
    run = load_reference(graph)

    def loader(taps: list[str]) -> object:
        return load_reference(graph, [f"{name}:dequantized" for name in taps])

    outputs = check.outputs_of(prepared.graph, graph, images())
    held = check.int8_artifact(graph, outputs, loader, run, images())  # type: ignore[arg-type]
    assert held.value == 0
    with pytest.raises(check.ParityError, match="mean_abs_steps"):
        check.int8_artifact(graph, outputs, loader, lambda x: [run(x)[0] * 3], images())  # type: ignore[arg-type]


def test_what_is_rounded_behind_a_float_layer_stands_for_it(prepared: Prepared) -> None:
    layers = check._quantized_layers(mixed(prepared, "second"))
    assert layers["swish"] == "swish"
    assert check._quantized_layers(mixed(prepared, "third"))["third"] == "third"


def test_seven_bit_weights(prepared: Prepared) -> None:
    graph = prepared.qdq(replace(prepared.scheme, weight_bits=7))
    for layer in ("first", "second"):
        stored = constant(graph.model.graph.initializers[f"{layer}.weight:quantized"])
        assert stored is not None
        assert np.abs(stored.astype(int)).max() == 63


def test_one_weight_scale_a_tensor(prepared: Prepared) -> None:
    graph = prepared.qdq(replace(prepared.scheme, per_channel=False))
    for role in ("weight", "bias"):
        dequantize = node(graph, f"second.{role}:DequantizeLinear")
        assert constant(dequantize.inputs[1]).shape == ()  # type: ignore[union-attr]
        assert "axis" not in dequantize.attributes
    [image, *_] = images()
    expected, got = load_reference(prepared.graph)(image)[0], load_reference(graph)(image)[0]
    assert np.abs(expected - got).max() <= 0.1 * np.abs(expected).max()


def test_symmetric_activations(prepared: Prepared) -> None:
    graph = prepared.qdq(replace(prepared.scheme, symmetric=True))
    points = {
        str(node.name).partition(":")[0]: int(constant(node.inputs[2]))  # type: ignore[arg-type]
        for node in graph.model.graph
        if node.op_type == "QuantizeLinear"
    }
    assert points["x"] == points["logits"] == 128
    assert points["relu0"] == 0
    assert set(points.values()) == {0, 128}


@pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (-1.0, 3.0), (-1e-9, 0.0), (-2.0, 2.0)])
def test_symmetric_parameters_cover_the_range(low: float, high: float) -> None:
    quant = Quant.covering(low, high, symmetric=True)
    assert quant.zero_point == (128 if high - low > 1e-6 else quant.zero_point)
    assert (0 - quant.zero_point) * quant.scale <= low + 1e-6
    assert (255 - quant.zero_point) * quant.scale >= high - 1e-6


def test_one_tensor_taken_to_integers_and_back(prepared: Prepared) -> None:
    graph = canonical(NETWORK)
    for tensor in ("x", "r0", "logits"):
        name = {"r0": "relu0"}.get(tensor, tensor)
        changed = quantized_at(graph, name, Quant.covering(-4, 4))
        assert rounded(changed) == {name}
        [image, *_] = images()
        assert load_reference(changed)(image)[0].shape == (1, 5)
        assert not np.array_equal(load_reference(changed)(image)[0], load_reference(graph)(image)[0])


def test_float_layers_need_no_range() -> None:
    """The form takes the ranges it is given; those of tensors that stay in float do not matter."""
    graph = canonical(NETWORK)
    wild = Ranges({str(value.name): (-1e3, 1e3) for value in _activations(graph)})
    qdq = to_qdq(graph, wild, Scheme(float_layers=frozenset(LAYERS)))
    [image, *_] = images()
    assert np.allclose(load_reference(qdq)(image)[0], load_reference(graph)(image)[0], atol=1e-5)


def _activations(graph: Graph) -> list[ir.Value]:
    return [graph.input, *(output for node in graph.model.graph for output in node.outputs)]

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir.serde
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize, constant
from edgecnn.quantize.average import average_pools_as_convs
from edgecnn.quantize.equalize import Equalized, equalize, pairs
from edgecnn.quantize.rounding import round_weights, weight_scales
from edgecnn.quantize.scheme import DEFAULT, Scheme
from edgecnn.quantize.statistics import collect

CHANNELS = 6


def network(activation: str = "Clip(c, zero, six)", multiplier: int = 1) -> Graph:
    """Pointwise convolution, activation, depthwise convolution, with ranges that differ by the channel."""
    outputs = CHANNELS * multiplier
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        equalized (float[1,3,8,8] input) => (float[1,{outputs},8,8] logits)
        <float zero = {{0.0}}, float six = {{6.0}}>
        {{
            c = Conv <kernel_shape = [1, 1]> (input, w1, b1)
            a = {activation}
            logits = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = {CHANNELS}> (a, w2, b2)
        }}
    """)
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 0.5, 0.2, 0.1, 0.01, 0.0])
    arrays = {
        "w1": rng.normal(size=(CHANNELS, 3, 1, 1)) * spread[:, None, None, None],
        "b1": np.abs(rng.normal(size=CHANNELS)) * spread,
        "w2": rng.normal(size=(outputs, 1, 3, 3)),
        "b2": rng.normal(size=outputs),
    }
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(8)]


def equalized_by_images(graph: Graph, scheme: Scheme = DEFAULT) -> Equalized:
    return equalize(graph, collect(graph, images()).everything, scheme)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("activation", ["Clip(c, zero, six)", "Relu(c)"])
def test_the_function_stays_and_the_ranges_become_one(activation: str, multiplier: int) -> None:
    graph = network(activation, multiplier=multiplier)
    found = equalized_by_images(graph)
    [tensor] = found.factors
    equalized = found.graph
    assert found.activations[tensor] == (0.0, pytest.approx(highest(graph, tensor).max()))
    for image in images():
        expected, got = load_reference(graph)(image)[0], load_reference(equalized)(image)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    before, after = highest(graph, tensor), highest(equalized, tensor)
    assert before[:4].max() / before[:4].min() > 4
    assert after[:4].max() / after[:4].min() < 1.5
    # No channel is blown up by more than 16, dead or not.
    np.testing.assert_allclose(after[4:], 16 * before[4:], rtol=1e-5)


def highest(graph: Graph, tensor: str) -> np.ndarray:
    """Each channel's largest value on all images."""
    run = load_reference(graph, [tensor])
    channels: np.ndarray = np.max([run(image)[0].max(axis=(0, 2, 3)) for image in images()], axis=0)
    return channels


def test_no_integer_weight_changes() -> None:
    graph = round_weights(network())
    equalized = equalized_by_images(graph).graph

    def integers(of: Graph) -> list[np.ndarray]:
        weights = [constant(node.inputs[1]) for node in of.model.graph if node.op_type == "Conv"]
        scales = [weight_scales(weight).reshape(-1, 1, 1, 1) for weight in weights if weight is not None]
        return [np.rint(w / s) for w, s in zip(weights, scales, strict=True) if w is not None]

    for before, after in zip(integers(graph), integers(equalized), strict=True):
        np.testing.assert_array_equal(before[:5], after[:5])


@pytest.mark.parametrize("activation", ["HardSwish(c)", "Clip(c, six, six)", "Sigmoid(c)"])
def test_only_what_a_factor_passes_through_is_equalised(activation: str) -> None:
    assert pairs(network(activation)) == []


def test_a_second_reader_keeps_the_tensor_as_it_is() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        shared (float[1,2,4,4] input) => (float[1,2,4,4] logits)
        <float[2,2,1,1] w1 = {1, 0, 0, 1}, float[2] b = {0, 0}, float[2,1,1,1] w2 = {1, 1}>
        {
            c = Conv <kernel_shape = [1, 1]> (input, w1, b)
            a = Relu(c)
            d = Conv <kernel_shape = [1, 1], group = 2> (a, w2, b)
            logits = Add(a, d)
        }
    """)
    assert pairs(canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))) == []


def test_pooling_and_what_cannot_be_equalised_keep_nothing_else_from_it() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        made (float[1,3,8,8] input) => (float[1,4,2,2] logits)
        <float[4,3,1,1] w1 = {1,2,3,4,5,6,7,8,9,1,2,3}, float[4] b = {1,2,3,4},
        float[4,1,1,1] w2 = {1,2,3,4}, float[4] b2 = {1,2,3,4},
        float[4,1,1,1] w3 = {1,2,3,4}, float[4] b3 = {1,2,3,4}>
        {
            c = Conv(input, w1, b)
            a = Relu(c)
            [own] d = Conv<group=4>(a, w2, b2)
            h = HardSwish(d)
            [left] e = Conv<group=4>(h, w3, b3)
            r = Relu(e)
            [pool] p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r)
            logits = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)
        }"""
    graph = canonicalize(Graph(onnx_ir.serde.deserialize_model(onnx.parser.parse_model(text)), "fp32"))
    assert [pair.depthwise.name for pair in pairs(average_pools_as_convs(graph))] == ["own", "pool"]


def test_between_two_layers_in_float_nothing_is_equalised() -> None:
    graph = network()
    both = frozenset(str(node.name) for node in graph.model.graph if node.op_type == "Conv")
    assert equalized_by_images(graph, Scheme(float_layers=both)).factors == {}
    for one in both:
        assert len(equalized_by_images(graph, Scheme(float_layers=frozenset({one}))).factors) == 1

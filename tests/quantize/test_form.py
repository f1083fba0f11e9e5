"""The canonical QDQ form, rule by rule, on one small network."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import onnx_ir.serde
import pytest

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.quantize.quantize import prepare, quantize
from edgecnn.quantize.ranges import Ranges, find_ranges
from edgecnn.quantize.statistics import collect
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x, float[4,3,3,3] w0, float[4] b0, float[4,1,3,3] w1, float[4,4,1,1] w2,
    float[5,160] w3) => (float[1,5] logits)
    <float zero = {0}, float six = {6}, int64[5] split = {1, 2, 5, 4, 4}, int64[4] merged = {1, 10, 4, 4}> {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
    [relu6] r0 = Clip(c0, zero, six)
    [depthwise] c1 = Conv<group=4, kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    [sigmoid] s = Sigmoid(c1)
    [scale] m = Mul(c1, s)
    [project] c2 = Conv<kernel_shape=[1,1]>(m, w2)
    [add] a = Add(r0, c2)
    [relu] r = Relu(a)
    [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    [image] i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
    [mean] g = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)
    [concat] k = Concat<axis=1>(p, i, g)
    [split] h = Reshape(k, split)
    [shuffle] t = Transpose<perm=[0,2,1,3,4]>(h)
    [merge] u = Reshape(t, merged)
    [flatten] f = Flatten(u)
    [classes] logits = Gemm<transB=1>(f, w3)
}"""
MOVED = {"pool", "concat", "split", "shuffle", "merge", "flatten", "image"}


def images(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@functools.cache
def float_graph() -> Graph:
    return canonical(NETWORK)


@functools.cache
def qdq_graph() -> Graph:
    return quantize(float_graph(), images())


def nodes(op_type: str, graph: Graph | None = None) -> list[ir.Node]:
    return [node for node in (graph or qdq_graph()).model.graph if node.op_type == op_type]


def array(value: ir.Value | None) -> np.ndarray:
    found = constant(value)
    assert found is not None
    return found


def dequantized_weights() -> Iterator[tuple[ir.Node, ir.Node, ir.Node, ir.Node]]:
    """Each Conv and Gemm with the DequantizeLinear of its input, weight and bias."""
    for node in [*nodes("Conv"), *nodes("Gemm")]:
        producers = [value.producer() for value in node.inputs if value is not None]
        assert all(producer is not None and producer.op_type == "DequantizeLinear" for producer in producers)
        yield (node, *producers)  # type: ignore[misc]


def test_activations_are_uint8_with_one_scale() -> None:
    for node in nodes("QuantizeLinear"):
        scale, zero_point = array(node.inputs[1]), array(node.inputs[2])
        assert scale.shape == zero_point.shape == ()
        assert scale.dtype == np.float32
        assert zero_point.dtype == np.uint8


def test_weights_are_int8_symmetric_by_output_channel() -> None:
    found = list(dequantized_weights())
    assert len(found) == 5
    for node, _, dequantize, _ in found:
        stored, scale, zero_point = (array(value) for value in dequantize.inputs)
        assert stored.dtype == np.int8
        assert np.abs(stored.astype(int)).reshape(len(stored), -1).max(axis=1).tolist() == [127] * len(stored)
        assert scale.shape == zero_point.shape == (len(stored),), node.name
        assert not zero_point.any()
        assert dequantize.attributes.get_int("axis", 1) == 0


def test_biases_are_int32_in_units_of_input_times_weight() -> None:
    for _, x, weight, bias in dequantized_weights():
        stored, scale, zero_point = (array(value) for value in bias.inputs)
        assert stored.dtype == np.int32
        assert not zero_point.any()
        assert np.array_equal(scale, array(x.inputs[1]) * array(weight.inputs[1]))
        assert bias.attributes.get_int("axis", 1) == 0


def test_activations_that_the_integers_enforce_are_dropped() -> None:
    assert not nodes("Clip")
    [relu6] = [node for node in nodes("QuantizeLinear") if node.name == "relu6:QuantizeLinear"]
    assert array(relu6.inputs[1]) * 255 <= np.float32(6)


def test_activations_that_the_integers_do_not_enforce_stay() -> None:
    """Concat joins the Relu's output to the image, whose grid reaches below zero."""
    assert [node.name for node in nodes("Relu")] == ["relu"]


def test_what_only_moves_values_keeps_their_scale() -> None:
    for operator in operators(qdq_graph()):
        if operator.name in MOVED:
            outputs = {(float(o.scale[0]), int(o.zero_point[0])) for o in operator.outputs}  # type: ignore[index]
            inputs = {
                (float(i.scale[0]), int(i.zero_point[0]))  # type: ignore[index]
                for i in operator.inputs
                if i is not None and i.data is None
            }
            assert inputs == outputs, operator.name


@pytest.mark.parametrize(
    ("op_type", "grid"), [("Sigmoid", (1 / 256, 0)), ("Softmax", (1 / 256, 0)), ("Tanh", (1 / 128, 128))]
)
def test_fixed_grids(op_type: str, grid: tuple[float, int]) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,8] x, float[3,3,1,1] w) => (float[1,3,8,8] y) {{
        c = Conv(x, w)
        y = {op_type}{"<axis=1>" if op_type == "Softmax" else ""}(c)
    }}"""
    quantized = nodes("QuantizeLinear", quantize(canonical(text), images()))[-1]
    assert (float(array(quantized.inputs[1])), int(array(quantized.inputs[2]))) == grid


def test_the_output_is_quantised_and_keeps_its_name() -> None:
    output = qdq_graph().output
    producer = output.producer()
    assert output.name == "logits"
    assert producer is not None
    assert producer.op_type == "DequantizeLinear"
    assert array(producer.inputs[1]).shape == ()
    source = producer.inputs[0]
    assert source is not None
    assert source.producer().op_type == "QuantizeLinear"  # type: ignore[union-attr]


def test_nothing_is_left_over() -> None:
    graph = qdq_graph().model.graph
    assert all(value.uses() for value in graph.initializers.values())
    floats = [value for value in graph.initializers.values() if array(value).dtype == np.float32]
    assert all(str(value.name).endswith(":scale") for value in floats)
    assert all(output.uses() or output.is_graph_output() for node in graph for output in node.outputs)


def test_names_are_unique() -> None:
    graph = qdq_graph().model.graph
    names = [str(node.name) for node in graph]
    assert len(names) == len(set(names))
    values = [str(output.name) for node in graph for output in node.outputs] + list(graph.initializers)
    assert len(values) == len(set(values))


def test_the_float_graph_stays_as_it_was() -> None:
    before = Graph(float_graph().copy(), "fp32").serialized
    quantize(float_graph(), images(1))
    assert Graph(float_graph().copy(), "fp32").serialized == before


def test_a_dead_channel_with_a_large_bias_fits_int32() -> None:
    graph = float_graph()
    model = graph.copy()
    weight, bias = model.graph.initializers["first.weight"], model.graph.initializers["first.bias"]
    strength = np.asarray([0, 1e-30, 1, 1], np.float32).reshape(-1, 1, 1, 1)
    weight.const_value = ir.tensor(array(weight) * strength, name=weight.name)
    bias.const_value = ir.tensor(np.asarray([4.0, -1e6, 1.0, 0.0], np.float32), name=bias.name)
    changed = Graph(model, "fp32")
    qdq = quantize(changed, images())
    [dequantize] = [
        node for node in nodes("DequantizeLinear", qdq) if node.name == "first.bias:DequantizeLinear"
    ]
    stored, scale = array(dequantize.inputs[0]), array(dequantize.inputs[1])
    assert np.abs(stored.astype(np.int64)).max() <= 2**30
    assert stored * scale.astype(np.float64) == pytest.approx([4.0, -1e6, 1.0, 0.0], rel=1e-2, abs=0.05)


def test_all_weights_dead() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,8] x) => (float[1,2,8,8] y)
    <float[2,3,1,1] w = {0, 0, 0, 0, 0, 0}, float[2] b = {0.25, -3}> { y = Conv(x, w, b) }"""
    graph = canonical(text)
    got = load_reference(quantize(graph, images()))(images()[0])[0]
    assert np.abs(got - load_reference(graph)(images()[0])[0]).max() <= 3.25 / 255


def test_constants_of_pad_and_concat_are_in_range() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,8] x, float[1,3,10,8] k) => (float[1,6,10,8] y)
    <int64[8] pads = {0, 0, 1, 0, 0, 0, 1, 0}, float value = {9}, float far = {5}> {
        p = Pad(x, pads, value)
        y = Concat<axis=1>(p, k)
    }"""
    graph = canonical(text)
    got = load_reference(quantize(graph, images()))(images()[0])[0]
    assert np.abs(got - load_reference(graph)(images()[0])[0]).max() <= 13 / 255


def test_rounded_weights_are_reproduced_exactly() -> None:
    rounded = prepare(float_graph(), images()).parts().rounded
    for node, _, dequantize, _ in dequantized_weights():
        exact = array(rounded.model.graph.initializers[f"{node.name}.weight"])
        stored, scale = array(dequantize.inputs[0]), array(dequantize.inputs[1])
        steps = exact / scale.reshape(-1, *([1] * (exact.ndim - 1)))
        assert np.abs(steps - stored).max() <= 1e-4, node.name


def test_quantising_twice_gives_the_same_bytes() -> None:
    assert quantize(float_graph(), images()).digest == qdq_graph().digest


def test_every_image_is_reported_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    reports: list[tuple[str, float, float | None]] = []
    quantize(float_graph(), images(3), lambda *report: reports.append(report))
    assert [done for what, done, _ in reports if what == "calibrating"] == sorted(
        done for what, done, _ in reports if what == "calibrating"
    )
    assert ("calibrating", 3, 3) in reports
    assert {total for _, _, total in reports} == {3}
    assert capfd.readouterr() == ("", "")


def test_telemetry_is_never_imported() -> None:
    program = """
import sys, socket
def refuse(*arguments, **options): raise AssertionError("opens a connection")
socket.socket.connect = refuse
import edgecnn.quantize.quantize, edgecnn.backends.openvino
assert sys.modules["openvino_telemetry"] is None
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_computed_weight_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,8] x) => (float[1,1,8,8] y) <float[1,3,1,1] w = {1, 2, 3}, float[1] b = {0}> {
        p = GlobalAveragePool(x)
        v = Mul(p, w)
        [here] y = Conv(x, v, b)
    }"""
    with pytest.raises(ConversionError, match=r"Conv \(node 'here'\) computes its weight"):
        quantize(canonical(text), images())


def test_ranges_hold_only_what_calibration_found() -> None:
    ranges = find_ranges(float_graph(), collect(float_graph(), images()).everything, "mean")
    assert isinstance(ranges, Ranges)
    assert all(low <= high for low, high in ranges.activations.values())

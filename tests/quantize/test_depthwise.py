"""Batch norm as a depthwise convolution: the same numbers, and nothing lost in its weights."""

from __future__ import annotations

import numpy as np
import onnx_ir.serde
from onnx import numpy_helper
from onnx.parser import parse_model

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize, constant
from edgecnn.quantize.depthwise import batch_norms_as_convs
from edgecnn.quantize.quantize import quantize


def network(shared: bool = False) -> Graph:
    """A map through Relu and batch norm; with ``shared`` its four constants are one."""
    model = parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,4,5,6] x, float[4] gamma, float[4] beta, float[4] mean, float[4] variance)
        => (float[1,4,5,6] y) {
        r = Relu(x) [norm] y = BatchNormalization<epsilon=0.1>(r, gamma, beta, mean, variance) }""")
    rng = np.random.default_rng(0)
    for value in list(model.graph.input)[1:]:
        array = np.abs(rng.normal(size=4)) + 0.1
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), value.name))
        model.graph.input.remove(value)
    if shared:
        for position in (2, 3, 4):
            model.graph.node[1].input[position] = "gamma"
        del model.graph.initializer[1:]
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))


def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 4, 5, 6)).astype(np.float32)


def test_the_numbers_stay() -> None:
    for graph in (network(), network(shared=True)):
        converted = batch_norms_as_convs(graph)
        assert [node.op_type for node in converted.model.graph] == ["Relu", "Conv"]
        expected, got = load_reference(graph)(image())[0], load_reference(converted)(image())[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        assert all(value.uses() for value in converted.model.graph.initializers.values())


def test_its_int8_weights_are_exact() -> None:
    graph = network()
    weight = next(n for n in batch_norms_as_convs(graph).model.graph if n.op_type == "Conv").inputs[1]
    exact = constant(weight)
    qdq = quantize(graph, [image()])
    dequantize = next(n for n in qdq.model.graph if n.name == "norm.weight:DequantizeLinear")
    stored, scale = constant(dequantize.inputs[0]), constant(dequantize.inputs[1])
    assert exact is not None
    assert stored is not None
    assert scale is not None
    assert np.abs(stored).tolist() == np.full((4, 1, 1, 1), 127).tolist()
    np.testing.assert_allclose(stored.reshape(-1) * scale, exact.reshape(-1), rtol=1e-6)

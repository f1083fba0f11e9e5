"""The canonical float graph: its rewrites, its names, its cost, its bytes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir.serde
import pytest
from onnx import ModelProto
from onnx.parser import parse_model
from onnx.reference import ReferenceEvaluator

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.half import to_fp16
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize, constant
from tests.networks import filled, plain

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,4,8,8] input, float[6,2,3,3] w0, float[6,6,1,1] split, float[6] b1, float[6,5] w2,
    float[5] b2) => (float[1,5] logits)
    <float zero = {0}, float six = {6}, int64[5] five = {1, 2, 3, 4, 4}, int64[4] four = {1, 6, 4, 4}> {
    [conv] c0 = Conv<group=2, kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(input, w0)
    [clip] r0 = Clip(c0, zero, six)
    [split] s = Reshape(r0, five)
    [input] t = Transpose<perm=[0,2,1,3,4]>(s)
    m = Reshape(t, four)
    i = Identity(m)
    [same] c1 = Conv<kernel_shape=[1,1]>(i, split, b1)
    [same] a = Add(c1, i)
    d = Dropout(a)
    [mean] g = ReduceMean<axes=[2,3], keepdims=0>(d)
    [product] p = MatMul(g, w2)
    [logits] logits = Add(p, b2)
}"""


def exported() -> ModelProto:
    """The network as torch would name it: with module paths, and some names given twice."""
    model = parse_model(NETWORK)
    paths = {"conv": "/features/features.0/Conv", "clip": "/features/features.1/Clip"}
    for node in model.graph.node:
        node.name = paths.get(node.name, node.name)
    return filled(model, plain)


def graph() -> Graph:
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(exported()), "fp32"))


def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)


def test_canonical_numbers_are_the_exported_ones() -> None:
    expected = ReferenceEvaluator(exported()).run(None, {"input": image()})[0]
    assert load_reference(graph())(image())[0] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_canonicalising_again_changes_nothing() -> None:
    once = graph()
    assert canonicalize(once).serialized == once.serialized


def test_equal_graphs_give_equal_bytes() -> None:
    assert graph().serialized == graph().serialized
    assert graph().digest == graph().digest
    assert len(graph().digest) == 64


def test_canonicalising_leaves_the_source_as_it_was() -> None:
    source = Graph(onnx_ir.serde.deserialize_model(exported()), "fp32")
    before = Graph(source.copy(), "fp32").serialized
    canonicalize(source)
    assert Graph(source.copy(), "fp32").serialized == before


def test_the_operators_left() -> None:
    found = [node.op_type for node in graph().model.graph]
    assert found[:7] == ["Conv", "Clip", "Reshape", "Transpose", "Reshape", "Conv", "Add"]
    assert found[7:] == ["GlobalAveragePool", "Flatten", "Gemm"]


def test_names_are_readable_and_unique() -> None:
    canonical = graph().model.graph
    names = [str(node.name) for node in canonical]
    assert names[:2] == ["features.0/Conv", "features.1/Clip"]
    assert names[5:8] == ["same", "same_2", "mean/GlobalAveragePool"]
    assert len(set(names)) == len(names)
    values = [str(output.name) for node in canonical for output in node.outputs]
    values += [*canonical.initializers, *(str(value.name) for value in canonical.inputs)]
    assert len(set(values)) == len(values)
    assert (graph().input.name, graph().output.name) == ("input", "logits")
    weights = ["features.0/Conv.weight", "features.0/Conv.bias", "same.weight", "same.bias"]
    assert set(weights) <= set(canonical.initializers)


def test_every_layer_has_a_bias_and_gemm_one_form() -> None:
    canonical = graph().model.graph
    for node in canonical:
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
            assert weight is not None
            assert bias is not None
            assert bias.shape == weight.shape[:1]
        if node.op_type == "Gemm":
            assert node.attributes.get_int("transB", 0) == 1
            assert node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0


def test_operators_carry_their_activation() -> None:
    first, *_ = operators(graph())
    assert (first.op_type, first.activation) == ("Conv", (0.0, 6.0))
    assert first.outputs[0].name == "features.1/Clip"
    assert math.prod(first.outputs[0].shape) == 96


def test_half_precision_halves_the_weights() -> None:
    half = to_fp16(graph())
    stored = {name: value.const_value for name, value in half.model.graph.initializers.items()}
    assert stored["same.weight:fp16"].dtype.numpy() == np.float16  # type: ignore[union-attr]
    assert "same.weight" not in stored
    weight = next(op for op in operators(half) if op.name == "same").inputs[1]
    assert weight is not None
    assert weight.dtype == np.float16
    assert weight.real.dtype == np.float32


def test_a_weight_beyond_half_precision_is_refused() -> None:
    model = graph().copy()
    value = model.graph.initializers["same.bias"]
    value.const_value = onnx_ir.tensor(np.full(6, 70000, np.float32), name="same.bias")
    with pytest.raises(ConversionError, match=r"'same.bias' holds 7e\+04, beyond fp16"):
        to_fp16(Graph(model, "fp32"))


def test_more_than_a_file_can_hold_is_refused() -> None:
    model = graph().copy()
    value = model.graph.initializers["same.weight"]
    value.const_value = onnx_ir.tensor(np.broadcast_to(np.float32(0), (2**29,)), name="same.weight")
    with pytest.raises(ConversionError, match=r"network has 2\.15 GB of weights"):
        _ = Graph(model, "fp32").serialized

"""What is refused names the operator, its node and what would have been known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir.serde
import pytest
from onnx.parser import parse_model

from edgecnn.backends import backend
from edgecnn.backends.tflite.lower import LOWERINGS, lower
from edgecnn.errors import ConfigError, ConversionError, MissingDependency
from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.groups import QUANTIZABLE
from edgecnn.quantize.quantize import quantize
from edgecnn.target import load_target


def parsed(text: str) -> Graph:
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> network {text}')
    return Graph(onnx_ir.serde.deserialize_model(model), "fp32")


UNKNOWN = """(float[1,3,4,4] x) => (float[1,3,4,4] y) {
    [mix] a = Erf(x) [fold] b = Einsum<equation="nchw->nchw">(a) [mix2] c = Erf(b) [relu] y = Relu(c) }"""
LSTM = """(float[1,3,4] x, float[1,8,4] w, float[1,8,2] r) => (float[1,1,3,2] y) {
    [memory] y = LSTM<hidden_size=2>(x, w, r) }"""


def test_tflite_lists_what_it_knows() -> None:
    message = r"no lowering for 2 Erf, 1 Einsum \(first: node 'mix'\)$"
    with pytest.raises(ConversionError, match=message) as caught:
        lower(canonicalize(parsed(UNKNOWN)))
    assert caught.value.hint is not None
    assert all(operator in caught.value.hint for operator in LOWERINGS)


def test_int8_lists_what_it_knows() -> None:
    message = r"int8 has no form for 2 Erf, 1 Einsum \(first: node 'mix'\)$"
    with pytest.raises(ConversionError, match=message) as caught:
        quantize(canonicalize(parsed(UNKNOWN)), [np.zeros((1, 3, 4, 4), np.float32)])
    assert caught.value.hint is not None
    assert all(operator in caught.value.hint for operator in QUANTIZABLE)


def test_a_recurrent_network_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"3 inputs \(x, w, r\)"):
        canonicalize(parsed(LSTM))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Relu(x) }",
            r"tensor 'x' has no static shape",
        ),
        (
            "(float[1,3,H,4] x) => (float[1,3,H,4] y) { y = Relu(x) }",
            r"tensor 'x' has no static shape",
        ),
        (
            "(float[1,3,4,4] x) => (float[1,3,4,4] y, float[1,3,4,4] z) { y = Relu(x) z = Sigmoid(x) }",
            r"2 outputs \(y, z\)",
        ),
        (
            "(float[1,3,4,4] x, float[1,3,4,4] z) => (float[1,3,4,4] y) { y = Add(x, z) }",
            r"2 inputs \(x, z\)",
        ),
    ],
)
def test_not_one_static_image_in_and_one_result_out(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        canonicalize(parsed(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            """(float[1,3,4,4] x) => (float[1,3,4,2] y)
            <int64[1] last = {-1}, int64[1] first = {0}, int64[1] axis = {3}, int64[1] back = {-2}> {
            [here] y = Slice(x, last, first, axis, back) }""",
            r"Slice \(node 'here'\): it runs backwards",
        ),
        (
            "(float[1,3,4,4] x) => (float[1,3,4,4] y) { [here] y = LRN<size=4>(x) }",
            r"LRN \(node 'here'\): its window of 4",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,4,4] y)
            <float[3] one = {1,2,3}, float[3] zero = {0,0,0}, int64[1] row = {3}> {
            p = GlobalAveragePool(x) s = Sigmoid(p) v = Reshape(s, row)
            [here] y = BatchNormalization(x, one, zero, zero, v) }""",
            r"BatchNormalization \(node 'here'\): its variance is not a constant",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,6,4] y) <int64[8] pads = {0,0,1,0,0,0,1,0}> {
            [here] y = Pad<mode="reflect">(x, pads) }""",
            r"Pad \(node 'here'\): its mode is 'reflect'",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,2,2] y) {
            [here] y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x) }""",
            r"MaxPool \(node 'here'\): its window is dilated",
        ),
        (
            "(float[1,3,4] x) => (float[1,3,3] y) { [here] y = MaxPool<kernel_shape=[2]>(x) }",
            r"MaxPool \(node 'here'\) works on 3 dimensions",
        ),
        (
            "(float[1,3,4,4] x) => (float[1,3,4,4] y) { [here] y = Softmax<axis=2>(x) }",
            r"Softmax \(node 'here'\): axis 2 of 4",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,4,4] y) { [rows] z = ReduceMax<axes=[0,1,2], keepdims=0>(x)
            [here] y = Add(x, z) }""",
            r"no lowering for 1 ReduceMax \(first: node 'rows'\)",
        ),
    ],
)
def test_forms_that_tflite_cannot_express(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        lower(canonicalize(parsed(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            """(float[1,3,4,4] x) => (float[1,3,4,4] y) {
            [here] y = MaxPool<kernel_shape=[3,3], auto_pad="SAME_UPPER">(x) }""",
            r"MaxPool \(node 'here'\): auto_pad is 'SAME_UPPER'",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,2,4] y) <int64[8] pads = {0,0,-1,0,0,0,-1,0}> {
            [here] y = Pad(x, pads) }""",
            r"Pad \(node 'here'\): it has negative padding",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,2,4] y) {
            [here] y = MaxPool<kernel_shape=[1,1], pads=[-1,0,-1,0]>(x) }""",
            r"MaxPool \(node 'here'\): it has negative padding",
        ),
        (
            """(float[1,3,4,4] x) => (float[1,3,4] y) {
            [here] y = ReduceMean<axes=[3], keepdims=0>(x) }""",
            r"ReduceMean \(node 'here'\): it is not in the canonical form",
        ),
    ],
)
def test_forms_that_canonicalising_would_have_changed_or_refused(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        lower(parsed(text))


def test_nothing_is_written_for_a_graph_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError):
        backend("tflite").compile(canonicalize(parsed(UNKNOWN)), load_target("tflite"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_runtime_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="unknown runtime 'tflight'") as caught:
        backend("tflight")
    assert caught.value.hint == "did you mean tflite?"


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "edgecnn.backends.openvino", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependency, match="openvino") as caught:
        backend("openvino")
    assert caught.value.hint == "pip install 'edgecnn[openvino]'"

"""Which TFLite operations a pattern becomes: those that the runtime executes fast, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.backends.tflite.lower import lower
from edgecnn.backends.tflite.verify import verify
from edgecnn.graph.graph import shape_of
from edgecnn.quantize.quantize import quantize
from tests.networks import canonical, scaled


def codes(text: str, precision: str) -> list[str]:
    """The operations of a network, without those that take its input to int8 and its output back."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> network {text}'
    graph = canonical(text, lambda *given: np.abs(scaled(*given)))
    if precision == "int8":
        rng = np.random.default_rng(1)
        graph = quantize(graph, [rng.normal(size=shape_of(graph.input)).astype(np.float32)])
    lowered = lower(graph)
    verify(lowered)
    found = [op.code for op in lowered.operations]
    return found[1:-1] if precision == "int8" else found


def shuffle(split: str, perm: str) -> str:
    return f"""(float[1,6,4,5] x, float[6,6,1,1] w, float[2,6,1,1] v) => (float[1,2,4,5] y)
        <int64[{split.count(",") + 1}] split = {{{split}}}, int64[4] merged = {{1, 6, 4, 5}}> {{
        c = Conv(x, w) s = Reshape(c, split) t = Transpose<perm=[{perm}]>(s) m = Reshape(t, merged)
        y = Conv(m, v) }}"""


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("split", "perm"),
    [
        ("1,2,3,4,5", "0,2,1,3,4"),
        ("1,3,2,20", "0,2,1,3"),
        ("2,3,20", "1,0,2"),
        ("1,1,3,2,4,5", "0,1,3,2,4,5"),
    ],
)
def test_a_channel_shuffle_is_one_transposition(precision: str, split: str, perm: str) -> None:
    expected = ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE", "CONV_2D"]
    assert codes(shuffle(split, perm), precision) == expected


@pytest.mark.parametrize(("split", "perm"), [("1,2,3,4,5", "0,2,1,4,3"), ("1,6,5,4", "0,1,3,2")])
def test_other_rearrangements_pass_through_the_graph_s_layout(split: str, perm: str) -> None:
    assert codes(shuffle(split, perm), "fp32").count("TRANSPOSE") > 1


def test_a_shuffle_whose_middle_is_read_elsewhere_is_none() -> None:
    text = """(float[1,4,2,3] x) => (float[1,4,2,3] y)
        <int64[5] split = {1, 2, 2, 2, 3}, int64[4] merged = {1, 4, 2, 3}> {
        s = Reshape(x, split) t = Transpose<perm=[0,2,1,3,4]>(s) m = Reshape(t, merged)
        n = Reshape(s, merged) y = Add(m, n) }"""
    assert codes(text, "fp32").count("TRANSPOSE") > 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tensorflow_s_padding_needs_no_operation(precision: str) -> None:
    text = """(float[1,3,10,10] x, float[6,3,3,3] w, float[6,1,5,5] v) => (float[1,6,3,3] y)
        <int64[8] one = {0,0,0,0,0,0,1,1}, int64[8] two = {0,0,2,2,0,0,2,2}> {
        p = Pad(x, one) c = Conv<strides=[2,2]>(p, w) q = Pad(c, two)
        y = Conv<strides=[2,2], group=6>(q, v) }"""
    assert codes(text, precision) == ["CONV_2D", "DEPTHWISE_CONV_2D"]


POOL = """(float[1,3,8,8] x, float[4,3,1,1] w) => (float[1,4,4,4] y) <float low = {LOW}> {
    c = Conv(x, w) r = Clip(c, low) y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r) }"""


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_max_pool_behind_a_relu_is_padded_with_zeros(precision: str) -> None:
    assert codes(POOL.replace("LOW", "0"), precision)[-2:] == ["PAD", "MAX_POOL_2D"]
    assert codes(POOL.replace("LOW", "-0.5"), precision)[-2:] == ["PADV2", "MAX_POOL_2D"]


@pytest.mark.parametrize(
    ("operator", "code"),
    [
        ("LRN<size=3>(x)", "LOCAL_RESPONSE_NORMALIZATION"),
        ("HardSwish(x)", "HARD_SWISH"),
        ("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", "AVERAGE_POOL_2D"),
    ],
)
def test_what_runs_in_float_between_integers(operator: str, code: str) -> None:
    text = f"(float[1,3,5,5] x) => (float[1,3,5,5] y) {{ y = {operator} }}"
    assert codes(text, "fp32") == [code]
    assert codes(text, "int8") == ["DEQUANTIZE", code, "QUANTIZE"]


def test_two_such_operators_take_a_tensor_to_float_each_by_itself() -> None:
    text = """(float[1,3,5,5] x, float[3,3,1,1] w) => (float[1,3,5,5] y) {
        c = Conv(x, w) a = HardSwish(c) b = LRN<size=3>(c) y = Add(a, b) }"""
    assert codes(text, "int8").count("CONV_2D") == 1


def test_a_lone_relu_in_int8_is_a_product() -> None:
    text = "(float[1,3,6,6] x) => (float[1,3,6,6] y) { y = Relu(x) }"
    assert codes(text, "fp32") == ["RELU"]
    assert codes(text, "int8") == ["MUL"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_batch_norm_and_its_relu_are_one_operation(precision: str) -> None:
    text = """(float[1,4,5,5] x, float[4] gamma, float[4] beta, float[4] mean, float[4] variance,
        float[2,4,1,1] w) => (float[1,2,5,5] y) {
        n = BatchNormalization(x, gamma, beta, mean, variance) r = Relu(n) y = Conv(r, w) }"""
    assert codes(text, precision) == ["DEPTHWISE_CONV_2D", "CONV_2D"]


def test_only_slices_with_steps_are_strided() -> None:
    text = """(float[1,3,6,6] x) => (float[1,3,2,6] y)
        <int64[1] one = {1}, int64[1] five = {5}, int64[1] axis = {2}, int64[1] two = {2},
        int64[1] zero = {0}> {
        a = Slice(x, one, five, axis) b = Relu(a) y = Slice(b, zero, five, axis, two) }"""
    assert codes(text, "fp32") == ["SLICE", "RELU", "STRIDED_SLICE"]

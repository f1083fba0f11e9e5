"""Arithmetic and weights of each operator, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgecnn.cost import Bytes, Costs
from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph

CountText = Callable[..., Costs]
MAP = "float[1,4,6,6] x"
ELEMENTS = 4 * 6 * 6

OTHER_OPS = {
    "y = Relu(x)": ELEMENTS,
    "y = LeakyRelu<alpha=0.1>(x)": 2 * ELEMENTS,
    "low = Constant<value_float=0.0>() high = Constant<value_float=6.0>() y = Clip(x, low, high)": 2
    * ELEMENTS,
    "high = Constant<value_float=6.0>() y = Clip(x, , high)": ELEMENTS,
    "y = HardSwish(x)": 5 * ELEMENTS,
    "y = HardSigmoid(x)": 4 * ELEMENTS,
    "y = Sigmoid(x)": 4 * ELEMENTS,
    "y = Tanh(x)": ELEMENTS,
    "y = Softmax<axis=1>(x)": 5 * ELEMENTS - 2 * 36,
    "y = Add(x, x)": ELEMENTS,
    "s = Add(x, x) y = Relu(s)": 2 * ELEMENTS,
    "y = Sub(x, x)": ELEMENTS,
    "y = Mul(x, x)": ELEMENTS,
    "y = Concat<axis=1>(x, x)": 0,
    "y = Flatten(x)": 0,
    "y = Transpose<perm=[0,2,3,1]>(x)": 0,
    "y = MaxPool<kernel_shape=[3,2], strides=[3,2]>(x)": 4 * 2 * 3 * (6 - 1),
    "y = AveragePool<kernel_shape=[3,2], strides=[3,2]>(x)": 4 * 2 * 3 * 6,
    "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)": ELEMENTS * 9,
    "y = GlobalAveragePool(x)": 4 * 36,
    "y = ReduceMean<axes=[1]>(x)": ELEMENTS,
    "y = LRN<size=5, alpha=0.0001, beta=0.75, bias=2.0>(x)": ELEMENTS * 9,
}


@pytest.mark.parametrize("body", OTHER_OPS)
def test_other_operations(count_text: CountText, body: str) -> None:
    costs = count_text(MAP, body, canonical=False)
    assert len(costs.layers) == 1
    assert costs.other_ops == OTHER_OPS[body]
    assert (costs.macs, costs.params, costs.not_counted) == (0, 0, ())


def test_slices_and_padding_compute_nothing(count_text: CountText) -> None:
    starts = "b = Constant<value_ints=[1]>() e = Constant<value_ints=[3]>()"
    costs = count_text(
        MAP,
        f"{starts} s = Slice(x, b, e, b) p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() y = Pad(s, p)",
        canonical=False,
    )
    assert [layer.op_type for layer in costs.layers] == ["Slice", "Pad"]
    assert [layer.output_shape for layer in costs.layers] == [(1, 2, 6, 6), (1, 2, 8, 8)]
    assert (costs.other_ops, costs.macs, costs.params, costs.not_counted) == (0, 0, 0, ())


def test_a_convolution_with_everything(count_text: CountText) -> None:
    [layer] = count_text(
        "float[1,4,9,7] x, float[6,2,3,1] w, float[6] b",
        "c = Conv<group=2, strides=[2,1], dilations=[2,1], pads=[1,0,1,0]>(x, w, b) y = Relu(c)",
    ).layers
    outputs = 6 * 4 * 7
    assert (layer.op_type, layer.activation, layer.output_shape) == ("Conv", "Relu", (1, 6, 4, 7))
    assert (layer.kernel, layer.stride, layer.dilation, layer.groups) == ((3, 1), (2, 1), (2, 1), 2)
    assert (layer.macs, layer.other_ops) == (outputs * 2 * 3, outputs)
    assert layer.params == 36 + 6
    assert layer.weights == Bytes(fp32=4 * 42, int8=36 + 4 * 6)
    moved = 4 * 63 + outputs
    assert (layer.read, layer.written) == (Bytes(4 * 252, 252), Bytes(4 * outputs, outputs))
    assert layer.macs_per_byte("fp32") == layer.macs / (4 * (moved + 42))
    assert layer.macs_per_byte("int8") == layer.macs / (moved + 36 + 24)


def test_a_dense_layer_with_relu6(count_text: CountText) -> None:
    bounds = "low = Constant<value_float=0.0>() high = Constant<value_float=6.0>()"
    [layer] = count_text(
        "float[1,10] x, float[3,10] w, float[3] b",
        f"{bounds} g = Gemm<transB=1>(x, w, b) y = Clip(g, low, high)",
    ).layers
    assert (layer.op_type, layer.activation) == ("Gemm", "Clip")
    assert (layer.macs, layer.params, layer.other_ops) == (30, 33, 6)


def test_a_bias_that_is_missing_is_deployed_as_zeros(count_text: CountText) -> None:
    [layer] = count_text("float[1,4,6,6] x, float[8,4,1,1] w", "y = Conv(x, w)").layers
    assert layer.params == 32 + 8


def test_batch_norm_that_is_left(count_text: CountText) -> None:
    costs = count_text(
        f"{MAP}, float[4] scale, float[4] shift, float[4] mean, float[4] variance",
        "y = BatchNormalization(x, scale, shift, mean, variance)",
        canonical=False,
    )
    [layer] = costs.layers
    assert (layer.other_ops, layer.params, layer.macs) == (2 * ELEMENTS, 8, 0)
    assert layer.weights == Bytes(fp32=32, int8=4 + 16)


def test_a_constant_operand_is_a_parameter(count_text: CountText) -> None:
    [layer] = count_text(f"{MAP}, float[1,4,1,1] scale", "y = Mul(x, scale)").layers
    assert (layer.other_ops, layer.params) == (ELEMENTS, 4)
    assert layer.read == Bytes(4 * ELEMENTS, ELEMENTS)


def test_what_is_not_known_is_named(count_text: CountText) -> None:
    costs = count_text(MAP, "s = Sin(x) r = Relu(s) y = Erf(r)", canonical=False)
    assert costs.not_counted == ("Erf", "Sin")
    assert [layer.counted for layer in costs.layers] == [False, True, False]
    assert costs.other_ops == ELEMENTS
    assert costs.layers[0].written.fp32 == 4 * ELEMENTS


def test_only_float_graphs_are_counted() -> None:
    from edgecnn.cost import analyze

    with pytest.raises(ConversionError, match="fp32 graph, not on the int8 one"):
        analyze(Graph(model=None, precision="int8"))  # type: ignore[arg-type]

"""Every rule that is checked before a TFLite file is written, broken by hand in a model that was right."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.flatbuffer import Model, Operation, Tensor, serialize
from edgecnn.backends.tflite.lower import lower
from edgecnn.backends.tflite.verify import verify
from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.quantize.quantize import quantize
from tests.networks import canonical, plain

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,4,8,8] x, float[6,2,3,3] w0, float[6,1,3,3] w1, float[6] b1, float[5,168] w2)
    => (float[1,5] logits)
    <int64[8] pads = {0, 0, 1, 0, 0, 0, 0, 0}, int64[1] start = {1}, int64[1] end = {4}, int64[1] axis = {3},
    int64[1] two = {2}> {
    [conv] c = Conv<group=2, kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,2]>(x, w0)
    [depthwise] d = Conv<group=6, kernel_shape=[3,3], pads=[1,1,1,1]>(c, w1, b1)
    [relu] r = Relu(d)
    [add] a = Add(c, r)
    [lrn] n = LRN<size=3>(a)
    [crop] s = Slice(n, start, end, axis)
    [steps] u = Slice(n, start, end, axis, two)
    [pool] p = MaxPool<kernel_shape=[2,1]>(s)
    [mean] m = GlobalAveragePool(a)
    [mul] e = Mul(p, m)
    [leaky] v = LeakyRelu(u)
    [mean1] w = ReduceMean<axes=[1,2,3]>(v)
    [add1] z = Add(e, w)
    [transpose] t = Transpose<perm=[0,1,3,2]>(z)
    [pad] q = Pad(t, pads)
    [concat] k = Concat<axis=3>(q, q)
    [shrink] l = MaxPool<kernel_shape=[1,8]>(k)
    [flatten] f = Flatten(l)
    [gemm] g = Gemm<transB=1>(f, w2)
    [softmax] logits = Softmax(g)
}"""


@functools.cache
def graph(precision: str) -> Graph:
    if precision == "int8":
        rng = np.random.default_rng(1)
        return quantize(graph("fp32"), [rng.normal(size=(1, 4, 8, 8)).astype(np.float32)])
    return canonical(NETWORK, plain)


def operation(model: Model, code: str, node: str | None = None) -> Operation:
    return next(op for op in model.operations if op.code == code and node in (None, op.node))


def change(model: Model, index: int, **fields: Any) -> None:
    model.tensors[index] = dataclasses.replace(model.tensors[index], **fields)


def change_input(code: str, position: int, **fields: Any) -> Callable[[Model], None]:
    return lambda model: change(model, operation(model, code).inputs[position], **fields)


def change_output(code: str, **fields: Any) -> Callable[[Model], None]:
    return lambda model: change(model, operation(model, code).outputs[0], **fields)


def change_options(code: str, **fields: Any) -> Callable[[Model], None]:
    def breaking(model: Model) -> None:
        for name, value in fields.items():
            setattr(operation(model, code).options, name, value)

    return breaking


def reverse_operations(model: Model) -> None:
    model.operations.reverse()


def rename(code: str, other: str) -> Callable[[Model], None]:
    def breaking(model: Model) -> None:
        index = model.operations.index(operation(model, code))
        model.operations[index] = dataclasses.replace(model.operations[index], code=other)

    return breaking


def compute_parameter(model: Model) -> None:
    index = operation(model, "TRANSPOSE").inputs[1]
    change(model, index, data=None)
    model.inputs.append(index)


def wrong_bias_scale(model: Model) -> None:
    index = operation(model, "CONV_2D").inputs[2]
    change(model, index, scale=tuple(1.001 * scale for scale in model.tensors[index].scale))


def shorter_weight_scale(model: Model) -> None:
    index = operation(model, "CONV_2D").inputs[1]
    change(model, index, scale=model.tensors[index].scale[:2])


def without_scale(model: Model) -> None:
    change(model, model.tensors.index(next(t for t in model.tensors if t.name == "mean:int8")), scale=())


def change_values(code: str, position: int, *values: int) -> Callable[[Model], None]:
    return change_input(code, position, data=np.asarray(values, np.int32))


def int64_addition(model: Model) -> None:
    addition = operation(model, "ADD")
    for index in (*addition.inputs, *addition.outputs):
        change(model, index, dtype="int64")
    model.operations[:] = [addition]
    model.inputs += addition.inputs


INT8_RULES = {
    "float only": (
        lambda model: [
            change(model, index, dtype="int8", scale=(1.0,), zero_point=(0,))
            for op in [operation(model, "LOCAL_RESPONSE_NORMALIZATION")]
            for index in (*op.inputs, *op.outputs)
        ],
        r"(DEQUANTIZE|LOCAL_RESPONSE_NORMALIZATION) \(node 'lrn'\) (must give float32|has no int8 kernel)",
    ),
    "slice scale": (change_output("SLICE", scale=(0.5,)), "SLICE .*'crop'.* must keep one scale"),
    "strided scale": (change_output("STRIDED_SLICE", scale=(0.5,)), "STRIDED_SLICE .* must keep one scale"),
    "reads before computed": (reverse_operations, "reads a tensor before it is computed"),
    "output type": (
        change_output("CONV_2D", dtype="float32"),
        r"CONV_2D \(node 'conv'\) reads int8 but gives float32",
    ),
    "weight type": (change_input("CONV_2D", 1, dtype="int32"), "needs int8 weights and int32 bias"),
    "bias type": (change_input("FULLY_CONNECTED", 2, dtype="int8"), "needs int8 weights and int32 bias"),
    "bias scale": (
        wrong_bias_scale,
        r"CONV_2D \(node 'conv'\) needs bias scale = input scale x weight scale",
    ),
    "weight zero point": (change_input("CONV_2D", 1, zero_point=(1,) * 6), "needs zero points of 0"),
    "weight scales": (shorter_weight_scale, "needs one weight scale, or one a channel"),
    "axis": (change_input("DEPTHWISE_CONV_2D", 1, quantized_dimension=0), "is quantised along another axis"),
    "concat scale": (
        change_input("CONCATENATION", 0, scale=(0.5,)),
        "(PAD|CONCATENATION).* must keep one scale",
    ),
    "pool zero point": (change_output("MAX_POOL_2D", zero_point=(5,)), "must keep one scale and zero point"),
    "softmax scale": (
        change_output("SOFTMAX", scale=(0.01,)),
        r"SOFTMAX \(node 'softmax'\) must give scale 0.0039",
    ),
    "softmax zero point": (change_output("SOFTMAX", zero_point=(0,)), "must give scale"),
    "mixed types": (
        change_input("ADD", 1, dtype="float32"),
        "(DEPTHWISE_CONV_2D|ADD).*(gives float32|mixes)",
    ),
    "quantize type": (change_output("QUANTIZE", dtype="float32"), "must give int8"),
    "dequantize type": (change_output("DEQUANTIZE", dtype="int8"), "must give float32"),
    "parameter type": (change_input("TRANSPOSE", 1, dtype="int64"), "has a parameter that is not int32"),
    "parameter computed": (compute_parameter, "has a parameter that is computed"),
    "no scale": (without_scale, "has no scale"),
}
RULES = {
    "slice outside": (change_values("SLICE", 1, 0, 0, 6, 0), r"SLICE \(node 'crop'\) gives"),
    "slice before": (change_values("SLICE", 1, 0, 0, -1, 0), r"SLICE \(node 'crop'\) gives"),
    "slice size": (change_values("SLICE", 2, 1, 8, 2, 6), r"SLICE \(node 'crop'\) gives"),
    "strides": (change_values("STRIDED_SLICE", 3, 1, 1, 1, 1), r"STRIDED_SLICE \(node 'steps'\) gives"),
    "strided end": (change_values("STRIDED_SLICE", 2, 1, 9, 4, 6), r"STRIDED_SLICE \(node 'steps'\) gives"),
    "leaky shape": (change_output("LEAKY_RELU", shape=(1, 8, 3, 6)), r"LEAKY_RELU \(node 'leaky'\) gives"),
    "conv shape": (change_output("CONV_2D", shape=(1, 8, 8, 6)), r"'conv'\) gives \(1, 8, 8, 6\)"),
    "conv channels": (change_output("CONV_2D", shape=(1, 8, 4, 5)), r"'conv'\) gives \(1, 8, 4, 5\)"),
    "stride": (change_options("CONV_2D", strideH=2), r"'conv'\) gives \(1, 8, 4, 6\)"),
    "dilation": (change_options("DEPTHWISE_CONV_2D", padding=schema.Padding.VALID), r"'depthwise'\) gives"),
    "bias length": (change_input("CONV_2D", 2, shape=(7,)), r"has a bias of shape \(7,\) for 6 channels"),
    "groups": (change_input("CONV_2D", 1, shape=(6, 3, 3, 3)), "has groups that do not divide its channels"),
    "multiplier": (change_options("DEPTHWISE_CONV_2D", depthMultiplier=2), "has the wrong depth multiplier"),
    "gemm": (change_input("FULLY_CONNECTED", 1, shape=(5, 100)), r"multiplies \(1, 168\) by \(5, 100\)"),
    "gemm shape": (change_output("FULLY_CONNECTED", shape=(1, 6)), r"'gemm'\) gives"),
    "pool window": (change_options("MAX_POOL_2D", filterWidth=3), r"'pool'\) gives"),
    "broadcast": (change_input("MUL", 1, shape=(1, 2, 1, 6)), r"gives"),
    "broadcast shape": (change_output("ADD", shape=(1, 8, 8, 6)), r"'add'\) gives"),
    "concat shape": (change_output("CONCATENATION", shape=(1, 3, 8, 6)), r"'concat'\) gives"),
    "transpose shape": (change_output("TRANSPOSE", shape=(1, 7, 3, 6)), r"'transpose'\) gives"),
    "pad shape": (change_output("PAD", shape=(1, 5, 7, 6)), r"PAD .* gives \(1, 5, 7, 6\)"),
    "reshape elements": (change_output("RESHAPE", shape=(1, 167)), r"'flatten'\) gives"),
    "mean shape": (change_output("MEAN", shape=(1, 8, 1, 6)), r"'mean'\) gives"),
    "unary shape": (change_output("SOFTMAX", shape=(1, 4)), r"'softmax'\) gives"),
    "no kernel": (rename("ADD", "DIV"), r"DIV \(node 'add'\)"),
    "no rule": (rename("SOFTMAX", "LOG_SOFTMAX"), "LOG_SOFTMAX .* has no rule to be checked by"),
    "constant shape": (
        lambda model: model.add_tensor(Tensor("c", (3,), "float32", data=np.zeros(2, np.float32))),
        r"constant 'c' is \(2,\), its tensor \(3,\)",
    ),
}
FLOAT_RULES = {
    "float weights": (change_input("CONV_2D", 1, dtype="int8"), "mixes element types"),
    "kernel type": (int64_addition, "has no int64 kernel"),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_lowered_passes(precision: str) -> None:
    verify(lower(graph(precision)))


@pytest.mark.parametrize(
    ("precision", "rule"),
    [("int8", rule) for rule in INT8_RULES | RULES] + [("fp32", rule) for rule in RULES | FLOAT_RULES],
)
def test_a_broken_rule_is_refused(precision: str, rule: str) -> None:
    breaking, message = (INT8_RULES | RULES | FLOAT_RULES)[rule]
    model = lower(graph(precision))
    breaking(model)
    with pytest.raises(ConversionError, match=message):
        verify(model)


def test_the_file_is_aligned_and_stable() -> None:
    model = lower(graph("int8"))
    content = bytes(serialize(model, "network"))
    assert content == bytes(serialize(lower(graph("int8")), "network"))
    assert content[4:8] == b"TFL3"
    packed = schema.Model.GetRootAs(content)
    for index in range(packed.BuffersLength()):
        if packed.Buffers(index).DataLength():
            start = content.index(packed.Buffers(index).DataAsNumpy().tobytes())
            vector = packed.Buffers(index)._tab.Vector(packed.Buffers(index)._tab.Offset(4))
            assert start <= vector
            assert vector % 16 == 0


def test_more_than_the_format_can_hold_is_refused() -> None:
    model = lower(graph("fp32"))
    large = np.broadcast_to(np.float32(0), (2**29,))
    model.add_tensor(Tensor("large", large.shape, "float32", data=large))
    with pytest.raises(ConversionError, match=r"network has 2\.15 GB of weights"):
        serialize(model, "network")

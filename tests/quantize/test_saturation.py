"""Saturation in pairs: the graph against integer arithmetic, and against a runtime that saturates."""

from __future__ import annotations

import functools
import math
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir.serde
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import Operator, operators
from edgecnn.graph.reference import load_reference
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import Ranges
from edgecnn.quantize.rounding import round_weights
from edgecnn.quantize.saturation import KERNELS, Kernels, excess_name, safe_scales, saturable, saturating
from edgecnn.target import load_target
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,12,12] x, float[8,3,3,3] w0, float[8,1,3,3] w1, float[12,4,3,3] w2, float[6,12,2,1] w3,
    float[16,6,1,1] w4, float[5,16] w5) => (float[1,5] logits) {
    [stem] c0 = Conv<kernel_shape=[3,3], pads=[1,0,1,2]>(x, w0)
    [stem_relu] r0 = Relu(c0)
    [depthwise] c1 = Conv<group=8, kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    [depthwise_relu] r1 = Relu(c1)
    [grouped] c2 = Conv<group=2, kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r1, w2)
    [grouped_relu] r2 = Relu(c2)
    [dilated] c3 = Conv<kernel_shape=[2,1], dilations=[2,1]>(r2, w3)
    [dilated_relu] r3 = Relu(c3)
    [pointwise] c4 = Conv<kernel_shape=[1,1], strides=[2,1]>(r3, w4)
    [mean] m = GlobalAveragePool(c4)
    [flatten] f = Flatten(m)
    [classes] logits = Gemm<transB=1>(f, w5)
}"""
LAYERS = {"stem", "grouped", "dilated", "pointwise", "classes"}


def images(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random((1, 3, 12, 12)).astype(np.float32) for _ in range(count)]


@functools.cache
def float_graph() -> Graph:
    """Weights of both signs and alike in size: many more pairs saturate than in a trained network."""

    def fill(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1.2, shape) / math.sqrt(math.prod(shape[1:]))

    return canonical(NETWORK, fill)


@functools.cache
def qdq_graph() -> Graph:
    """Ranges cut off a quarter of what is reached, so that many integers are 255."""
    graph = round_weights(float_graph())
    names = [str(output.name) for node in graph.model.graph for output in node.outputs]
    run = load_reference(graph, names)
    reached = {"x": np.concatenate(images())}
    reached |= {name: np.concatenate(found) for name, *found in zip(names, *map(run, images()), strict=True)}
    limits = {name: (0.75 * float(v.min()), 0.75 * float(v.max())) for name, v in reached.items()}
    return to_qdq(graph, Ranges(limits))


def excess_in_integers(operator: Operator, x: np.ndarray, kernels: Kernels) -> np.ndarray:
    """What a layer's sums lose, by the definition: one output at a time, int32 sums of saturated int16."""
    weight, zero_point = operator.inputs[1].data.astype(np.int64), int(operator.inputs[0].zero_point[0])
    if operator.op_type == "Gemm":
        return np.asarray([[_lost(x[0], row) for row in weight]])
    attributes = {key: list(value) for key, value in operator.attributes.items() if key != "group"}
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero_point)
    outputs, channels, *kernel = weight.shape
    per_group = outputs // operator.attributes.get("group", 1)
    result = np.zeros(operator.outputs[0].shape, np.int64)
    for _, output, row, column in np.ndindex(*result.shape):
        start = output // per_group * channels
        rows = row * strides[0] + np.arange(kernel[0]) * dilations[0]
        columns = column * strides[1] + np.arange(kernel[1]) * dilations[1]
        window = x[0, start : start + channels][:, rows][:, :, columns].transpose(1, 2, 0)
        terms = weight[output].transpose(1, 2, 0)
        if kernels == "onednn" and channels % 2:
            window, terms = (np.pad(array, ((0, 0), (0, 0), (0, 1))) for array in (window, terms))
        result[0, output, row, column] = _lost(window.reshape(-1), terms.reshape(-1))
    return result


def _lost(x: np.ndarray, weights: np.ndarray) -> int:
    products = x.astype(np.int64) * weights
    sums = np.add.reduceat(products, np.arange(0, len(products), 2))
    return int((np.clip(sums, -32768, 32767) - sums).sum())


@pytest.mark.parametrize("kernels", ["mlas", "onednn"])
def test_the_graph_loses_what_integer_arithmetic_loses(kernels: Kernels):
    qdq = qdq_graph()
    pairs = saturable(qdq, kernels)
    assert set(pairs) == LAYERS  # the depthwise layer is exact
    found = {operator.name: operator for operator in operators(qdq) if operator.name in pairs}
    graph = saturating(qdq, pairs)
    stored = [f"{operator.inputs[0].name}:quantized" for operator in found.values()]
    taps = [*stored, *map(excess_name, found)]
    image = images()[0]
    values = load_reference(graph, taps)(image)
    lossy = 0
    for operator, x, excess in zip(found.values(), values, values[len(found) :], strict=False):
        expected = excess_in_integers(operator, x, kernels)
        assert np.array_equal(excess, expected), operator.name
        lossy += bool(expected.any())
    assert lossy >= 4


def test_what_is_lost_is_missing_in_the_output():
    qdq = qdq_graph()
    pairs = saturable(qdq, "mlas")
    first = {"stem": pairs["stem"]}
    graph, image = saturating(qdq, first), images()[0]
    stem = next(operator for operator in operators(qdq) if operator.name == "stem")
    step = stem.inputs[0].scale * stem.inputs[1].scale
    exact = load_reference(qdq, [_output_of(qdq, "stem")])(image)[0]
    excess, got = load_reference(graph, [excess_name("stem"), _read_by_relu(graph)])(image)
    assert excess.any()
    assert np.allclose(got, exact + excess * step.reshape(-1, 1, 1), atol=1e-5)


def _output_of(graph: Graph, name: str) -> str:
    return next(str(node.outputs[0].name) for node in graph.model.graph if node.name == name)


def _read_by_relu(graph: Graph) -> str:
    """What the next node behind the stem reads: the tensor with the excess added."""
    additions = [node for node in graph.model.graph if str(node.name).startswith("stem:saturation")]
    return str(additions[-1].outputs[0].name)


def test_a_layer_in_float_does_not_saturate():
    graph = float_graph()
    assert saturable(graph, "mlas") == {}


def test_seven_bits_are_exact():
    qdq = qdq_graph()
    model = qdq.copy()
    for name, value in model.graph.initializers.items():
        if name.endswith(".weight:quantized"):
            halved = np.clip(value.const_value.numpy() // 2, -63, 63).astype(np.int8)
            value.const_value = onnx_ir.tensor(halved, name=name)
    for kernels in ("mlas", "onednn"):
        assert saturable(Graph(model, "int8"), kernels) == {}


@pytest.mark.parametrize("shape", [(7, 3, 3, 3), (9, 16, 1, 1), (5, 33)])
def test_safe_scales_are_the_least_that_are_exact(shape: tuple[int, ...]):
    weight = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    scales = safe_scales(weight).reshape(-1, *([1] * (len(shape) - 1)))
    exact = weight / scales
    # The worst that rounding to the second-nearest integer can do to a pair.
    stored = np.sign(exact) * np.ceil(np.abs(exact))
    padded = [(0, 0)] * len(shape)
    padded[1] = (0, shape[1] % 2)
    for terms in (np.moveaxis(stored, 1, -1), np.moveaxis(np.pad(stored, padded), 1, -1)):
        flat = terms.reshape(len(terms), -1)
        flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2))).reshape(len(flat), -1, 2)
        assert np.abs(np.maximum(flat, 0).sum(axis=2)).max() <= 128
        assert np.abs(np.minimum(flat, 0).sum(axis=2)).max() <= 128
    eight_bits = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
    assert (scales.reshape(-1) < 2.1 * eight_bits).all()


def test_channels_without_large_neighbours_need_no_other_scale():
    weight = np.zeros((1, 4, 1, 1), np.float32)
    weight[0, [0, 2], 0, 0] = 1.0
    assert safe_scales(weight)[0] <= 1 / 126 + 1e-6


OPENVINO = """
import sys
sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino as ov
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
compiled = ov.Core().compile_model(sys.argv[1], "CPU", settings)
np.save(sys.argv[3], np.concatenate([compiled([x[None]])[0] for x in np.load(sys.argv[2])]))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 kernels")
def test_openvino_without_vnni_saturates_as_the_graph_does(tmp_path: Path):
    pytest.importorskip("openvino")
    from edgecnn.backends import openvino

    qdq, x = qdq_graph(), np.concatenate(images())
    model = openvino.compile(qdq, load_target("openvino"), tmp_path)[0]
    source, result = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(source, x)
    command = [sys.executable, "-c", OPENVINO, str(model), str(source), str(result)]
    subprocess.run(command, env={"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)
    got = np.load(result)
    saturated = saturating(qdq, saturable(qdq, KERNELS["openvino"]))
    exact, lossy = (
        np.concatenate([load_reference(graph)(image)[0] for image in images()]) for graph in (qdq, saturated)
    )
    step = next(float(op.outputs[0].scale[0]) for op in operators(qdq) if op.name == "classes")
    assert np.abs(got - lossy).mean() < 1.5 * step
    assert np.abs(got - exact).mean() > 4 * step

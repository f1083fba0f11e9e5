"""The canonical graph as a torch function: values against ONNX Runtime, gradients against differences."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import onnx_ir.serde
import pytest
import torch

from edgecnn.errors import ConversionError
from edgecnn.graph.autograd import as_torch
from edgecnn.graph.graph import Graph
from edgecnn.graph.half import to_fp16
from edgecnn.graph.reference import load_reference
from edgecnn.quantize.groups import QUANTIZABLE
from edgecnn.quantize.quantize import quantize
from tests.networks import canonical

SMALL = """<ir_version: 8, opset_import: ["" : 17]>
small (float[1,3,8,8] x, float[4,3,3,3] w0, float[4] b0, float[4,1,3,3] w1, float[5,4] w2) => (float[1,5] y) {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
    r0 = Relu(c0)
    [depthwise] c1 = Conv<group=4, kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r0, w1)
    s = Sigmoid(c1)
    m = Mul(c1, s)
    g = GlobalAveragePool(m)
    f = Flatten(g)
    [classes] y = Gemm<transB=1>(f, w2)
}"""
# What follows a convolution's output c, (1, 4, 7, 7), and the shape that comes out. Every operator that int8
# knows is in one of them.
BODIES = {
    "sums": ("1,4,7,7", "a = Add(c, c) m = Mul(a, c) y = Sub(m, a)"),
    "average": (
        "1,4,4,4",
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,1], ceil_mode=1>(c)",
    ),
    "maximum": (
        "1,4,3,5",
        "y = MaxPool<kernel_shape=[2,3], strides=[2,1], pads=[0,1,1,1], dilations=[3,2]>(c)",
    ),
    "open maximum": ("1,4,4,4", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(c)"),
    "activations": ("1,4,7,7", "a = LeakyRelu<alpha=0.2>(c) b = HardSwish(a) d = Tanh(b) y = Sigmoid(d)"),
    "bounds": ("1,4,7,7", "r = Relu(c) y = Clip(r, low, high)"),
    "scores": ("1,4", "g = GlobalAveragePool(c) f = Flatten(g) y = Softmax(f)"),
    "mean": ("1,1,7,7", "y = ReduceMean<axes=[1], keepdims=1>(c)"),
    "norm": ("1,4,7,7", "t = Tanh(c) y = BatchNormalization<epsilon=0.01>(t, four, four, four, four)"),
    "lrn": ("1,4,7,7", "y = LRN<size=3, alpha=0.5, beta=0.7, bias=1.5>(c)"),
    "shapes": (
        "1,3,49",
        "t = Transpose<perm=[0,2,3,1]>(c) v = Reshape(t, split) u = Transpose<perm=[0,2,1]>(v)"
        " k = Concat<axis=1>(u, u) y = Slice(k, from, to, along, by)",
    ),
    "zeros": ("1,4,10,9", "y = Pad(c, around)"),
    "values": ("1,4,10,9", "y = Pad(c, around, low)"),
    "edges": ("1,4,10,9", 'y = Pad<mode="edge">(c, around)'),
    "mirror": ("1,4,10,9", 'y = Pad<mode="reflect">(c, around)'),
    "groups": (
        "1,4,4,5",
        "y = Conv<kernel_shape=[3,3], strides=[2,1], pads=[0,1,2,1], dilations=[1,2], group=2>(c, w1)",
    ),
    "gemm": ("1,5", "f = Flatten(c) y = Gemm<transB=1>(f, w2)"),
}
CONSTANTS = (
    "float low = {0.45}, float high = {0.6}, float[4] four = {0.5, 1, 1.5, 2}, int64[3] split = {1, 49, 4}, "
    "int64[1] from = {6}, int64[1] to = {0}, int64[1] along = {1}, int64[1] by = {-2}, "
    "int64[8] around = {0, 0, 1, 2, 0, 0, 2, 0}"
)


@functools.cache
def body(name: str) -> Graph:
    shape, nodes = BODIES[name]
    return canonical(
        '<ir_version: 8, opset_import: ["" : 17]> network (float[1,3,7,7] x, float[4,3,3,3] w0, '
        f"float[4,2,3,3] w1, float[5,196] w2) => (float[{shape}] y) <{CONSTANTS}> {{ "
        f"c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0) {nodes} }}"
    )


@functools.cache
def small(precision: str) -> Graph:
    graph = canonical(SMALL)
    if precision == "int8":
        return quantize(graph, [image(seed=seed) for seed in range(8)])
    return to_fp16(graph) if precision == "fp16" else graph


def image(side: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, 3, side, side)).astype(np.float32)


def values(graph: Graph, x: np.ndarray, output: str | None = None) -> np.ndarray:
    with torch.no_grad():
        return as_torch(graph, output)(torch.from_numpy(x)).numpy()


def gradient(
    graph: Graph, x: np.ndarray, weights: np.ndarray | float, output: str | None = None
) -> np.ndarray:
    """Of the output's sum, weighted."""
    leaf = torch.from_numpy(x).requires_grad_()
    total = (as_torch(graph, output)(leaf) * torch.as_tensor(weights)).sum()
    return torch.autograd.grad(total, leaf)[0].numpy()


@pytest.mark.parametrize("name", BODIES)
def test_an_operator_gives_what_the_reference_gives(name: str) -> None:
    x = image(7)
    np.testing.assert_allclose(values(body(name), x), load_reference(body(name))(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BODIES)
def test_an_operator_has_the_gradient_of_small_differences(name: str) -> None:
    """In a random direction; a step this small crosses hardly a kink."""
    x, graph = image(7), body(name)
    rng = np.random.default_rng(2)
    direction = rng.normal(size=x.shape).astype(np.float32)
    reference = load_reference(graph)
    weights = rng.normal(size=reference(x)[0].shape).astype(np.float32)
    step = 5e-4
    above, below = (reference(x + side * step * direction)[0].astype(np.float64) for side in (1, -1))
    expected = float(((above - below) * weights).sum()) / (2 * step)
    assert float((gradient(graph, x, weights) * direction).sum()) == pytest.approx(
        expected, rel=0.02, abs=0.02
    )


def test_every_operator_that_int8_knows_is_tried() -> None:
    tried = {node.op_type for name in BODIES for node in body(name).model.graph}
    assert tried == QUANTIZABLE


def test_fp16_graphs_give_what_the_reference_gives() -> None:
    graph, x = small("fp16"), image()
    np.testing.assert_allclose(values(graph, x), load_reference(graph)(x)[0], rtol=1e-5, atol=1e-6)


def test_an_int8_graph_gives_the_same_integers() -> None:
    """But where a sum in another order lies on the edge between two."""
    graph = small("int8")
    names = [str(node.outputs[0].name) for node in graph.model.graph if node.op_type == "QuantizeLinear"]
    assert len(names) >= 6
    for seed in range(4):
        x = image(seed=seed)
        for name, expected in zip(names, load_reference(graph, names)(x), strict=True):
            apart = np.abs(values(graph, x, name) - expected.astype(np.float32))
            assert apart.max() <= 1
            assert apart.mean() <= 0.02


def test_rounding_lets_the_gradient_through() -> None:
    x = image()
    ours, exact = gradient(small("int8"), x, 1.0), gradient(small("fp32"), x, 1.0)
    assert np.corrcoef(ours.reshape(-1), exact.reshape(-1))[0, 1] > 0.99


def test_a_relu_that_quantisation_took_in_stops_the_gradient() -> None:
    graph = small("int8")
    assert "Relu" not in {node.op_type for node in graph.model.graph}
    conv = next(node for node in graph.model.graph if node.name == "first")
    before = str(conv.outputs[0].name)
    [after] = [str(use.node.outputs[0].name) for use in conv.outputs[0].uses()]
    x = image()
    kept = gradient(graph, x, (values(graph, x, before) < 0).astype(np.float32), after)
    np.testing.assert_array_equal(kept, 0)
    assert np.abs(gradient(graph, x, 1.0, after)).max() > 0


def test_an_operator_that_is_not_known_is_named() -> None:
    graph = small("fp32")
    model = graph.copy()
    node = next(node for node in model.graph if node.op_type == "Sigmoid")
    node.op_type = "Erf"
    with pytest.raises(ConversionError, match=r"no gradient is known for 1 Erf \(first: node '.+'\)"):
        as_torch(Graph(model, "fp32"))


def test_a_tensor_with_several_scales_is_refused() -> None:
    model = small("int8").copy()
    node = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    scales = ir.Value(name="scales", const_value=ir.tensor(np.ones(3, np.float32), name="scales"))
    model.graph.register_initializer(scales)
    node.replace_input_with(1, scales)
    with pytest.raises(ConversionError, match="is not of the canonical form"):
        values(Graph(model, "int8"), image())

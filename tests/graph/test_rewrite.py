"""The rewrites: which operators are left, and that ONNX Runtime computes the same before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.serde
import onnxruntime as ort
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize, constant
from tests.networks import filled, scaled

NORM = "float[4] gamma, float[4] beta, float[4] mean, float[4] variance"


def source(text: str) -> onnx.ModelProto:
    """A network whose inputs but the first become constants with random values, positive for ``variance``."""

    def fill(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
        array = scaled(name, shape, rng)
        return np.abs(array) + 0.5 if name == "variance" else array

    return filled(f'<ir_version: 8, opset_import: ["" : 17]> network {text}', fill)


def canonical(model: onnx.ModelProto) -> Graph:
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))


def rewritten(text: str) -> Graph:
    """The canonical graph, checked against what ONNX Runtime computes for the text itself."""
    model = source(text)
    graph = canonical(model)
    name = model.graph.input[0].name
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(model.SerializeToString(), options).run(None, {name: image})[0]
    got = load_reference(graph)(image)[0]
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert canonicalize(graph).serialized == graph.serialized
    assert all(len(node.outputs) == 1 for node in graph.model.graph)
    assert all(value.uses() for value in graph.model.graph.initializers.values())
    return graph


def types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


def only(graph: Graph, op_type: str) -> ir.Node:
    [node] = [node for node in graph.model.graph if node.op_type == op_type]
    return node


def constants(node: ir.Node) -> list[list[int]]:
    arrays = [constant(value) for value in node.inputs[1:]]
    assert all(array is not None and array.dtype == np.int64 for array in arrays)
    return [array.tolist() for array in arrays if array is not None]


@pytest.mark.parametrize(
    "behind",
    [
        "y = BatchNormalization<epsilon=0.01>(c, gamma, beta, mean, variance)",
        "y = Mul(c, scalar)",
        "y = Mul(channels, c)",
        "y = Div(c, channels)",
        "y = Add(c, channels)",
        "y = Sub(c, scalar)",
        "y = Sub(channels, c)",
        "n = BatchNormalization(c, gamma, beta, mean, variance) m = Mul(n, scalar) y = Sub(scalar, m)",
    ],
)
def test_what_scales_and_shifts_folds_into_the_convolution(behind: str) -> None:
    graph = rewritten(f"""(float[1,3,5,5] x, float[4,3,3,3] w, float[4] b, float[1,4,1,1] channels, {NORM})
        => (float[1,4,3,3] y) <float scalar = {{0.17}}> {{ c = Conv(x, w, b) {behind} }}""")
    assert types(graph) == ["Conv"]


def test_it_folds_into_a_dense_layer() -> None:
    graph = rewritten(f"""(float[1,6] x, float[6,4] w, float[4] b, float[1,4] channels, {NORM})
        => (float[1,4] y) {{
        m = MatMul(x, w) a = Add(b, m) n = BatchNormalization(a, gamma, beta, mean, variance)
        y = Mul(n, channels) }}""")
    assert types(graph) == ["Gemm"]


def test_a_weight_that_two_layers_share_is_scaled_for_one() -> None:
    graph = rewritten("""(float[1,4,5,5] x, float[4,4,1,1] w, float[4] b) => (float[1,4,5,5] y)
        <float two = {2}> { c = Conv(x, w, b) d = Conv(c, w, b) y = Mul(d, two) }""")
    assert types(graph) == ["Conv", "Conv"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # The convolution has another reader, or is what comes out.
        ("c = Conv(x, w) m = Mul(c, channels) y = Add(m, c)", ["Conv", "Mul", "Add"]),
        # An activation in between.
        ("c = Conv(x, w) r = Relu(c) y = Mul(r, channels)", ["Conv", "Relu", "Mul"]),
        # Not one value a channel.
        ("c = Conv(x, w) y = Mul(c, columns)", ["Conv", "Mul"]),
        # A grid of values, which also widens the result.
        ("c = Conv(x, w) g = GlobalAveragePool(c) y = Add(g, full)", ["Conv", "GlobalAveragePool", "Add"]),
        # The quotient's constant is above the line.
        ("c = Conv(x, w) y = Div(channels, c)", ["Conv", "Div"]),
    ],
)
def test_what_does_not_fold(body: str, left: list[str]) -> None:
    graph = rewritten(f"""(float[1,3,5,5] x, float[4,3,1,1] w, float[1,4,1,1] channels, float[5] columns,
        float[1,4,5,5] full) => (float[1,4,5,5] y) {{ {body} }}""")
    assert types(graph) == left


def test_a_batch_norm_without_a_layer_in_front_stays_and_takes_in_what_follows() -> None:
    graph = rewritten(f"""(float[1,4,5,5] x, {NORM}) => (float[1,4,5,5] y) <float half = {{0.5}}> {{
        n = BatchNormalization(x, gamma, beta, mean, variance) m = Mul(n, half) y = Relu(m) }}""")
    assert types(graph) == ["BatchNormalization", "Relu"]
    assert len(only(graph, "BatchNormalization").inputs) == 5


def test_a_batch_norm_of_rows_becomes_arithmetic() -> None:
    graph = rewritten(f"""(float[1,4] x, {NORM}) => (float[1,4] y) {{
        y = BatchNormalization(x, gamma, beta, mean, variance) }}""")
    assert types(graph) == ["Mul", "Add"]


def test_division_by_a_constant_is_multiplication() -> None:
    graph = rewritten("(float[1,4,5,5] x, float[4,1,1] s) => (float[1,4,5,5] y) { y = Div(x, s) }")
    assert types(graph) == ["Mul"]


def test_split_becomes_slices() -> None:
    graph = rewritten("""(float[1,5,4,4] x) => (float[1,2,4,4] y) <int64[3] parts = {2, 1, 2}> {
        a, b, c = Split<axis=-3>(x, parts) d = Mul(a, b) y = Add(c, d) }""")
    assert types(graph) == ["Slice", "Slice", "Slice", "Mul", "Add"]
    slices = [constants(node) for node in graph.model.graph if node.op_type == "Slice"]
    assert slices == [[[0], [2], [1], [1]], [[2], [3], [1], [1]], [[3], [5], [1], [1]]]


def test_a_part_of_a_split_that_nothing_reads_goes() -> None:
    graph = rewritten("(float[1,4,4,4] x) => (float[1,2,4,4] y) { a, y = Split<axis=1>(x) }")
    assert types(graph) == ["Slice"]


def test_slices_say_in_full_what_they_take() -> None:
    graph = rewritten("""(float[1,6,7,8] x) => (float[1,3,2,8] y)
        <int64[3] starts = {-100, 1, -2}, int64[3] ends = {9223372036854775807, -1, 100},
        int64[3] axes = {3, -2, 1}, int64[3] steps = {1, 4, 1}, int64[1] zero = {0}, int64[1] all = {100}> {
        s = Slice(x, starts, ends, axes, steps)
        t = Slice(x, zero, all, zero)
        u = Slice(t, zero, all)
        p = Slice(u, steps, ends, axes) m = GlobalAveragePool(p) n = ReduceMean<axes=[1]>(m)
        a = Add(s, n) b = ReduceMean<axes=[1]>(a) y = Concat<axis=1>(a, b) }""")
    first = next(node for node in graph.model.graph if node.op_type == "Slice")
    # Rows 1 and 5, and the last two channels; bounds end behind the last that is taken.
    assert constants(first) == [[4, 1], [6, 6], [1, 2], [1, 4]]
    assert types(graph).count("Slice") == 2


def test_slices_of_different_axes_are_one() -> None:
    graph = rewritten("""(float[1,3,8,8] x) => (float[1,3,4,4] y)
        <int64[1] zero = {0}, int64[1] end = {2147483647}, int64[1] two = {2},
        int64[1] three = {3}> {
        s = Slice(x, zero, end, two, two) y = Slice(s, zero, end, three, two) }""")
    assert types(graph) == ["Slice"]
    assert constants(only(graph, "Slice")) == [[0, 0], [7, 7], [2, 3], [2, 2]]


def test_a_slice_that_runs_backwards_stays() -> None:
    graph = rewritten("""(float[1,3,4,4] x) => (float[1,3,4,4] y)
        <int64[1] last = {-1}, int64[1] end = {-100}, int64[1] axis = {3}, int64[1] back = {-1}> {
        y = Slice(x, last, end, axis, back) }""")
    assert constants(only(graph, "Slice")) == [[-1], [-100], [3], [-1]]


def test_reshapes_say_in_full_what_they_give() -> None:
    graph = rewritten("""(float[1,6,4,4] x) => (float[1,1,1,1,6] y)
        <int64[5] split = {0, 2, -1, 4, 4}, int64[4] four = {1, 6, 2, -1}, int64[2] ends = {2, 3},
        int64[2] more = {1, 2}, int64[1] one = {2}> {
        s = Reshape(x, split) t = Transpose<perm=[0,2,1,3,4]>(s) u = Flatten<axis=3>(t)
        n, rest = Split<axis=1>(u) v = Reshape(n, four) p = GlobalAveragePool(v) q = Squeeze(p, ends)
        w = Unsqueeze(q, more) y = Unsqueeze(w, one) }""")
    kinds = ["Reshape", "Transpose", "Reshape", "Slice", "Reshape", "GlobalAveragePool", *["Reshape"] * 3]
    assert types(graph) == kinds
    shapes = [constants(node)[0] for node in graph.model.graph if node.op_type == "Reshape"]
    assert shapes == [[1, 2, 3, 4, 4], [6, 16], [1, 6, 2, 4], [1, 6], [1, 1, 1, 6], [1, 1, 1, 1, 6]]


def test_what_changes_nothing_goes() -> None:
    graph = rewritten("""(float[1,3,4,4] x, float[3,3,1,1] w) => (float[1,3,4,4] y)
        <int64[4] same = {1, 3, 4, 4}, int64[8] nothing = {0,0,0,0,0,0,0,0}, float ratio = {0.5},
        bool no = {0}> {
        a = Identity(x) b = Reshape(a, same) c = Transpose<perm=[0,1,2,3]>(b) d = Pad(c, nothing)
        e = Cast<to=1>(d) f, mask = Dropout(e, ratio, no) g = Concat<axis=1>(f)
        h = MaxPool<kernel_shape=[1,1]>(g) i = AveragePool<kernel_shape=[1,1], strides=[1,1]>(h) j = Sum(i)
        k = Conv(j, w) l = Dropout(k) y = Identity(l) }""")
    assert types(graph) == ["Conv"]


def test_shapes_that_an_exporter_computes_become_constants() -> None:
    """What torch writes for ``x.view(n, 2, c // 2, h, w).transpose(1, 2).flatten(1, 2)``."""
    graph = rewritten("""(float[1,6,4,5] x) => (float[1,6,4,5] y)
        <int64 one = {1}, int64[1] two = {2}, int64[1] n = {1}, int64[1] start = {3}, int64[1] end = {5},
        int64[1] zero = {0}, int64[1] rest = {-1}, int64[1] first = {2}> {
        shape = Shape(x) c = Gather<axis=0>(shape, one) d = Unsqueeze(c, zero) half = Div(d, two)
        hw = Shape<start=2>(x) wanted = Concat<axis=0>(n, two, half, hw) s = Reshape(x, wanted)
        t = Transpose<perm=[0,2,1,3,4]>(s) shape2 = Shape(t) tail = Slice(shape2, start, end, zero)
        merged = Concat<axis=0>(n, rest, tail) y = Reshape(t, merged) }""")
    assert types(graph) == ["Reshape", "Transpose", "Reshape"]


def test_padding_moves_into_every_convolution_that_reads_it() -> None:
    graph = rewritten("""(float[1,3,6,6] x, float[4,3,3,3] w, float[3,1,3,3] v) => (float[1,7,4,4] y)
        <int64[8] pads = {0,0,0,1,0,0,1,0}> {
        p = Pad(x, pads) c = Conv<strides=[2,2], pads=[1,1,1,1]>(p, w)
        d = Conv<group=3, strides=[2,2], pads=[1,1,1,1]>(p, v) y = Concat<axis=1>(c, d) }""")
    assert types(graph) == ["Conv", "Conv", "Concat"]
    for node in list(graph.model.graph)[:2]:
        assert list(node.attributes.get_ints("pads", ())) == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("pads", "value", "reader"),
    [
        ("0,1,0,0,0,0,0,0", "0", "y = Conv(p, w)"),
        ("0,0,1,1,0,0,1,1", "0.5", "y = Conv(p, w)"),
        ("0,0,1,1,0,0,1,1", "0", "y = MaxPool<kernel_shape=[3,3]>(p)"),
        ("0,0,1,1,0,0,1,1", "0", "y = AveragePool<kernel_shape=[3,3]>(p)"),
        ("0,0,1,1,0,0,1,1", "0", "c = Conv(p, w) y = Concat<axis=1>(c, p)"),
    ],
)
def test_padding_that_means_something_else_stays(pads: str, value: str, reader: str) -> None:
    channels = 4 if pads.startswith("0,1") else 3
    text = f"""(float[1,3,6,6] x, float[2,{channels},1,1] w) => (float[n,c,h,k] y)
        <int64[8] pads = {{{pads}}}, float value = {{{value}}}> {{ p = Pad(x, pads, value) {reader} }}"""
    assert types(rewritten(text))[0] == "Pad"


def test_padding_with_the_lowest_number_moves_into_max_pool() -> None:
    graph = rewritten("""(float[1,3,6,6] x) => (float[1,3,3,3] y)
        <int64[8] pads = {0,0,0,0,0,0,1,1}, float lowest = {-inf}> {
        p = Pad(x, pads, lowest) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(p) }""")
    assert types(graph) == ["MaxPool"]


def test_negative_padding_is_a_slice() -> None:
    graph = rewritten("""(float[1,3,6,7] x, float[3,1,2,2] w) => (float[1,3,5,6] y)
        <int64[8] pads = {0,0,-1,1,0,0,1,-1}> { p = Pad(x, pads) y = Conv<group=3>(p, w) }""")
    assert types(graph) == ["Slice", "Conv"]
    assert constants(only(graph, "Slice")) == [[1, 0], [6, 6], [2, 3], [1, 1]]
    assert list(only(graph, "Conv").attributes.get_ints("pads", ())) == [0, 1, 1, 0]
    graph = rewritten("""(float[1,3,6,7] x) => (float[1,3,4,7] y) <int64[8] pads = {0,0,-1,0,0,0,-1,0}> {
        y = Pad(x, pads) }""")
    assert types(graph) == ["Slice"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [8, 9])
def test_automatic_padding_becomes_explicit(mode: str, size: int) -> None:
    graph = rewritten(f"""(float[1,3,{size},8] x, float[4,3,3,2] w) => (float[n,c,h,k] y) {{
        c = Conv<strides=[2,2], auto_pad="{mode}">(x, w)
        y = MaxPool<kernel_shape=[2,3], strides=[1,2], auto_pad="{mode}">(c) }}""")
    assert not any("auto_pad" in node.attributes for node in graph.model.graph)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("h = HardSigmoid<alpha=0.16666667>(c) y = Mul(h, c)", ["Conv", "HardSwish"]),
        ("a = Add(c, three) r = Clip(a, zero, six) m = Mul(r, c) y = Div(m, six)", ["Conv", "HardSwish"]),
        ("a = Add(three, c) r = Clip(a, zero, six) d = Div(r, six) y = Mul(c, d)", ["Conv", "HardSwish"]),
        ("a = Add(three, c) r = Clip(a, zero, six) y = Mul(r, sixth)", ["Conv", "Clip"]),
        ("y = HardSigmoid<alpha=0.3, beta=0.6>(c)", ["Conv", "Clip"]),
        ("a = Relu(c) y = HardSigmoid(a)", ["Conv", "Relu", "Mul", "Add", "Clip"]),
        # Another slope is no HardSwish.
        ("h = HardSigmoid(c) y = Mul(h, c)", ["Conv", "Mul", "Add", "Clip", "Mul"]),
        # x + 3 is read elsewhere.
        (
            "a = Add(c, three) r = Clip(a, zero, six) m = Mul(r, c) d = Div(m, six) y = Add(d, a)",
            ["Conv", "Add", "Clip", "Mul", "Mul", "Add"],
        ),
    ],
)
def test_hard_activations(body: str, left: list[str]) -> None:
    graph = rewritten(f"""(float[1,3,5,5] x, float[4,3,1,1] w, float[4] b) => (float[1,4,5,5] y)
        <float zero = {{0}}, float three = {{3}}, float six = {{6}}, float sixth = {{0.16666667}}> {{
        c = Conv(x, w, b) {body} }}""")
    assert types(graph) == left


def test_bounds_and_sums() -> None:
    graph = rewritten("""(float[1,3,5,5] x, float[1,3,1,1] c) => (float[1,3,5,5] y)
        <float[1] low = {-0.5}, float high = {0.75}> {
        a = Max(x, low) b = Min(high, a) d = Max(x, b) e = Max(x, c) y = Sum(b, c, d, e) }""")
    assert types(graph) == ["Clip", "Clip", "Max", "Max", "Add", "Add", "Add"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("y = ReduceMean<axes=[-1,2], keepdims=1>(x)", ["GlobalAveragePool"]),
        ("y = ReduceMean<axes=[2,3], keepdims=0>(x)", ["GlobalAveragePool", "Flatten"]),
        ("y = ReduceMean<axes=[1], keepdims=0>(x)", ["ReduceMean", "Reshape"]),
        ("y = ReduceMean(x)", ["ReduceMean"]),
        ("y = AveragePool<kernel_shape=[4,5], strides=[2,2]>(x)", ["GlobalAveragePool"]),
        ("y = AveragePool<kernel_shape=[4,4]>(x)", ["AveragePool"]),
        ("y = GlobalMaxPool(x)", ["MaxPool"]),
        (
            "y = AveragePool<kernel_shape=[2,2], pads=[0,1,1,0], count_include_pad=1>(x)",
            ["Pad", "AveragePool"],
        ),
    ],
)
def test_means_and_pooling(body: str, left: list[str]) -> None:
    model = source(f"(float[1,3,4,5] x) => (float[n] y) {{ {body} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = canonical(model)
    image = np.random.default_rng(1).normal(size=(1, 3, 4, 5)).astype(np.float32)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]
    got = load_reference(graph)(image)[0]
    assert got.shape == expected.shape
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert types(graph) == left


def test_nodes_without_names_keep_their_tensors_apart() -> None:
    graph = rewritten("""(float[1,3,5,5] x) => (float[1,6,5,5] y) {
        a = HardSigmoid(x) r = Relu(a) b = HardSigmoid<alpha=0.4>(r) y = Concat<axis=1>(a, b) }""")
    names = [str(output.name) for node in graph.model.graph for output in node.outputs]
    assert len(set(names)) == len(names) == 8


def test_many_nodes_take_time_in_proportion() -> None:
    """Names are given without looking through all that were given before."""
    body = "".join(f"a{i + 1} = Relu(a{i}) " for i in range(3000))
    model = source(f"(float[1,1,2,2] a0) => (float[1,1,2,2] a3000) {{ {body} }}")
    for node in model.graph.node:
        node.name = "same"
    graph = canonical(model)
    assert [str(node.name) for node in graph.model.graph][-1] == "same_3000"

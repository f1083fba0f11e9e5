"""Calibration: several images at a time give what one at a time gives, and poor ranges are widened."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir.serde
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.progress import silent
from edgecnn.quantize import ranges
from edgecnn.quantize.quantize import quantize

SHUFFLE = """(float[1,4,6,6] x, float[8,4,1,1] w, float[1,2,6,6] k, float[5,8] v) => (float[1,5] y)
    <int64[5] split = {1, 2, 4, 6, 6}, int64[4] merged = {1, 8, 6, 6}, int64[8] pads = {0,1,0,0,0,1,0,0},
    int64[1] one = {1}, int64[1] nine = {9}> {
    c = Conv(x, w) s = Reshape(c, split) t = Transpose<perm=[0,2,1,3,4]>(s) m = Reshape(t, merged)
    p = Pad(m, pads) q = Slice(p, one, nine, one) g = GlobalAveragePool(q) f = Flatten(g)
    y = Gemm<transB=1>(f, v) }"""


def parsed(text: str) -> Graph:
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> network {text}')
    rng = np.random.default_rng(0)
    for value in list(model.graph.input)[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape) / math.sqrt(math.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), value.name))
        model.graph.input.remove(value)
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))


def images(count: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(1, 4, 6, 6)).astype(np.float32) for _ in range(count)]


def test_a_shuffle_is_calibrated_several_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parsed(SHUFFLE)
    sizes: list[int] = []
    batched = ranges._batched

    def spy(graph: Graph) -> tuple[onnx.ModelProto, int]:
        model, size = batched(graph)
        sizes.append(size)
        return model, size

    monkeypatch.setattr(ranges, "_batched", spy)
    together = ranges.find_ranges(graph, images(), 6, silent)
    monkeypatch.setattr(ranges, "_ties_images_together", lambda node: True)
    alone = ranges.find_ranges(graph, images(), 6, silent)
    assert sizes == [4, 1]
    assert together.activations == alone.activations


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose<perm=[1,0,2,3]>(x)",
        "y = Reshape(x, rows)",
        "y = ReduceMean<axes=[0,1]>(x)",
        "y = Pad(x, pads)",
        "y = Concat<axis=1>(x, k)",
        "y = Concat<axis=0>(x, x)",
    ],
)
def test_what_ties_images_together_is_calibrated_one_by_one(body: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        network (float[1,4,6,6] x) => (float[n] y) <int64[3] rows = {{4, 6, 6}}, float[1,1,6,6] k = {{
        {", ".join("1" for _ in range(36))} }}, int64[8] pads = {{1,0,0,0,0,0,0,0}}> {{ {body} }}""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    graph = canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))
    assert ranges._batched(graph)[1] == 1


def test_images_that_differ_in_all_they_compute_get_ranges_that_hold_them_all() -> None:
    """Nine dark images and a bright one: the mean of the extremes is a fifth of the bright one's."""
    graph = parsed(SHUFFLE)
    lights = [image * (0.1 if index else 10) for index, image in enumerate(images(10))]
    qdq = quantize(graph, lights)
    expected, got = load_reference(graph)(lights[0])[0], load_reference(qdq)(lights[0])[0]
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()

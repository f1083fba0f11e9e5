"""The verdict on a CPU without VNNI."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.portability import Portability, portability, saturating_layers
from edgecnn.quantize.ranges import Ranges
from edgecnn.quantize.rounding import round_weights
from edgecnn.quantize.scheme import DEFAULT, Scheme
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x, float[8,3,3,3] w0, float[8,1,3,3] w1, float[4,8] w2) => (float[1,4] logits) {
    [stem] c0 = Conv<kernel_shape=[3,3]>(x, w0)
    [stem_relu] r0 = Relu(c0)
    [depthwise] c1 = Conv<group=8, kernel_shape=[3,3]>(r0, w1)
    [mean] m = GlobalAveragePool(c1)
    [flatten] f = Flatten(m)
    [classes] logits = Gemm<transB=1>(f, w2)
}"""


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random((1, 3, 8, 8)).astype(np.float32) for _ in range(10)]


@functools.cache
def float_graph(spread: float = 1.0) -> Graph:
    """The larger ``spread``, the fewer weights are near a layer's largest."""

    def fill(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
        weight = rng.uniform(-0.5, 1, shape)
        return np.sign(weight) * np.abs(weight) ** spread

    return canonical(NETWORK, fill)


def qdq(spread: float = 1.0, scheme: Scheme = DEFAULT) -> Graph:
    graph = round_weights(float_graph(spread), scheme)
    names = [str(output.name) for node in graph.model.graph for output in node.outputs]
    run = load_reference(graph, names)
    reached = {"x": np.concatenate(images())}
    reached |= {name: np.concatenate(found) for name, *found in zip(names, *map(run, images()), strict=True)}
    return to_qdq(graph, Ranges({n: (float(v.min()), float(v.max())) for n, v in reached.items()}), scheme)


def test_a_loss_is_measured_and_its_layers_are_named():
    found = portability(float_graph(), qdq(), images(), "onnxruntime")
    assert [layer.name for layer in found.layers] == ["stem", "classes"]
    assert found.images == 8
    assert not found.portable
    assert found.loss_db == pytest.approx(found.sqnr_db - found.saturated_sqnr_db)
    assert found.loss_db > 5
    stem = found.layers[0]
    assert 0 < stem.pairs <= stem.of == 8 * 14
    assert 0 < stem.touched <= 1
    assert stem.mean_steps > 0
    assert found.sentence.startswith("products saturate in onnxruntime on x86 CPUs without VNNI: SQNR ")
    assert "stem" in found.sentence
    assert "\n" not in found.sentence


def test_a_small_loss_is_called_small():
    found = portability(float_graph(9.0), qdq(9.0), images(), "onnxruntime")
    assert found.layers
    assert found.portable
    assert "costs little" in found.sentence


def test_tflite_is_not_concerned():
    found = portability(float_graph(), qdq(), images(), "tflite")
    assert (found.layers, found.images, found.portable, found.loss_db) == ((), 0, True, 0.0)
    assert found.sentence == "every CPU computes the same: tflite widens int8 before it multiplies"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_saturating_layers_saturate_no_more(runtime: str):
    names = saturating_layers(qdq(), [runtime])
    assert names == {"stem", "classes"}
    narrow = qdq(scheme=replace(DEFAULT, portable_layers=names))
    found = portability(float_graph(), narrow, images(), runtime)
    assert (found.layers, found.images, found.portable) == ((), 0, True)
    assert found.sentence.startswith("every x86 CPU computes the same, with VNNI or without")


def test_only_runtimes_that_saturate_need_saturating_layers():
    assert saturating_layers(qdq(), ["tflite"]) == frozenset()
    assert saturating_layers(qdq(), ["tflite", "openvino"]) == {"stem", "classes"}


def test_the_verdict_goes_into_a_manifest():
    found = portability(float_graph(), qdq(), images(), "onnxruntime")
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["portable"] is False
    assert record["verdict"] == found.sentence
    assert record["layers"][0]["name"] == "stem"
    lossless = replace(found, sqnr_db=float("inf"), saturated_sqnr_db=float("inf"))
    assert lossless.loss_db == 0
    json.dumps(lossless.to_json(), allow_nan=False)
    json.dumps(Portability("tflite", (), 0, None, None, None, None).to_json(), allow_nan=False)

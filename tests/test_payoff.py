"""Whether int8 pays off, and what is to blame where it does not."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import pytest

from edgecnn.backends import backend
from edgecnn.devices.job import Job
from edgecnn.graph.graph import Graph
from edgecnn.layer_times import LayerTime, layer_times
from edgecnn.measurement import Comparison, Measurement
from edgecnn.payoff import PayOff, blamed, measure_payoff, payoff
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import Ranges
from edgecnn.target import load_target
from tests.networks import canonical, plain

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,32,32] x, float[8,3,3,3] w0, float[16,8,1,1] w1, float[4,16] w2) => (float[1,4] logits) {
    [stem] c0 = Conv<kernel_shape=[3,3]>(x, w0)
    [relu] r0 = Relu(c0)
    [norm] n = LRN<size=3>(r0)
    [project] c1 = Conv<kernel_shape=[1,1]>(n, w1)
    [tanh] t = Tanh(c1)
    [mean] m = GlobalAveragePool(t)
    [flatten] f = Flatten(m)
    [classes] logits = Gemm<transB=1>(f, w2)
}"""


@functools.cache
def graphs() -> tuple[Graph, Graph]:
    """In fp32 and in int8."""
    graph = canonical(NETWORK, plain)
    names = ["x", *(str(output.name) for node in graph.model.graph for output in node.outputs)]
    return graph, to_qdq(graph, Ranges(dict.fromkeys(names, (-4.0, 4.0))))


def jobs(runtime: str, folder: Path) -> tuple[Job, Job]:
    target, made = load_target(runtime), []
    for graph in graphs():
        place = folder / graph.precision
        place.mkdir()
        model, *companions = backend(runtime).compile(graph, target, place)
        made.append(
            Job(
                model=model,
                companions=tuple(companions),
                runtime=runtime,
                target=target.name,
                variant="small",
                precision=graph.precision,
                options=target.options,
                min_time_s=0.02,
                min_runs=20,
            )
        )
    return made[0], made[1]


def measured(ms: float, precision: str, spread: float = 0.001) -> Measurement:
    wobble = itertools.cycle((1 - spread, 1.0, 1 + spread))
    return Measurement(
        target="onnxruntime",
        variant="small",
        precision=precision,
        macs=None,
        model_sha256="0" * 64,
        model_size_bytes=1,
        device="local",
        runtime="onnxruntime",
        options={},
        threads=1,
        started_at="2026-01-01T00:00:00Z",
        load_ms=1.0,
        first_ms=1.0,
        warmup_ms=(),
        warm=True,
        samples_ms=tuple(ms * next(wobble) for _ in range(60)),
        block_runs=(5,) * 12,
    )


def verdict(int8_ms: float, fp32_ms: float = 2.0, blame: tuple = (), spread: float = 0.001) -> PayOff:
    fp32, int8 = measured(fp32_ms, "fp32"), measured(int8_ms, "int8", spread)
    return payoff(fp32, int8, Comparison.between(fp32, int8), blame)


def test_int8_that_is_faster_pays():
    found = verdict(1.0)
    assert found.pays is True
    assert found.sentence == (
        "int8 is 2.00 times as fast as fp32 on onnxruntime (95 % interval 2.00 to 2.00): 1 ms against 2 ms"
    )
    assert json.loads(json.dumps(found.to_json()))["pays"] is True


def test_int8_that_is_not_faster_is_said_in_one_line():
    found = verdict(2.0)
    assert found.pays is False
    assert found.sentence.startswith("int8 is not faster than fp32 on onnxruntime: 2 ms against 2 ms (")
    assert verdict(3.0).sentence.startswith("int8 is slower than fp32 on onnxruntime: 3 ms against 2 ms (")
    assert "\n" not in found.sentence


def test_an_interval_with_both_answers_decides_nothing():
    found = PayOff("onnxruntime", 1.9, 2.0, 0.95, 0.8, 1.2, ())
    assert found.pays is None
    assert "is not clear" in found.sentence


def test_the_layers_that_cost_most_are_blamed_first():
    _, qdq = graphs()
    fp32 = {"stem": LayerTime("stem", 1.0), "project": LayerTime("project", 1.0)}
    int8 = {
        "stem": LayerTime("stem", 1.2),
        "project": LayerTime("project", 0.5),
        "Transpose": LayerTime("Transpose", 0.6),
        "Convolution": LayerTime("Convolution", 5.0),  # no layer's name: it is in fp32 too
    }
    found = blamed(qdq, fp32, int8)
    assert [entry.layer for entry in found] == ["Transpose", "stem"]
    sentence = verdict(3.0, blame=found).sentence
    assert sentence.endswith("to blame are Transpose (0.6 ms, none in fp32), stem (1.2 ms, 1 in fp32)")


def test_without_times_the_graph_tells():
    _, qdq = graphs()
    found = blamed(qdq, {}, {})
    assert [entry.sentence for entry in found] == ["norm (computes in float)"]
    assert verdict(3.0, blame=found).sentence.endswith("to blame are norm (computes in float)")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_profile_is_by_layers_of_the_graph(runtime: str, tmp_path: Path):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    for graph, job in zip(graphs(), jobs(runtime, tmp_path), strict=True):
        times = layer_times(graph, job.model, runtime, job.options)
        assert {"stem", "norm", "project", "mean", "classes"} <= set(times)
        assert "tanh" not in times  # counted for the layer in front of it, fused or not
        assert all(time.ms >= 0 for time in times.values())
        assert times["stem"].ms > 0


def test_a_runtime_without_a_profiler_has_no_times(tmp_path: Path):
    graph, job = graphs()[0], jobs("onnxruntime", tmp_path)[0]
    assert layer_times(graph, job.model, "tflite", {}) == {}


def test_both_are_measured_in_turns(tmp_path: Path):
    fp32, int8, found = measure_payoff(*graphs(), *jobs("onnxruntime", tmp_path))
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert (found.fp32_ms, found.int8_ms) == (fp32.p50_ms, int8.p50_ms)
    assert bool(found.blame) <= (found.pays is False)

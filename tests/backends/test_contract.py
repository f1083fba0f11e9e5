"""The contract of every back end: tiny graphs, each with one thing that a converter can get wrong.

A graph is written as ONNX text, in the folder ``graphs``. Its first input is the image; every other input
becomes a constant with seeded random values, so that the text stays short.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnx_ir.serde
import pytest
from onnx.parser import parse_model
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from edgecnn import check
from edgecnn.backends import RUNTIMES, backend
from edgecnn.backends.onnxruntime import load_fused
from edgecnn.graph.graph import Graph
from edgecnn.graph.half import to_fp16
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.quantize import Prepared, prepare, quantize
from edgecnn.quantize.sensitivity import layers_of
from edgecnn.target import load_target
from tests.networks import filled, plain, scaled

FLOAT_LIMITS = {"fp32": 1e-5, "fp16": 1e-2}
"""Largest difference relative to the largest output; half precision has 11 bits: 5e-4 a weight, added up."""
INT8_MAX_STEPS = 4
"""Largest difference of any output in steps of its scale. A runtime may round an integer of any layer the
other way; in front of a Clip or Concat one step of a coarser scale is up to 3.5 steps of the output."""
FLOAT_OUTPUT_LIMIT = 0.05
"""Largest difference relative to the largest output where only the last layers are in float: a step of an
8-bit tensor in front of them is 1/255 of its range, and of those that they add up some go the other way."""
SQNR_FLOOR_DB = 25.0
"""A tensor whose range is 8 times its standard deviation has 33 dB in 8 bits (12 x 255**2 / 64); the three to
five roundings of these graphs (input, weights, layers, output) leave 26."""


def _graphs() -> Iterator[tuple[str, str]]:
    """Names and texts: a name and a colon, then the signature and the body, indented."""
    for path in sorted((Path(__file__).parent / "graphs").glob("*.txt")):
        yield from re.findall(r"^(\w+):\n((?:[ \t].*\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE)


GRAPHS = dict(_graphs())


def source(name: str) -> onnx.ModelProto:
    """The graph of that name with random constants, as an exporter could have written it."""
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {name} {GRAPHS[name]}')

    def fill(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
        weight = scaled(name, shape, rng) if len(shape) in (2, 4) else plain(name, shape, rng)
        return np.abs(weight) + 0.5 if name.startswith(("gamma", "variance")) else weight

    model = filled(model, fill)
    onnx.checker.check_model(model, full_check=True)
    return model


def images(name: str, seed: int, count: int = 3, scale: float = 1.0) -> list[np.ndarray]:
    shape = [dim.dim_value for dim in source(name).graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for _ in range(count)]


def calibration(name: str) -> list[np.ndarray]:
    """One image, so that the mean of the images' extremes, which is the range, is the extreme."""
    return images(name, seed=1, count=1)


@functools.cache
def float_graph(name: str) -> Graph:
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(source(name)), "fp32"))


@functools.cache
def int8_graph(name: str) -> Graph:
    return quantize(float_graph(name), calibration(name))


class LRN(OpRun):
    """ONNX's formula; the evaluator's own (onnx 1.23) counts images where it should count channels."""

    def _run(self, x, alpha, beta, bias, size):  # type: ignore[no-untyped-def]
        squares = np.square(np.pad(x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0))))
        total = sum(squares[:, start : start + x.shape[1]] for start in range(size))
        return ((x / (bias + alpha / size * total) ** beta).astype(x.dtype),)


@functools.cache
def original_outputs(name: str) -> list[np.ndarray]:
    evaluator = ReferenceEvaluator(source(name), new_ops=[LRN])
    return [evaluator.run(None, {"x": image})[0] for image in images(name, seed=2)]


def compiled_outputs(graph: Graph, runtime: str, folder: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    target = load_target(runtime)
    files = backend(runtime).compile(graph, target, folder)
    run = backend(runtime).load(files[0], target)
    return [run(image)[0] for image in inputs]


def relative_difference(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    assert [e.shape for e in expected] == [g.shape for g in got]
    return max(float(np.abs(e - g).max()) for e, g in zip(expected, got, strict=True)) / max(
        float(np.abs(e).max()) for e in expected
    )


def output_step(qdq: Graph) -> float:
    scale = qdq.model.graph.initializers[f"{qdq.output.name}:scale"].const_value
    assert scale is not None
    return float(scale.numpy())


def steps_apart(qdq: Graph, expected: list[np.ndarray], got: list[np.ndarray]) -> np.ndarray:
    """Differences in steps of the output's scale."""
    assert [e.shape for e in expected] == [g.shape for g in got]
    return np.abs(np.stack(expected) - np.stack(got)) / output_step(qdq)


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    noise = np.square(expected - got).sum()
    return 10 * math.log10(np.square(expected).sum() / noise) if noise else math.inf


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_float_artifact_computes_the_original_graph(
    name: str, precision: str, runtime: str, tmp_path: Path
) -> None:
    graph = float_graph(name) if precision == "fp32" else to_fp16(float_graph(name))
    got = compiled_outputs(graph, runtime, tmp_path, images(name, seed=2))
    assert relative_difference(original_outputs(name), got) <= FLOAT_LIMITS[precision]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GRAPHS)
def test_int8_artifact_computes_the_qdq_graph(name: str, runtime: str, tmp_path: Path) -> None:
    qdq = int8_graph(name)
    # Smaller than the calibration image, so that most values are inside the range and some beyond it.
    inputs = images(name, seed=2, scale=0.8)
    run = load_reference(qdq)
    got = compiled_outputs(qdq, runtime, tmp_path, inputs)
    apart = steps_apart(qdq, [run(image)[0] for image in inputs], got)
    assert apart.mean() <= check.INT8_STEPS
    assert apart.max() <= INT8_MAX_STEPS


@pytest.mark.parametrize("name", GRAPHS)
def test_qdq_graph_means_what_onnx_says(name: str) -> None:
    """ONNX Runtime, unfused, against ONNX's own evaluator.

    They agree to the integer wherever the float operators do. Where a value falls on a tie, the order of
    summation breaks it, and a tie is one step: of the output itself, or of averages of integers anywhere.
    """
    qdq = int8_graph(name)
    proto = onnx.load_model_from_string(qdq.serialized)
    # The evaluator has (De)QuantizeLinear from 19 on; for these types their meaning is that of 13.
    proto.opset_import[0].version = 19
    evaluator, run = ReferenceEvaluator(proto, new_ops=[LRN]), load_reference(qdq)
    exact = load_reference(qdq, [str(value.name) for value in _output_before_rounding(qdq)])
    averages = any(node.op_type == "AveragePool" for node in qdq.model.graph)
    for image in images(name, seed=2):
        [expected], [got] = evaluator.run(None, {"x": image}), run(image)
        apart = steps_apart(qdq, [expected], [got])
        tie = np.abs(np.abs(exact(image)[0] / output_step(qdq)) % 1 - 0.5) < 1e-4
        assert np.all(apart <= np.where(tie[None] | averages, 1.001, 0.001))


def _output_before_rounding(qdq: Graph) -> list[onnx_ir.Value]:
    """What the last QuantizeLinear reads."""
    dequantize = qdq.output.producer()
    assert dequantize is not None
    quantize = dequantize.inputs[0].producer()  # type: ignore[union-attr]
    assert quantize is not None
    return [value for value in quantize.inputs[:1] if value is not None]


@pytest.mark.parametrize("name", GRAPHS)
def test_qdq_graph_keeps_the_signal(name: str) -> None:
    (image,) = calibration(name)
    expected = load_reference(float_graph(name))(image)[0]
    assert sqnr_db(expected, load_reference(int8_graph(name))(image)[0]) >= SQNR_FLOOR_DB


@functools.cache
def graph_with_weak_channels() -> Graph:
    """Output channels that are dead, all but dead, and weak, each with a bias that is none of these."""
    graph = float_graph("conv_relu")
    model = graph.copy()
    weight, bias = (model.graph.initializers[f"Conv_0.{role}"] for role in ("weight", "bias"))
    assert weight.const_value is not None
    strength = np.asarray([0, 1e-12, 1e-5, 1, 1, 1], np.float32).reshape(-1, 1, 1, 1)
    weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * strength, name=weight.name)
    bias.const_value = onnx_ir.tensor(np.asarray([5, 3, 1, 0, 1, 0], np.float32), name=bias.name)
    return Graph(model, "fp32")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weak_channels_keep_their_bias(runtime: str, tmp_path: Path) -> None:
    graph = graph_with_weak_channels()
    qdq = quantize(graph, calibration("conv_relu"))
    inputs = calibration("conv_relu")
    expected, reference = load_reference(graph)(inputs[0])[0], load_reference(qdq)(inputs[0])[0]
    assert sqnr_db(expected, reference) >= SQNR_FLOOR_DB
    apart = steps_apart(qdq, [reference], compiled_outputs(qdq, runtime, tmp_path, inputs))
    assert apart.max() <= INT8_MAX_STEPS


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    qdq = int8_graph("squeeze_excite")
    for runtime in RUNTIMES:
        contents = []
        for attempt in ("first", "second"):
            folder = tmp_path / runtime / attempt
            folder.mkdir(parents=True)
            files = backend(runtime).compile(qdq, load_target(runtime), folder)
            contents.append([file.read_bytes() for file in files])
        assert contents[0] == contents[1], runtime


@functools.cache
def prepared(name: str) -> Prepared:
    return prepare(float_graph(name), calibration(name))


def choices(name: str) -> list[frozenset[str]]:
    """Layers in float: every other one, from the first and from the second."""
    layers = [str(node.name) for node, _ in layers_of(prepared(name).convs.model)]
    return [frozenset(layers[start::2]) for start in (0, 1) if layers[start::2]]


def mixed(name: str, layers: frozenset[str]) -> Graph:
    return prepared(name).qdq(replace(prepared(name).scheme, float_layers=layers))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GRAPHS)
def test_mixed_artifact_computes_the_mixed_graph(name: str, runtime: str, tmp_path: Path) -> None:
    inputs = images(name, seed=2, scale=0.8)
    for layers in choices(name):
        qdq = mixed(name, layers)
        run = load_reference(qdq)
        expected = [run(image)[0] for image in inputs]
        got = compiled_outputs(qdq, runtime, tmp_path, inputs)
        if f"{qdq.output.name}:scale" not in qdq.model.graph.initializers:
            assert relative_difference(expected, got) <= FLOAT_OUTPUT_LIMIT, layers
        else:
            apart = steps_apart(qdq, expected, got)
            assert apart.mean() <= check.INT8_STEPS, layers
            assert apart.max() <= INT8_MAX_STEPS, layers


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["residual", "reshape_gemm_relu"])
def test_each_layer_alone_in_float(name: str, runtime: str, tmp_path: Path) -> None:
    """OpenVINO fuses two Gemms into one kernel, also where one is in float; its results are wrong."""
    inputs = images(name, seed=2, scale=0.8)
    for node, _ in layers_of(prepared(name).convs.model):
        qdq = mixed(name, frozenset({str(node.name)}))
        run = load_reference(qdq)
        expected = [run(image)[0] for image in inputs]
        got = compiled_outputs(qdq, runtime, tmp_path, inputs)
        assert relative_difference(expected, got) <= FLOAT_OUTPUT_LIMIT, node.name


@pytest.mark.parametrize("name", GRAPHS)
def test_all_layers_in_float_give_the_float_graph(name: str) -> None:
    layers = frozenset(str(node.name) for node, _ in layers_of(prepared(name).convs.model))
    qdq = mixed(name, layers)
    assert not [node for node in qdq.model.graph if node.op_type.endswith("Linear")]
    (image,) = calibration(name)
    expected = load_reference(float_graph(name))(image)
    assert relative_difference(expected, load_reference(qdq)(image)) <= 1e-5


def test_onnxruntime_leaves_float_weights_in_float() -> None:
    """Its optimisation quantises the weights of a Conv behind DequantizeLinear, with one scale for all."""
    name = "conv_relu"
    layer = next(str(node.name) for node in float_graph(name).model.graph if node.op_type == "Conv")
    graph = float_graph(name)
    model = graph.copy()
    weight = model.graph.initializers[f"{layer}.weight"]
    assert weight.const_value is not None
    array = weight.const_value.numpy()
    # One scale for all channels loses the weak ones.
    strength = np.where(np.arange(len(array)) % 2, 1e-3, 1.0).reshape(-1, *[1] * (array.ndim - 1))
    weight.const_value = type(weight.const_value)((array * strength).astype(np.float32), name=weight.name)
    found = prepare(Graph(model, "fp32"), calibration(name))
    convs = [str(node.name) for node in found.convs.model.graph if node.op_type == "Conv"]
    qdq = found.qdq(replace(found.scheme, float_layers=frozenset(convs)))
    (image,) = calibration(name)
    assert relative_difference(load_reference(qdq)(image), load_fused(qdq)(image)) <= 1e-2

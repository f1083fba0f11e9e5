"""Every comparison: what it lets pass, what it refuses, and the layer it names."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.serde
import pytest
import torch

from edgecnn import check
from edgecnn.backends import RUNTIMES, backend
from edgecnn.errors import ParityError
from edgecnn.graph.from_torch import eager_output, export, layer_outputs
from edgecnn.graph.graph import Graph
from edgecnn.graph.half import to_fp16
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.quantize.quantize import quantize
from edgecnn.target import load_target
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
small (float[1,3,8,8] x, float[4,3,3,3] w0, float[4] b0, float[4,4,3,3] w1, float[4] b1, float[5,4] w2)
    => (float[1,5] logits) {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
    r0 = Relu(c0)
    [second] c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1, b1)
    [sum] a = Add(r0, c1)
    r1 = Relu(a)
    [pool] p = GlobalAveragePool(r1)
    f = Flatten(p)
    [classes] logits = Gemm<transB=1>(f, w2)
}"""
PRECISIONS = ("fp32", "fp16", "int8")


def images(count: int = 6, seed: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@functools.cache
def graph(precision: str = "fp32") -> Graph:
    if precision == "fp16":
        return to_fp16(graph())
    if precision == "int8":
        return quantize(graph(), images())
    return canonical(NETWORK)


def int8_artifact(qdq: Graph, loader: check.TapLoader, run: Runner, images: list[np.ndarray]) -> check.Check:
    return check.int8_artifact(qdq, check.outputs_of(graph(), qdq, images), loader, run, images)


def lowered_graph(float32: Graph, lowered: Graph, images: list[np.ndarray], which: str) -> check.Check:
    return check.lowered_graph(float32, lowered, check.outputs_of(float32, lowered, images), images, which)


def compiled(precision: str, runtime: str, folder: Path) -> list[Path]:
    files: list[Path] = backend(runtime).compile(graph(precision), load_target(runtime), folder)
    return files


def compare(precision: str, runtime: str, model: Path) -> check.Check:
    target, load = load_target(runtime), backend(runtime).load
    return held_against(precision, partial(load, model, target), load(model, target))


def held_against(precision: str, loader: check.TapLoader, run: Runner) -> check.Check:
    if precision == "int8":
        return int8_artifact(graph("int8"), loader, run, images())
    given = graph(precision)
    return check.float_artifact(given, check.outputs_of(graph(), given, images()), loader, run, images())


def corrupt(files: list[Path], precision: str, layer: str) -> None:
    """Turn a convolution's weights around in the compiled files, whatever the format."""
    name = {"fp32": f"{layer}.weight", "fp16": f"{layer}.weight:fp16", "int8": f"{layer}.weight:quantized"}[
        precision
    ]
    tensor = graph(precision).model.graph.initializers[name].const_value
    assert tensor is not None
    oihw = tensor.numpy()
    for array in (oihw, oihw.transpose(0, 2, 3, 1)):
        stored, changed = array.tobytes(), array[::-1].tobytes()
        for file in files:
            if stored in (content := file.read_bytes()):
                file.write_bytes(content.replace(stored, changed))
                return
    pytest.fail(f"the weights of {layer} are in none of {files}")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_good_artifact_passes(precision: str, runtime: str, tmp_path: Path) -> None:
    held = compare(precision, runtime, compiled(precision, runtime, tmp_path)[0])
    assert held.images == 6
    assert held.value <= held.limit
    assert held.top1_agreement == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layer", ["first", "second"])
def test_changed_weights_are_refused_by_layer(
    layer: str, precision: str, runtime: str, tmp_path: Path
) -> None:
    files = compiled(precision, runtime, tmp_path)
    corrupt(files, precision, layer)
    # Where the runtime computes convolution and addition in one kernel, the sum is the first to be seen.
    seen = "second|sum" if layer == "second" else layer
    with pytest.raises(ParityError, match=rf"the first layer that diverges is '({seen})'") as caught:
        compare(precision, runtime, files[0])
    metric = "mean_abs_steps" if precision == "int8" else "max_abs_relative"
    limit = check.INT8_STEPS if precision == "int8" else check.FLOAT_LIMIT
    assert f"{precision} artifact: {metric} is " in str(caught.value)
    assert f"the limit is {limit:g}" in str(caught.value)


def swapped(outputs: np.ndarray) -> np.ndarray:
    return outputs[:, ::-1]


def with_a_nan(outputs: np.ndarray) -> np.ndarray:
    changed = outputs.copy()
    changed[0, 2] = np.nan
    return changed


def of_another_shape(outputs: np.ndarray) -> np.ndarray:
    return outputs[:, :-1]


@pytest.mark.parametrize("change", [swapped, with_a_nan, of_another_shape])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_wrong_outputs_are_refused(precision: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    reference = load_reference(graph(precision))

    def run(x: np.ndarray) -> list[np.ndarray]:
        return [change(reference(x)[0])]

    def loader(taps: object) -> Runner:
        names = list(taps)  # type: ignore[call-overload]
        tapped = [f"{n}:dequantized" for n in names[:-1]] + names[-1:] if precision == "int8" else names
        good = load_reference(graph(precision), tapped)
        return lambda x: [*good(x)[:-1], change(good(x)[-1])]

    with pytest.raises(ParityError, match="the first layer that diverges is 'classes'"):
        held_against(precision, loader, run)


def never(taps: object) -> Runner:
    raise AssertionError("the compiled model is searched only after a failure")


@pytest.mark.parametrize(("margin_steps", "tolerated"), [(1.5, True), (6, False)])
def test_a_flip_counts_only_at_a_clear_margin(margin_steps: float, tolerated: bool) -> None:
    """A candidate that exchanges the two best logits of one image, whose margin is as wide as asked for."""
    qdq = graph("int8")
    step = float(qdq.model.graph.initializers["logits:scale"].const_value.numpy())  # type: ignore[union-attr]
    reference = load_reference(qdq)
    inputs = [
        scale * image for scale in np.linspace(0.1, 4, 20, dtype=np.float32) for image in images(20, seed=4)
    ]

    def margin(x: np.ndarray) -> float:
        second, first = np.sort(reference(x)[0].reshape(-1))[-2:]
        return float(first - second) / step

    inputs.sort(key=lambda x: abs(margin(x) - margin_steps))
    low, high = (0.5, check.CLEAR_MARGIN_STEPS) if tolerated else (check.CLEAR_MARGIN_STEPS, 12)
    assert low < margin(inputs[0]) <= high

    def run(x: np.ndarray) -> list[np.ndarray]:
        logits = reference(x)[0].copy()
        if x is inputs[0]:
            second, first = np.argsort(logits[0])[-2:]
            logits[0, [first, second]] = logits[0, [second, first]]
        return [logits]

    if tolerated:
        held = int8_artifact(qdq, never, run, inputs[:10])
        assert held.top1_agreement == 0.9
        return
    with pytest.raises(ParityError, match="1 of 10 images get another class"):
        int8_artifact(qdq, partial(loader_of, qdq), run, inputs[:10])


def loader_of(qdq: Graph, taps: list[str]) -> Runner:
    return load_reference(qdq, [name if name == "logits" else f"{name}:dequantized" for name in taps])


def test_a_float_flip_within_the_limit_is_a_tie() -> None:
    """Logits that are all but equal, as random weights give them, and a flip smaller than the limit."""
    reference = load_reference(graph())
    limit = check.FLOAT_LIMIT

    def level(x: np.ndarray) -> np.ndarray:
        logits = np.ones_like(reference(x)[0])
        logits[0, 1] += limit / 4
        return logits

    def flipped(x: np.ndarray) -> np.ndarray:
        return level(x)[:, [1, 0, 2, 3, 4]]

    pairs = ((x, level(x), flipped(x)) for x in images())
    held = check._relative("a", "b", pairs, limit, lambda _: None)
    assert held.top1_agreement == 0
    assert held.value <= limit


def test_int8_that_lost_the_network_is_refused_with_its_worst_layers() -> None:
    qdq = graph("int8")
    assert lowered_graph(graph(), qdq, images(), "images").value > check.SQNR_FLOORS_DB["int8"]
    broken = qdq.copy()
    scale = broken.graph.initializers["second.weight:scale"]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(30), name=scale.name)  # type: ignore[union-attr]
    with pytest.raises(
        ParityError, match=r"SQNR .* below the floor of 8 dB; the layers that lose most: second \("
    ):
        lowered_graph(graph(), Graph(broken, "int8"), images(), "images")


class Residual(torch.nn.Module):
    """Convolutions with batch norm, work in place, and operations that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU(inplace=True)
        )
        self.second = torch.nn.Sequential(torch.nn.Conv2d(6, 6, 3, padding=1), torch.nn.BatchNorm2d(6))
        self.classes = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(x + self.second(x))
        return self.classes(x.mean((2, 3)))


@functools.cache
def exported() -> tuple[torch.nn.Module, Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Residual().eval()
    return module, export(module, "residual", (1, 3, 8, 8))


def compare_with_torch(changed: Graph) -> check.Check:
    module = exported()[0]
    return check.float_graph(
        changed,
        partial(eager_output, module),
        "eager torch",
        images(),
        lambda x: layer_outputs(module, x),
    )


def test_an_exported_graph_passes() -> None:
    held = compare_with_torch(exported()[1])
    assert held.value <= check.TORCH_LIMIT
    assert held.top1_agreement == 1


@pytest.mark.parametrize("layer", ["first.0/Conv", "second.0/Conv", "classes/Gemm"])
def test_an_export_that_differs_is_refused_by_layer(layer: str) -> None:
    graph = exported()[1]
    model = graph.copy()
    weight = model.graph.initializers[f"{layer}.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.5), name=weight.name)  # type: ignore[union-attr]
    with pytest.raises(ParityError, match=f"float graph: max_abs_relative is .* limit is 0.0001.*'{layer}'"):
        compare_with_torch(Graph(model, "fp32"))


def test_searching_the_layers_leaves_no_hooks() -> None:
    module = exported()[0]
    layer_outputs(module, images()[0])
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_check_is_json() -> None:
    held = check.Check("a", "b", 1, "sqnr_db", math.inf, 8.0, 1.0)
    assert held.to_json()["value"] == "inf"


def test_leaving_the_int8_graph_is_allowed_only_as_near_to_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrored at the float graph, a model is as far from it as the QDQ graph; twice as far it is refused."""
    monkeypatch.setattr(check, "INT8_STEPS", 1e-3)
    exact, rounded = load_reference(graph()), load_reference(graph("int8"))

    def mirrored(factor: float) -> Runner:
        return lambda x: [exact(x)[0] - factor * (rounded(x)[0] - exact(x)[0])]

    held = int8_artifact(graph("int8"), never, mirrored(1), images())
    assert (held.against, held.metric) == ("float graph", "mean_abs_steps")
    assert held.value == pytest.approx(held.limit / check.AS_NEAR)
    with pytest.raises(ParityError, match=r"the limit is 0\.001"):
        int8_artifact(graph("int8"), partial(loader_of, graph("int8")), mirrored(2), images())


def test_half_precision_that_loses_the_network_is_refused() -> None:
    """Weights so small that fp16 flushes them to zero."""
    model = graph().copy()
    for name, value in model.graph.initializers.items():
        if name.endswith(".weight") and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1e-8), name=name)
    tiny = Graph(model, "fp32")
    with pytest.raises(ParityError, match=r"fp16 graph: SQNR .* dB against the float graph on images \(6\)"):
        lowered_graph(tiny, to_fp16(tiny), images(), "images")
    assert lowered_graph(graph(), to_fp16(graph()), images(), "images").value > 60

"""Linear feature maps are scaled a channel, and the network computes the same with less noise."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.layer_noise import measure_layers
from edgecnn.quantize.balance import balance, streams
from edgecnn.quantize.quantize import prepare
from edgecnn.sqnr import decibel
from tests.networks import canonical, scaled

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x, float[8,3,3,3] w0, float[8] b0, float[16,8,1,1] w1, float[8,16,1,1] quiet,
    float[16,8,1,1] w3, float[5,16] w4) => (float[1,5] logits) {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
    [expand] c1 = Conv<kernel_shape=[1,1]>(c0, w1)
    [relu1] r1 = Relu(c1)
    [project] c2 = Conv<kernel_shape=[1,1]>(r1, quiet)
"""
TAIL = """
    [last] c3 = Conv<kernel_shape=[1,1]>(a, w3)
    [relu3] r3 = Relu(c3)
    [mean] g = GlobalAveragePool(r3)
    [flatten] f = Flatten(g)
    [classes] logits = Gemm<transB=1>(f, w4)
}"""
RESIDUAL = HEAD + "    [sum] a = Add(c0, c2)" + TAIL


def uneven(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Channels of the stream that differ fivefold, and are read as if they did not."""
    array, gains = scaled(name, shape, rng), np.linspace(0.2, 1.0, 8)
    if name in ("w0", "quiet"):
        return array * gains.reshape(-1, 1, 1, 1)
    return array / gains.reshape(1, -1, 1, 1) if name in ("w1", "w3") else array


def images(count: int = 20, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


def names(graph: Graph) -> list[tuple[set[str], set[str], set[str]]]:
    return [
        ({str(v.name) for v in s.tensors}, {str(n.name) for n in s.writers}, {str(n.name) for n in s.readers})
        for s in streams(graph)
    ]


def test_what_is_added_up_is_one_stream() -> None:
    [(tensors, writers, readers)] = names(canonical(RESIDUAL, uneven))
    assert tensors == {"first", "project", "sum"}
    assert writers == {"first", "project"}
    assert readers == {"expand", "last"}


@pytest.mark.parametrize(
    "between",
    [
        "[sum] s = Add(c0, c2) [act] a = Relu(s)",
        "[sum] a = Mul(c0, c2)",
        "[sum] s = Add(c0, c2) [pool] a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)",
    ],
)
def test_what_others_read_stays_as_it_is(between: str) -> None:
    graph = canonical(HEAD + between + TAIL, uneven)
    assert all("sum" not in tensors for tensors, _, _ in names(graph))


def test_shared_weights_stay_as_they_are() -> None:
    text = RESIDUAL.replace("Conv<kernel_shape=[1,1]>(a, w3)", "Conv<kernel_shape=[1,1]>(a, w1)")
    graph = canonical(text.replace("float[16,8,1,1] w3, ", ""), uneven)
    assert names(graph) == []
    assert balance(graph, images()) is graph


def test_the_function_stays_and_the_channels_come_nearer() -> None:
    graph = canonical(RESIDUAL, uneven)
    balanced = balance(graph, images())
    taps = ["sum", "logits"]
    before, after = load_reference(graph, taps), load_reference(balanced, taps)
    spreads = []
    for image in images(4, seed=2):
        (stream, logits), (balanced_stream, balanced_logits) = before(image), after(image)
        np.testing.assert_allclose(balanced_logits, logits, rtol=1e-4, atol=1e-5)
        spreads.append([np.ptp(np.log(np.abs(x).max(axis=(0, 2, 3)))) for x in (stream, balanced_stream)])
    original, nearer = np.mean(spreads, axis=0)
    assert nearer < 0.75 * original


def test_the_factors_are_taken_back_where_layers_are_compared() -> None:
    graph = canonical(RESIDUAL, uneven)
    prepared = prepare(graph, images())
    layers = {layer.name: layer.sqnr_db for layer in measure_layers(graph, prepared.qdq(), images(8, seed=3))}
    got, exact = load_reference(prepared.qdq(), ["sum:dequantized"]), load_reference(graph, ["sum"])
    signal = noise = 0.0
    for image in images(8, seed=3):
        [e], [g] = exact(image), got(image)
        signal, noise = signal + float(np.square(e).sum()), noise + float(np.square(e - g).sum())
    # Read without the factors, the stream is another tensor; with them it is the same with little noise.
    assert decibel(signal, noise) < 20 < layers["sum"]


def test_int8_loses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = canonical(RESIDUAL, uneven)
    exact = load_reference(graph)

    def noise() -> float:
        run = load_reference(prepare(graph, images()).qdq())
        return sum(float(np.square(run(x)[0] - exact(x)[0]).sum()) for x in images(50, seed=3))

    balanced = noise()
    monkeypatch.setattr("edgecnn.quantize.quantize.balance", lambda graph, images: graph)
    assert balanced < 0.95 * noise()

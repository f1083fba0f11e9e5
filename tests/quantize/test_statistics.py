"""One pass over the images counts what each tensor holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir.serde
import pytest
from onnx.parser import parse_model

from edgecnn.errors import ConversionError, DataError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.statistics import collect

NETWORK = """<ir_version: 8, opset_import: ["" : 17]> network (float[1,2,9,7] x) => (float[1,3] y)
    <float[4,2,1,1] w = {1,2,-3,4,5,-6,7,8}, float[4] b = {0,1,-2,3},
    float[3,4] v = {1,2,3,4,5,6,7,8,9,1,2,3}, float[3] c = {0,0,1}> {
    a = Conv(x, w, b) r = Relu(a) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm<transB=1>(f, v, c) }"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(parse_model(NETWORK)), "fp32"))


def images(count: int = 7) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 2, 9, 7)).astype(np.float32) for _ in range(count)]


def values(graph: Graph, name: str, indices: range) -> np.ndarray:
    """The tensor on each image, (images, channels, elements)."""
    if name == "x":
        arrays = [images()[index] for index in indices]
    else:
        arrays = [load_reference(graph, [name])(images()[index])[0] for index in indices]
    return np.stack([array.reshape(array.shape[1], -1) for array in arrays])


def test_every_figure_is_that_of_the_values(graph: Graph) -> None:
    found = collect(graph, images()).everything
    assert {"x", "y"} < set(found)
    assert not any(node.outputs[0].name in found for node in graph.model.graph if node.op_type == "Conv")
    for name, tensor in found.items():
        expected = values(graph, name, range(7))
        assert tensor.lows == pytest.approx(expected.min(axis=(1, 2)), rel=1e-6)
        assert tensor.highs == pytest.approx(expected.max(axis=(1, 2)), rel=1e-6)
        assert tensor.channels is not None
        assert tensor.channels.low == pytest.approx(expected.min(axis=(0, 2)), rel=1e-6)
        assert tensor.channels.high == pytest.approx(expected.max(axis=(0, 2)), rel=1e-6)
        assert tensor.channels.mean == pytest.approx(expected.mean(axis=(0, 2)), rel=1e-5, abs=1e-6)
        assert tensor.histogram.counts.sum() == expected.size


def test_images_that_are_put_aside_decide_nothing(graph: Graph) -> None:
    collected = collect(graph, images(), aside=range(0, 7, 3))
    assert [np.array_equal(one, images()[at]) for one, at in zip(collected.judges, (0, 3, 6), strict=True)]
    without = collect(graph, [images()[at] for at in (1, 2, 4, 5)]).everything
    whole = collect(graph, images()).everything
    for name, tensor in collected.unseen.items():
        assert np.array_equal(tensor.lows, without[name].lows)
        assert sorted(collected.everything[name].highs) == sorted(whole[name].highs)
        one, two = tensor.channels, collected.everything[name].channels
        assert one is not None
        assert two is not None
        assert one.mean == pytest.approx(
            values(graph, name, range(7))[[1, 2, 4, 5]].mean(axis=(0, 2)), abs=1e-5
        )
        assert two.mean == pytest.approx(values(graph, name, range(7)).mean(axis=(0, 2)), abs=1e-5)


def test_where_all_are_put_aside_all_decide(graph: Graph) -> None:
    collected = collect(graph, images(2), aside=range(2))
    assert len(collected.judges) == 2
    assert np.array_equal(collected.unseen["y"].highs, collect(graph, images(2)).everything["y"].highs)


def test_images_are_read_once_in_order_and_few_are_waiting(graph: Graph) -> None:
    read: list[int] = []
    reports: list[float] = []

    class Stream:
        def __len__(self) -> int:
            return 7

        def __iter__(self) -> Iterator[np.ndarray]:
            for index, image in enumerate(images()):
                assert index - len(reports) <= 4
                read.append(index)
                yield image

    collect(graph, Stream(), lambda what, done, total: reports.append(done))
    assert read == list(range(7))
    assert reports == list(range(1, 8))


def test_what_is_not_finite_is_named(graph: Graph) -> None:
    bad = images()
    bad[4][0, 0, 0, 0] = np.nan
    with pytest.raises(ConversionError, match=r"tensor 'x' is not finite on calibration image 5"):
        collect(graph, bad)


def test_no_image_is_said_to_be_none(graph: Graph) -> None:
    with pytest.raises(DataError, match="no image"):
        collect(graph, [])

"""Rounding that keeps sums: its promises, on random rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import constant
from edgecnn.quantize.rounding import keep_sums, round_weights, weight_scales

LARGEST = 127


def rows(seed: int) -> np.ndarray:
    """Rows as weights give them: in [-127, 127], at least one element at an end."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 40)), int(rng.choice([1, 2, 9, 25, 160])))
    exact = rng.normal(size=size) if seed % 2 else rng.uniform(-1, 1, size)
    return (exact / np.abs(exact).max(axis=1, keepdims=True) * LARGEST).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_sums_are_kept(seed: int) -> None:
    exact = rows(seed)
    stored = keep_sums(exact)
    drift = stored.sum(axis=1) - exact.sum(axis=1, dtype=np.float64)
    free = (np.abs(np.rint(exact)) < LARGEST).sum(axis=1)
    wanted = np.abs(np.rint((exact - np.rint(exact)).sum(axis=1)))
    blocked = wanted > free
    assert np.all(np.abs(drift[~blocked]) <= 0.5 + 1e-3)
    # A blocked row moved all that could move, and is no further off than plain rounding.
    nearest = np.rint(exact).sum(axis=1) - exact.sum(axis=1, dtype=np.float64)
    assert np.all(np.abs(drift[blocked]) <= np.abs(nearest[blocked]))


@pytest.mark.parametrize("seed", range(40))
def test_each_weight_is_one_of_its_two_neighbours(seed: int) -> None:
    exact = rows(seed)
    stored = keep_sums(exact)
    assert np.array_equal(stored, np.rint(stored))
    assert np.abs(stored - np.rint(exact)).max() <= 1
    assert np.abs(stored - exact).max() < 1
    assert np.abs(stored).max() <= LARGEST


@pytest.mark.parametrize("seed", range(40))
def test_the_largest_stay_and_so_does_the_scale(seed: int) -> None:
    exact = rows(seed)
    stored = keep_sums(exact)
    ends = np.abs(np.rint(exact)) == LARGEST
    assert np.array_equal(stored[ends], np.rint(exact)[ends])
    assert np.all(np.abs(stored).max(axis=1) == LARGEST)


def test_integers_stay() -> None:
    exact = np.random.default_rng(0).integers(-127, 128, (20, 9)).astype(np.float32)
    assert np.array_equal(keep_sums(exact), exact)


def network(weight: np.ndarray) -> Graph:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=(1, weight.shape[1], 8, 8))
    value = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    value.shape, value.type = ir.Shape(weight.shape), ir.TensorType(ir.DataType.FLOAT)
    node = ir.node("Conv", [x, value], name="conv")
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 17})
    return Graph(ir.Model(graph, ir_version=8), "fp32")


def rounded(graph: Graph) -> np.ndarray:
    weight = constant(round_weights(graph).model.graph.initializers["w"])
    assert weight is not None
    return weight


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 40, 1, 1), (6, 1, 5, 5)])
def test_weights_keep_their_scale_and_the_sums_of_their_kernels(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    result = rounded(network(weight))
    scale = weight_scales(weight)
    assert weight_scales(result) == pytest.approx(scale, rel=1e-6)
    steps = scale.reshape(-1, 1, 1, 1)
    axes = (2, 3) if shape[2] > 1 else (1, 2, 3)
    drift = (result / steps).sum(axis=axes) - (weight / steps).sum(axis=axes)
    assert np.abs(drift).max() <= 0.5 + 1e-3
    assert np.abs(result - weight).max() < steps.max()


def test_rounding_twice_changes_nothing() -> None:
    graph = network(np.random.default_rng(3).normal(size=(6, 4, 3, 3)).astype(np.float32))
    once = round_weights(graph)
    assert rounded(once) == pytest.approx(rounded(graph), rel=1e-6)


def test_scales_of_dead_channels_follow_the_largest() -> None:
    weight = np.asarray([[0.0, 0.0], [1e-30, 0.0], [-1.27, 1.0]], np.float32)
    assert weight_scales(weight) == pytest.approx([0.01 / 2**16, 0.01 / 2**16, 0.01])
    assert weight_scales(np.zeros((2, 3), np.float32)).tolist() == [1.0, 1.0]

"""From statistics to ranges: what each estimator promises."""

from __future__ import annotations

import numpy as np
import onnx_ir.serde
import pytest
from onnx.parser import parse_model

from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.ranges import find_ranges
from edgecnn.quantize.scheme import ESTIMATORS, Estimator
from edgecnn.quantize.statistics import collect


def parsed(text: str) -> Graph:
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> network {text}')
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(model), "fp32"))


DOUBLED = parsed("(float[1,1,64,64] x) => (float[1,1,64,64] y) <float two = {2}> { y = Mul(x, two) }")


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 1, 64, 64)).astype(np.float32) for _ in range(20)]


def range_of(found: list[np.ndarray], estimator: Estimator) -> tuple[float, float]:
    return find_ranges(DOUBLED, collect(DOUBLED, found).everything, estimator).activations["x"]


def test_the_mean_of_the_extremes() -> None:
    found = images()
    expected = np.mean([image.min() for image in found]), np.mean([image.max() for image in found])
    assert range_of(found, "mean") == pytest.approx(expected)


def test_the_widest_extremes() -> None:
    found = np.concatenate(images())
    assert range_of(images(), "minmax") == pytest.approx((found.min(), found.max()))


def test_a_percentile_leaves_out_what_is_rare() -> None:
    found = images()
    found[3][0, 0, 5, 5] = 1000
    low, high = range_of(found, "percentile")
    # To one bin of 1000 / 1024; a range of the extremes would end at 1000.
    assert low == pytest.approx(np.quantile(np.concatenate(images()), 1e-4), abs=1.0)
    assert high == pytest.approx(np.quantile(np.concatenate(images()), 1 - 1e-4), abs=1.0)


def test_the_least_squared_error_is_that_of_integers() -> None:
    """Heavy tails: neither the widest range nor one that clips much is best."""
    rng = np.random.default_rng(1)
    found = [rng.standard_t(3, size=(1, 1, 64, 64)).astype(np.float32) for _ in range(20)]
    values = np.concatenate(found).reshape(-1)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        return float(np.square(np.clip(np.rint(values / scale) * scale, low, high) - values).mean())

    low, high = range_of(found, "mse")
    least = error(low, high)
    assert least < 0.9 * error(values.min(), values.max())
    for factor in (0.8, 1.25):
        assert least < error(factor * low, high)
        assert least < error(low, factor * high)


def test_zeros_of_a_relu_cost_no_rounding() -> None:
    """They outnumber the rest a thousandfold, and must not widen the steps of it."""
    found = [np.zeros((1, 1, 64, 64), np.float32) for _ in range(20)]
    for image in found:
        image[0, 0, 0, :4] = [1.0, 2.0, 3.0, 4.0]
    low, high = range_of(found, "mse")
    assert low == 0
    assert high == pytest.approx(4.0, rel=0.03)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_output_holds_all_values(estimator: Estimator) -> None:
    found = np.concatenate(images())
    ranges = find_ranges(DOUBLED, collect(DOUBLED, images()).everything, estimator)
    assert ranges.activations["y"] == pytest.approx((2 * found.min(), 2 * found.max()))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, -3.0, 2.0**-40])
def test_a_constant_tensor_has_a_range(estimator: Estimator, value: float) -> None:
    found = [np.full((1, 1, 64, 64), value, np.float32)] * 2
    low, high = range_of(found, estimator)
    assert min(low, 0) <= value <= max(high, 0)


def test_what_only_moves_values_has_no_range_of_its_own() -> None:
    graph = parsed("""(float[1,4,6,6] x) => (float[1,8,3,3] y) {
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) h = HardSwish(p) y = Concat<axis=1>(p, h) }""")
    found = [np.ones((1, 4, 6, 6), np.float32), -np.ones((1, 4, 6, 6), np.float32)]
    [swish] = [str(node.outputs[0].name) for node in graph.model.graph if node.op_type == "HardSwish"]
    assert set(find_ranges(graph, collect(graph, found).everything, "minmax").activations) == {"x", swish}

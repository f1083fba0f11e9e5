"""Integers found behind dequantised constants."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.quantize.grid import operand_grid, weight_grid

ZEROS = np.zeros(8)


def stored(largest: int, shape: tuple[int, ...] = (8, 3, 3, 3), lowest: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(largest)
    integers = rng.integers(-largest, largest + 1, shape).astype(np.int8)
    integers.reshape(shape[0], -1)[:, 0] = -largest if lowest is None else lowest
    integers.reshape(shape[0], -1)[:, 1] = 1
    return integers


@pytest.mark.parametrize("largest", [127, 126, 100, 63, 7, 1])
def test_integers_come_back_with_their_scales_to_the_bit(largest: int) -> None:
    integers = stored(largest)
    scales = np.random.default_rng(1).uniform(1e-4, 0.1, 8).astype(np.float32)
    grid = weight_grid(integers * scales.reshape(-1, 1, 1, 1), ZEROS)
    assert grid is not None
    np.testing.assert_array_equal(
        grid.stored * grid.scale.reshape(-1, 1, 1, 1), integers * scales.reshape(-1, 1, 1, 1)
    )
    np.testing.assert_array_equal(grid.stored, integers)


def test_a_bias_on_the_finer_grid_keeps_it() -> None:
    """One weight says nothing of its scale: 127 steps, or 1."""
    weight = np.random.default_rng(4).uniform(0.1, 0.3, (8, 1, 1, 1)).astype(np.float32)
    for bias, integer in ((weight.reshape(-1) / 127, 127), (ZEROS, 1)):
        grid = weight_grid(weight, bias)
        assert grid is not None
        np.testing.assert_array_equal(grid.stored, integer)


def test_weights_that_reach_minus_128_keep_it() -> None:
    integers = stored(127, lowest=-128)
    scales = np.linspace(0.01, 0.02, 8, dtype=np.float32)
    grid = weight_grid(integers * scales.reshape(-1, 1, 1, 1), ZEROS)
    assert grid is not None
    np.testing.assert_array_equal(grid.stored, integers)


def test_one_scale_a_tensor_is_found_where_it_is_enough() -> None:
    integers = stored(60)
    integers[3] = 127
    grid = weight_grid(integers * np.float32(0.013), ZEROS)
    assert grid is not None
    assert grid.scale.shape == ()
    np.testing.assert_array_equal(grid.stored, integers)


def test_scaling_by_batch_norm_leaves_the_integers() -> None:
    integers, rng = stored(127), np.random.default_rng(3)
    scaled = (integers * np.float32(0.02)).reshape(8, -1).astype(np.float64) * rng.normal(size=(8, 1))
    grid = weight_grid(scaled.astype(np.float32).reshape(integers.shape), ZEROS)
    assert grid is not None
    np.testing.assert_array_equal(np.abs(grid.stored), np.abs(integers))


def test_channels_of_zeros_have_a_scale_like_the_others() -> None:
    integers = stored(127) * (np.arange(8) > 2).astype(np.int8).reshape(-1, 1, 1, 1)
    scales = np.linspace(0.01, 0.02, 8, dtype=np.float32)
    grid = weight_grid(integers * scales.reshape(-1, 1, 1, 1), ZEROS)
    assert grid is not None
    np.testing.assert_array_equal(grid.stored, integers)
    assert grid.scale[0] == scales[7]


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (10, 400)])
def test_weights_that_nobody_quantised_are_on_no_grid(shape: tuple[int, ...]) -> None:
    assert (
        weight_grid(np.random.default_rng(0).normal(size=shape).astype(np.float32), np.zeros(shape[0]))
        is None
    )


def test_operands_have_one_scale_and_any_zero_point() -> None:
    integers = np.random.default_rng(0).integers(0, 256, (1, 16, 1, 1))
    integers[0, :2, 0, 0] = 0, 255
    values = ((integers - 37) * np.float32(0.017)).astype(np.float32)
    grid = operand_grid(values)
    assert grid is not None
    assert grid.zero_point == 37
    np.testing.assert_array_equal(grid.stored, integers)
    assert operand_grid(np.random.default_rng(0).normal(size=16).astype(np.float32)) is None

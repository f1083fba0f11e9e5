"""A histogram that grows by parts counts what one of all values would."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.quantize.histogram import Histogram


@pytest.mark.parametrize("seed", range(8))
def test_parts_of_any_scale_join_to_the_counts_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offset = 5.0 * (seed % 3 - 1)
    parts = [
        (rng.normal(size=500) * 2.0 ** rng.integers(-9, 9) + offset).astype(np.float32) for _ in range(20)
    ]
    joined = Histogram.of(parts[0])
    for part in parts[1:]:
        joined = joined.joined(Histogram.of(part))
    bins = np.floor(np.concatenate(parts) / np.float64(joined.width)).astype(int) - joined.first
    assert np.array_equal(joined.counts, np.bincount(bins, minlength=len(joined.counts)))
    assert len(joined.counts) <= 2048
    # As fine as so many bins allow, to a factor of two.
    span = max(np.concatenate(parts).max(), 0) - min(np.concatenate(parts).min(), 0)
    assert joined.width <= 2 * span / 1024


def test_values_that_are_all_zero_leave_room_for_others() -> None:
    zeros = Histogram.of(np.zeros(7, np.float32))
    assert zeros.counts.tolist() == [7]
    both = zeros.joined(Histogram.of(np.float32([-1.0, 3.0])))
    assert both.counts.sum() == 9
    assert both.counts[-both.first] == 7
    assert both.width <= 4 / 1024


def test_the_centers_are_those_of_the_bins() -> None:
    histogram = Histogram.of(np.float32([-0.5, 0.25, 1.0]))
    held = histogram.centers[histogram.counts > 0]
    assert held == pytest.approx([-0.5, 0.25, 1.0], abs=histogram.width)

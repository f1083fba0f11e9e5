"""Two modes are found where there are two, and not in the tails that latencies have."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edgecnn.modes import modes

Draw = Callable[[random.Random], float]

ONE_MODE: dict[str, Draw] = {
    "narrow": lambda r: r.gauss(1, 0.02),
    "wide": lambda r: r.lognormvariate(0, 0.3),
    "very heavy right tail": lambda r: r.lognormvariate(0, 1),
    "exponential": lambda r: 1 + r.expovariate(1),
    "Pareto without a mean": lambda r: r.paretovariate(1),
    "uniform": lambda r: r.uniform(1, 2),
    "a fifth in a tail": lambda r: r.gauss(1, 0.01) if r.random() < 0.8 else 1 + r.expovariate(3),
    "a bump of one in twenty": lambda r: r.gauss(1, 0.02) if r.random() < 0.95 else r.gauss(1.5, 0.02),
    "two that are 3 % apart": lambda r: r.gauss(1 if r.random() < 0.5 else 1.03, 0.003),
    "a browser's clock of 0.1 ms": lambda r: round(r.gauss(1, 0.1), 1) or 0.1,
    "the same on a slower model": lambda r: round(r.gauss(2.05, 0.15), 1),
    "differences of such a clock": lambda r: round(r.gauss(7, 0.1), 1) + 1e6 - 1e6,
    "constant": lambda r: 1.0,
}
TWO_MODES: dict[str, tuple[Draw, float, float]] = {
    "halves": (lambda r: r.gauss(1, 0.02) if r.random() < 0.5 else r.gauss(1.3, 0.03), 1.0, 1.3),
    "seven in ten": (lambda r: r.gauss(1 if r.random() < 0.7 else 1.15, 0.02), 1.0, 1.15),
    "one in six": (lambda r: r.gauss(1 if r.random() < 0.84 else 1.3, 0.02), 1.0, 1.3),
    "with tails": (lambda r: (1 if r.random() < 0.6 else 1.1) + r.expovariate(60), 1.01, 1.11),
    "little and big cores": (lambda r: r.lognormvariate(0, 0.1) * (1 if r.random() < 0.4 else 3), 1.0, 3.0),
    "with outliers": (
        lambda r: r.gauss(1 if r.random() < 0.6 else 1.3, 0.02) * (100 if r.random() < 0.02 else 1), 1.0, 1.3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("draw", ONE_MODE.values(), ids=ONE_MODE)
def test_one_mode_is_not_called_two(draw: Draw) -> None:
    for count, repeats in ((20, 40), (60, 40), (300, 20), (3000, 2)):
        for seed in range(repeats):
            generator = random.Random(seed)
            assert modes([draw(generator) for _ in range(count)]) is None


@pytest.mark.parametrize(("draw", "low", "high"), TWO_MODES.values(), ids=TWO_MODES)
@pytest.mark.parametrize("count", [300, 3000])
def test_two_modes_are_found_where_they_are(draw: Draw, low: float, high: float, count: int) -> None:
    for seed in range(5):
        generator = random.Random(seed)
        found = modes([draw(generator) for _ in range(count)])
        assert found == (pytest.approx(low, rel=0.03), pytest.approx(high, rel=0.03))


def test_their_order_does_not_matter() -> None:
    generator = random.Random(1)
    samples = [generator.gauss(1 if place % 2 else 1.2, 0.02) for place in range(100)]
    assert modes(samples) == modes(sorted(samples)) is not None


def test_a_few_samples_have_no_modes() -> None:
    assert modes([1.0]) is None
    assert modes([1.0, 2.0]) is None
    assert modes([1.0, 1.01, 1.02, 2.0, 2.01, 2.02]) is None

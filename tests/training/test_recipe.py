from __future__ import annotations

from itertools import pairwise

import pytest

from edgecnn.errors import ConfigError
from edgecnn.training.recipe import Recipe, scratch, transfer


def test_the_rate_rises_in_a_line_then_falls_to_zero() -> None:
    recipe = Recipe(epochs=10, warmup=0.1)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert all(after < before for before, after in pairwise(rates[10:]))
    assert rates[99] < 1e-3


def test_one_step_has_the_full_rate() -> None:
    assert Recipe(epochs=1).rate(0, 1) == 1.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 4, "frozen_epochs": 5}, "frozen epochs"),
        ({"epochs": 4, "batch": 1}, "batch"),
        ({"epochs": 4, "learning_rate": float("nan")}, "learning rate"),
        ({"epochs": 4, "label_smoothing": 1.0}, "label smoothing"),
        ({"epochs": 4, "first_layer_rate": 2.0}, "first layer rate"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Recipe(**changes)  # type: ignore[arg-type]


def test_transfer_freezes_a_third_and_slows_the_first_layers() -> None:
    assert transfer(12).frozen_epochs == 4
    assert transfer(12).first_layer_rate < scratch().first_layer_rate == 1.0

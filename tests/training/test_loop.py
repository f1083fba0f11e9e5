from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecnn.errors import ConfigError
from edgecnn.progress import silent
from edgecnn.spec import Preprocess
from edgecnn.training.loop import Epoch, Teacher, TrainingDiverged, fit, sparkline, top1_percent
from edgecnn.training.recipe import Recipe
from edgecnn.zoo import build, make_spec

from .conftest import stripes

GREY = Preprocess(32, (32, 32), (0.5,), (0.25,))
RECIPE = Recipe(epochs=3, batch=16, learning_rate=0.02, ema_steps=5)
LONGER = replace(RECIPE, epochs=15, learning_rate=0.05)


def run(state: Path, recipe: Recipe = RECIPE, **options: Any) -> tuple[torch.nn.Module, list[Epoch]]:
    model = build(make_spec("lenet5", classes=2))
    given = {"teacher": None, "about": {"n": 1}, "progress": silent} | options
    epochs = fit(model, stripes(96, 1), stripes(40, 2), GREY, recipe, state=state, **given)
    return model, epochs


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_network_learns_and_keeps_the_average(tmp_path: Path) -> None:
    model, epochs = run(tmp_path / "s.safetensors", LONGER)
    assert [epoch.number for epoch in epochs] == list(range(1, 16))
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].top1_percent >= 90
    assert not model.training
    assert top1_percent(model, stripes(40, 2), GREY) == epochs[-1].top1_percent


def test_a_training_that_was_ended_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, epochs = run(tmp_path / "whole.safetensors")
    calls = 0

    def stop_in_the_third_epoch(description: str, done: float, total: float | None) -> None:
        nonlocal calls
        calls += 1
        if done == 14:
            raise KeyboardInterrupt

    state = tmp_path / "part.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(state, progress=stop_in_the_third_epoch)
    assert calls == 14
    resumed, again = run(state)
    assert same(whole, resumed)
    assert [(epoch.loss, epoch.top1_percent) for epoch in again] == [
        (epoch.loss, epoch.top1_percent) for epoch in epochs
    ]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_seed_decides_and_optimizers_are_resumed(tmp_path: Path, optimizer: Any) -> None:
    recipe = Recipe(epochs=2, batch=32, optimizer=optimizer, learning_rate=0.01)
    one, _ = run(tmp_path / "a", recipe)
    other, _ = run(tmp_path / "b", recipe)
    assert same(one, other)
    other_seed, _ = run(tmp_path / "c", replace(recipe, seed=3))
    assert not same(one, other_seed)


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "s.safetensors"
    run(state)
    with pytest.raises(ConfigError, match="holds another training") as caught:
        run(state, about={"n": 2})
    assert "--force" in str(caught.value.hint)


def test_frozen_layers_stay_as_they_are(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, frozen_epochs=2, batch=16, optimizer="adamw", learning_rate=0.01)
    first = build(make_spec("lenet5", classes=2)).state_dict()
    model, _ = run(tmp_path / "s", recipe)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, first[name])}
    assert changed == {"classifier.4.weight", "classifier.4.bias"}


def test_a_teacher_changes_what_is_learnt(tmp_path: Path) -> None:
    alone, _ = run(tmp_path / "a")
    wise, _ = run(tmp_path / "b", LONGER)
    teacher = Teacher(wise, GREY)
    taught, _ = run(tmp_path / "c", replace(RECIPE, distill_weight=0.7), teacher=teacher)
    assert not same(alone, taught)
    # With no share of the labels, all it can learn is the teacher's answer.
    _, epochs = run(tmp_path / "d", replace(LONGER, distill_weight=1.0), teacher=teacher)
    assert epochs[-1].top1_percent >= 90


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="diverged in epoch") as caught:
        run(tmp_path / "s", replace(RECIPE, learning_rate=100, weight_decay=10))
    assert "--learning-rate" in str(caught.value.hint)


def test_the_curve_is_one_line() -> None:
    assert sparkline([0.0, 50.0, 100.0]) == "▁▄█"
    assert sparkline([3.0]) == "▁"

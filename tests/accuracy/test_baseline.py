"""A network that is fed otherwise than it was trained is found out, and told why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edgecnn.accuracy.answers import Answers
from edgecnn.accuracy.baseline import Baseline, is_far_below, reordered
from edgecnn.accuracy.classifier import Classifier
from edgecnn.accuracy.evaluate import judge
from edgecnn.accuracy.interval import Share
from edgecnn.data.labelled import LabelledSet

from .conftest import COLOURS, by_colour, coloured, recipe


def all_colours() -> LabelledSet:
    return coloured(80, tuple(COLOURS))


def baseline(classifier: Classifier, data: LabelledSet, fp32: Classifier | None = None) -> Baseline | None:
    found = judge(classifier, data, fp32, top1_percent=95.0).baseline
    if found is not None:
        json.dumps(found.to_json(), allow_nan=False)
    return found


def cause(classifier: Classifier, data: LabelledSet) -> str:
    found = baseline(classifier, data)
    assert found is not None
    assert found.cause is not None
    assert found.cause.top1.value > 0.95
    return found.cause.change


def test_far_below() -> None:
    assert not is_far_below(Share(53, 70), 71.878)
    assert not is_far_below(Share(40, 70), 71.878)  # 45.5 to 68.1 %: so few images could be unlucky
    assert is_far_below(Share(400, 700), 71.878)
    assert not is_far_below(Share(665, 1000), 71.878)


def test_a_network_that_is_fed_well_raises_no_alarm() -> None:
    assert baseline(by_colour(recipe("signed")), all_colours()) is None


@pytest.mark.parametrize("trained", ["imagenet", "signed", "unit", "raw"])
@pytest.mark.parametrize("fed", ["imagenet", "raw"])
def test_another_normalisation(trained: str, fed: str) -> None:
    if trained != fed:
        assert cause(by_colour(recipe(fed), recipe(trained)), all_colours()) == f"--preprocess {trained}"


def test_red_and_blue_changed_over() -> None:
    found = cause(by_colour(recipe("signed"), bgr=True), all_colours())
    assert found == "the preprocessing it has, red and blue changed over (BGR)"
    found = cause(by_colour(recipe("raw"), recipe("unit"), bgr=True), all_colours())
    assert found == "--preprocess unit, red and blue changed over (BGR)"


def test_labels_shifted_by_one() -> None:
    shifted = by_colour(recipe("unit"), shift=1)
    unnamed = replace(shifted, labels=None)
    numbered = replace(all_colours(), classes=tuple("01234567"))
    assert cause(unnamed, numbered) == "labels one higher (the network has a class before the first)"
    counted_from_1 = replace(coloured(70, tuple(COLOURS)[:7]), classes=tuple("1234567"))
    plain = replace(by_colour(recipe("unit")), labels=None)
    assert cause(plain, counted_from_1) == "labels one lower (the data counts from 1)"


def test_classes_in_another_order() -> None:
    data = all_colours()
    order = np.asarray([3, 0, 6, 1, 7, 2, 5, 4])
    found = cause(by_colour(recipe("unit")), replace(data, labels=order[data.labels]))
    assert found == "its classes in another order (check the labels' order)"


def test_a_network_that_names_one_class_gains_nothing_from_another_order() -> None:
    labels = np.arange(80) % 8
    always = np.tile(np.eye(8, dtype=np.float32)[3], (80, 1))
    assert reordered(Answers("always", labels, always)).value <= 1 / 8 + 0.05


def test_no_cause_where_there_is_none() -> None:
    data = all_colours()
    shuffled = replace(data, labels=np.random.default_rng(1).permutation(data.labels))
    found = baseline(by_colour(recipe("unit")), shuffled)
    assert found is not None
    assert found.cause is None
    assert len(found.trials) > 10


def test_the_float_network_is_what_is_doubted() -> None:
    data = all_colours()
    float32 = by_colour(recipe("unit"))
    bad = by_colour(recipe("unit"), recipe("signed"), name="colours int8")
    assert baseline(bad, data, float32) is None
    found = baseline(float32, data, bad)
    assert found is not None
    assert found.network == "colours int8"


def test_a_figure_for_another_resolution_is_no_baseline() -> None:
    judged = judge(
        by_colour(recipe("unit"), recipe("signed")), all_colours(), top1_percent=95.0, trained_resolution=224
    )
    assert judged.baseline is None
    assert "the published figure is for 224 pixels, this network takes 8" in judged.notes

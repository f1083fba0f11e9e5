"""Every figure of an evaluation, from outputs that are written down."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgecnn.accuracy.answers import NO_CLASS, Answers, Difference
from edgecnn.accuracy.interval import Share, paired_drop
from edgecnn.accuracy.values import Accuracy

CLASSES = tuple("abcdefgh")
LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1])


def outputs(classes: list[int]) -> np.ndarray:
    """Logits whose largest is the given class's."""
    logits = np.tile(np.linspace(0.0, -0.7, 8, dtype=np.float32), (len(classes), 1))
    logits[np.arange(len(classes)), classes] = 5.0
    return logits


FP32 = [0, 1, 2, 3, 4, 5, 6, 7, 0, 2]
"""Nine of ten are right."""
INT8 = [0, 1, 2, 3, 5, 5, 7, 7, 0, 1]
"""Two are lost, one is gained."""


def accuracy(got: np.ndarray | None = None) -> Accuracy:
    expected = Answers("net fp32", LABELS, outputs(FP32))
    answers = Answers("net int8", LABELS, outputs(INT8) if got is None else got)
    names = tuple(f"{number}.png" for number in range(10))
    return Accuracy("set", "0" * 64, names, CLASSES, answers, Difference(answers, expected))


def test_shares_and_drop() -> None:
    difference = accuracy().difference
    assert difference is not None
    assert (difference.expected.top1, difference.got.top1) == (Share(9, 10), Share(8, 10))
    assert difference.agreement == Share(7, 10)
    assert difference.drop_points == pytest.approx(10)
    assert difference.drop_interval_points == pytest.approx(tuple(100 * x for x in paired_drop(2, 1, 10)))


def test_top5_counts_the_first_of_equal_outputs() -> None:
    logits = np.zeros((3, 8), np.float32)
    logits[2] = np.arange(8)
    assert Answers("net", np.array([4, 5, 3]), logits).top5 == Share(2, 3)
    assert Answers("net", np.array([2, 5, 7]), logits).top5 == Share(2, 3)
    assert Answers("net", np.array([0, 1, 2]), logits[:, :5]).top5 is None
    assert Answers("net", np.array([0, 1, 7]), logits).top1 == Share(2, 3)


def test_sqnr() -> None:
    difference = accuracy().difference
    assert difference is not None
    expected, got = difference.expected.logits.astype(float), difference.got.logits.astype(float)
    sqnr_db = 10 * math.log10((expected**2).sum() / ((expected - got) ** 2).sum())
    assert difference.sqnr_db == pytest.approx(sqnr_db)
    assert Difference(difference.got, difference.got).sqnr_db == math.inf


def test_changed_images_and_classes() -> None:
    judged = accuracy()
    moved = [(c.index, c.name, c.label, c.expected, c.got) for c in judged.changed]
    assert moved == [(4, "4.png", 4, 4, 5), (6, "6.png", 6, 6, 7), (9, "9.png", 1, 2, 1)]
    pairs = [(c.expected, c.got, c.images, c.lost, c.gained) for c in judged.confusion]
    assert pairs == [("c", "b", 1, 0, 1), ("e", "f", 1, 1, 0), ("g", "h", 1, 1, 0)]


def test_the_most_frequent_pair_of_classes_comes_first() -> None:
    got = outputs([0, 1, 2, 3, 4, 5, 6, 6, 1, 1])
    got[1] = outputs([0])[0]
    pairs = [(c.expected, c.got, c.images) for c in accuracy(got).confusion]
    assert pairs[0] == ("a", "b", 1)
    got[0] = outputs([1])[0]
    most = accuracy(got).confusion[0]
    assert (most.expected, most.got, most.images) == ("a", "b", 2)


def test_outputs_that_are_no_numbers_count_as_wrong() -> None:
    got = outputs(INT8)
    got[0, 3], got[1, 1] = np.nan, np.inf
    judged = accuracy(got)
    assert judged.answers.broken == 2
    assert judged.answers.top1 == Share(6, 10)
    assert judged.answers.top5 == Share(6, 10)
    assert [change.got for change in judged.changed][:2] == [NO_CLASS, NO_CLASS]
    assert judged.confusion[0].got == "no number"
    assert json.loads(json.dumps(judged.to_json(), allow_nan=False))["against"]["sqnr_db"] is None


def test_json_has_every_figure() -> None:
    written = accuracy().to_json()
    against = written["against"]
    assert written["top1"]["hits"] == 8
    assert (against["network"], against["top1"]["hits"]) == ("net fp32", 9)
    assert against["agreement"]["share"] == 0.7
    assert against["changed"][2] == {"index": 9, "name": "9.png", "label": "b", "expected": "c", "got": "b"}
    assert against["confusion"][0] == {"expected": "c", "got": "b", "images": 1, "lost": 0, "gained": 1}
    assert any("10 images are few" in note for note in written["notes"])


def test_one_image_says_so() -> None:
    one = Answers("net", LABELS[:1], outputs(FP32[:1]))
    assert Accuracy("set", "0" * 64, ("a",), CLASSES, one).too_few == (
        "one image says nothing of an accuracy: the interval is useless"
    )

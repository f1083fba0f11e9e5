"""Intervals against published values, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.accuracy.interval import Share, paired_drop


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(hits: int, images: int, low: float, high: float) -> None:
    assert Share(hits, images).interval == pytest.approx((low, high), abs=5e-5)


def test_an_interval_stays_within_0_and_1_and_holds_its_share() -> None:
    for images in (1, 2, 70, 10_000):
        for hits in {0, 1, images // 2, images}:
            share = Share(hits, images)
            low, high = share.interval
            assert 0 <= low <= share.value <= high <= 1
    assert Share(1, 1).interval[0] < 0.21


def test_share_in_json() -> None:
    low, high = (pytest.approx(value, abs=1e-4) for value in (0.3006, 0.9544))
    assert Share(3, 4).to_json() == {"hits": 3, "images": 4, "share": 0.75, "low": low, "high": high}


def test_paired_interval_of_a_textbook_table() -> None:
    # Approval of a prime minister in two polls of the same 1600 people (Agresti, Categorical Data Analysis,
    # table 10.1): 150 changed from yes to no, 86 from no to yes.
    assert paired_drop(150, 86, 1600) == pytest.approx((0.0213, 0.0587), abs=5e-4)


@pytest.mark.parametrize(
    ("images", "lost", "gained"), [(70, 0.02, 0.0), (200, 0.03, 0.02), (1000, 0.005, 0.004)]
)
def test_paired_interval_covers_the_true_drop(images: int, lost: float, gained: float) -> None:
    random = np.random.default_rng(0)
    tables = random.multinomial(images, [lost, gained, 1 - lost - gained], 2000)
    inside = 0
    for b, c, _ in tables:
        low, high = paired_drop(int(b), int(c), images)
        assert -1 <= low <= high <= 1
        inside += low <= lost - gained <= high
    assert inside / len(tables) > 0.93


def test_no_change_still_has_an_interval() -> None:
    low, high = paired_drop(0, 0, 100)
    assert low < 0 < high
    assert high - low < 0.05

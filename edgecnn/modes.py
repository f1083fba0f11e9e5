"""Whether samples gather around two values."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

MODES_APART = 0.05
"""Of one mode above the other. Differences below 5 % are noise, whichever of two modes a run is in."""

SMALLER_MODE = 0.10
"""Of the samples. Fewer are outliers, which move the 90th percentile but not the median."""

MAX_CHANCE = 0.001
"""That samples with one mode show a valley as deep as what is called two."""


def modes(samples: Sequence[float]) -> tuple[float, float] | None:
    """The two values around which samples gather, where the valley between them is no accident; else None.

    Along a density with one mode, no stretch holds less than both of two equally long ones on either side of
    it: its average over a moving window has one mode too (Ibragimov, On the Composition of Unimodal
    Distributions, Theory of Probability and Its Applications 1, 1956). This holds for a right tail of any
    weight, in which measures of separation such as Ashman's D find two groups.

    So: the samples are cut in two where the squares within both parts are least (two-means, exact in one
    dimension). Around the medians of the parts and halfway between, the samples in windows of a third of the
    distance are counted. There are two modes where the middle window holds at most half of the lesser other
    one, where a fair coin would do that once in a thousand times, where a tenth of the samples or more lie on
    either side of the middle, and where the medians are 5 % apart and more than the clock's tick.
    """
    ordered = sorted(samples)
    parts = _two_means(ordered)
    if parts is None:
        return None
    low, high = parts
    width = (high - low) / 3
    # Rounded to the nanosecond in milliseconds: differences of floats are not ticks.
    values = sorted({round(sample, 6) for sample in ordered})
    tick = min((after - before for before, after in pairwise(values)), default=math.inf)
    # A window of less than two ticks holds one or two of them by where it happens to lie.
    if high < low * (1 + MODES_APART) or width < 2 * tick:
        return None

    def around(place: float) -> int:
        return bisect_right(ordered, place + width / 2) - bisect_left(ordered, place - width / 2)

    middle = (low + high) / 2
    below = bisect_left(ordered, middle)
    if min(below, len(ordered) - below) < SMALLER_MODE * len(ordered):
        return None
    between, beside = around(middle), min(around(low), around(high))
    if 2 * between > beside or _chance(between, between + beside) > MAX_CHANCE:
        return None
    return low, high


def _two_means(ordered: Sequence[float]) -> tuple[float, float] | None:
    """The medians of the two parts."""
    # The outermost twentieths have no say, or outliers would decide where the cut lies.
    count = len(ordered)
    trimmed = count // 20
    body = ordered[trimmed : count - trimmed]
    smallest = max(1, math.ceil(SMALLER_MODE * count) - trimmed)
    if len(body) < 2 * smallest:
        return None
    sums = [0.0, *accumulate(body)]

    def apart(cut: int) -> float:
        """By how much the squares within the parts are less than those of the whole."""
        left, right = sums[cut] / cut, (sums[-1] - sums[cut]) / (len(body) - cut)
        return cut * (len(body) - cut) * (right - left) ** 2

    cut = trimmed + max(range(smallest, len(body) - smallest + 1), key=apart)
    return statistics.median(ordered[:cut]), statistics.median(ordered[cut:])


def _chance(heads: int, tosses: int) -> float:
    """That a fair coin shows at most so many heads."""
    if tosses > 1000:  # a third of them is more than ten standard deviations below the half
        return 0.0
    return float(sum(math.comb(tosses, count) for count in range(heads + 1)) / 2**tosses)

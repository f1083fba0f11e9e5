"""A histogram of values that come a few at a time, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

_MOST_BINS = 2048
_LEAST_SPAN = 1e-30


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of one width; bin k holds the values in [k * width, (k + 1) * width).

    Where values span more than ``_MOST_BINS`` bins, neighbouring bins are joined, which doubles the width. 0
    is always within the bins, as it is within every range of integers.
    """

    width: float
    """Of a bin, a power of two."""
    first: int
    """The number k of the first bin, 0 or less."""
    counts: np.ndarray = field(repr=False)
    """Values in each bin, int64."""

    @staticmethod
    def of(values: np.ndarray, width: float = 0.0) -> Histogram:
        """The histogram of finite values, float of any shape, not empty, in bins of at least that width."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        least = 2.0 ** math.ceil(math.log2(max(high - low, _LEAST_SPAN) / (_MOST_BINS - 1)))
        width = max(width, least)
        first, last = math.floor(low / width), math.floor(high / width)
        bins = np.floor(values.reshape(-1) / np.float64(width)).astype(np.int64) - first
        return Histogram(width, first, np.bincount(bins, minlength=last - first + 1))

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin, float64."""
        return (self.first + np.arange(len(self.counts)) + 0.5) * self.width

    def joined(self, other: Histogram) -> Histogram:
        """The histogram of the values of both."""
        one, two = self, other
        while one.width < two.width:
            one = one._halved()
        while two.width < one.width:
            two = two._halved()
        while max(one._end, two._end) - min(one.first, two.first) > _MOST_BINS:
            one, two = one._halved(), two._halved()
        first = min(one.first, two.first)
        counts = np.zeros(max(one._end, two._end) - first, np.int64)
        for each in (one, two):
            counts[each.first - first : each._end - first] += each.counts
        return Histogram(one.width, first, counts)

    @property
    def _end(self) -> int:
        return self.first + len(self.counts)

    def _halved(self) -> Histogram:
        counts = np.pad(self.counts, (self.first % 2, self._end % 2))
        return Histogram(2 * self.width, self.first // 2, counts[0::2] + counts[1::2])

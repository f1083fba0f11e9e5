"""Counts of images as shares, with the intervals that so few images allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

# Of the standard normal distribution, for two-sided intervals of 95 %.
_Z = 1.959964


@dataclass(frozen=True)
class Share:
    """So many images of so many."""

    hits: int
    """Images that count."""
    images: int
    """All images, one or more."""

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.hits / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval of Wilson (1927), from 0 to 1. It holds for few images, too."""
        n, p = self.images, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        reach = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        # At 0 and 1 it ends in the share itself, but for rounding.
        return max(0.0, min(p, middle - reach)), min(1.0, max(p, middle + reach))

    def to_json(self) -> dict[str, Any]:
        """A plain dict: the counts, the share, and its interval."""
        low, high = self.interval
        return {"hits": self.hits, "images": self.images, "share": self.value, "low": low, "high": high}


def paired_drop(lost: int, gained: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a difference between two shares of the same images, from -1 to 1.

    Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions": Wald's
    interval with half an image more in each of the four cells. Both networks see the same images, so that
    only those on which they differ count, and the interval is narrower than that of either share.

    Args:
        lost: images that only the first network has right.
        gained: images that only the second one has right.
        images: all of them.
    """
    n = images + 2
    drop = (lost - gained) / n
    reach = _Z * math.sqrt(max(0.0, lost + gained + 1 - (lost - gained) ** 2 / n)) / n
    return max(-1.0, drop - reach), min(1.0, drop + reach)

"""Signal-to-quantisation-noise ratio: how far a network's outputs are from those that they should be."""

from __future__ import annotations

import math


def decibel(signal: float, noise: float) -> float:
    """10 log10 of the power of the exact values over the power of the difference, in dB.

    Infinite where there is no difference, minus infinity where there is nothing but one.
    """
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf

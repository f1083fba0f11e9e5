"""From what tensors hold on calibration images to the range that each is given in uint8."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgecnn.graph.graph import Graph
from edgecnn.quantize.groups import SAME_SCALE, Groups, scale_groups
from edgecnn.quantize.histogram import Histogram
from edgecnn.quantize.scheme import Estimator
from edgecnn.quantize.statistics import Statistics, TensorStatistics

# On either side so much of a tensor's values may lie outside its range.
_TAIL = 1e-4
# The share of the way from 0 to an extreme at which a range may end.
_SHARES = np.linspace(0.2, 1.0, 41)
_STEPS = 255


@dataclass(frozen=True)
class Ranges:
    """What uint8 must represent, by names of the float graph."""

    activations: dict[str, tuple[float, float]] = field(repr=False)
    """Lowest and highest value, per tensor; one of each group of tensors that share a scale is enough."""


def find_ranges(graph: Graph, statistics: Statistics, estimator: Estimator) -> Ranges:
    """The range of every tensor that brings values of its own into its group.

    ``mean`` is from the mean of the images' lowest values to the mean of their highest; ``minmax`` holds all
    values; ``percentile`` leaves ``_TAIL`` of them out on either side; ``mse`` ends where the squared error
    of rounding and clipping together is least. The network's output always holds all values: a clipped
    logit ties with the next.

    Raises:
        ConversionError: an operator without an int8 form.
    """
    groups = scale_groups(graph.model)
    output = str(graph.output.name)
    names = [name for root in groups.members if root not in groups.fixed for name in _own(groups, root)]
    return Ranges(
        {name: _range(statistics[name], "minmax" if name == output else estimator) for name in names}
    )


def _own(groups: Groups, root: str) -> list[str]:
    """The tensors of a group that are not merely moved or joined from others of it."""
    operators = {}
    for value in groups.members[root]:
        producer = value.producer()
        operators[str(value.name)] = "" if producer is None else producer.op_type
    own = [name for name, operator in operators.items() if operator not in SAME_SCALE | {"Concat"}]
    # A Concat whose inputs all lie on fixed grids brings the only values of its group.
    return own or list(operators)


def _range(tensor: TensorStatistics, estimator: Estimator) -> tuple[float, float]:
    if estimator == "mean":
        return float(tensor.lows.mean()), float(tensor.highs.mean())
    lowest, highest = float(tensor.lows.min()), float(tensor.highs.max())
    if estimator == "minmax":
        return lowest, highest
    histogram = tensor.histogram
    low, high = (
        _percentile(histogram) if estimator == "percentile" else _least_error(histogram, lowest, highest)
    )
    return max(low, lowest), min(high, highest)


def _percentile(histogram: Histogram) -> tuple[float, float]:
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    first, last = (int(index) for index in np.searchsorted(below, [_TAIL, 1 - _TAIL]))
    return (histogram.first + first) * histogram.width, (histogram.first + last + 1) * histogram.width


def _least_error(histogram: Histogram, lowest: float, highest: float) -> tuple[float, float]:
    """Ends at which the squared error of uint8 is least, each a share of the extreme on its side of 0."""
    lows, highs = _SHARES * min(lowest, 0.0), _SHARES * max(highest, 0.0)
    low, high = lows[-1:], highs[-1:]
    for _ in range(2):  # one end after the other, and again with the other end known
        high = highs[[_errors(histogram, low, highs).argmin()]]
        low = lows[[_errors(histogram, lows, high).argmin()]]
    return float(low[0]), float(high[0])


def _errors(histogram: Histogram, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The sum of squared errors of 256 steps from ``low`` to ``high`` (both (1,) or (n,)), (n,).

    It is a twelfth of a step's square within, for all but 0, and the distance to the nearer end beyond.
    """
    values, counts = histogram.centers, histogram.counts
    low, high = low[:, None], high[:, None]
    beyond = np.maximum(low - values, 0) + np.maximum(values - high, 0)
    is_zero = np.arange(len(counts)) == -histogram.first
    within = np.where(is_zero, 0.0, np.square((high - low) / _STEPS) / 12)
    errors: np.ndarray = (counts * np.where(beyond > 0, np.square(beyond), within)).sum(axis=1)
    return errors

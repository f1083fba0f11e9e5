"""What a number of operations means; published figures of one network differ by such conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgecnn.cost.layers import POOLS
from edgecnn.cost.values import Costs, LayerCost


@dataclass(frozen=True)
class Convention:
    """One way to count."""

    name: str
    """What ``--convention`` calls it."""
    key: str
    """The figure's name in JSON and CSV."""
    unit: str
    """The figure's name in tables."""
    sentence: str
    """What it counts, for people."""
    count: Callable[[LayerCost], int]
    """The figure of one layer."""

    def total(self, costs: Costs) -> int:
        """The figure of a network: the sum over its layers."""
        return sum(self.count(layer) for layer in costs.layers)

    def share(self, costs: Costs, layer: LayerCost) -> float:
        """A layer's part of the network's figure, from 0 to 1."""
        return self.count(layer) / (self.total(costs) or 1)


def _macs(layer: LayerCost) -> int:
    return layer.macs


def _flops(layer: LayerCost) -> int:
    return 2 * layer.macs + layer.other_ops


def _lecture(layer: LayerCost) -> int:
    window = math.prod(layer.kernel or ()) if layer.op_type in POOLS else 0
    return layer.macs + math.prod(layer.output_shape) * window


_ALL = (
    Convention(
        "macs",
        "macs",
        "MACs",
        "one MAC is a multiplication and its addition in a convolution or dense layer; all other arithmetic "
        "is counted apart, as other operations",
        _macs,
    ),
    Convention(
        "flops",
        "flops",
        "FLOPs",
        "one MAC is two FLOPs, and each operation of pooling, activations, additions, normalisation is one",
        _flops,
    ),
    Convention(
        "lecture",
        "lecture_flops",
        "lecture FLOPs",
        "one MAC is one FLOP, a pooling output is as many as its window has values, and activations, "
        "additions and normalisation are none",
        _lecture,
    ),
)

CONVENTIONS = {convention.name: convention for convention in _ALL}
"""All conventions by name; the first is the default."""

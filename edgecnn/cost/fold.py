"""Repeated sequences of equal layers, so that a table need not show them again and again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from edgecnn.cost.values import LayerCost


@dataclass(frozen=True)
class Group:
    """A sequence of layers that comes several times in a row with equal figures."""

    layers: tuple[LayerCost, ...]
    """Its first occurrence."""
    last: tuple[LayerCost, ...]
    """Its last occurrence, of the same length; only names and receptive fields differ."""
    times: int
    """How many occurrences there are, at least 1."""


def fold(layers: Sequence[LayerCost]) -> list[Group]:
    """The layers in order as groups, with as few layers to show as possible.

    Layers are equal where all is but their names and receptive fields, which grow from layer to layer. What
    is not repeated becomes groups of one layer, once.
    """
    keys = _numbered([replace(layer, name="", receptive=None) for layer in layers])
    count = len(keys)
    # shown[i]: the fewest layers that can stand for layers i and on; chosen[i]: length and times of the first
    # group there.
    shown, chosen = [0] * (count + 1), [(1, 1)] * count
    for start in range(count - 1, -1, -1):
        shown[start] = 1 + shown[start + 1]
        for length in range(1, (count - start) // 2 + 1):
            for times in range(2, _repeats(keys, start, length) + 1):
                if length + shown[start + length * times] <= shown[start]:
                    shown[start] = length + shown[start + length * times]
                    chosen[start] = (length, times)
    groups, start = [], 0
    while start < count:
        length, times = chosen[start]
        end = start + length * times
        groups.append(Group(tuple(layers[start : start + length]), tuple(layers[end - length : end]), times))
        start = end
    return groups


def _numbered(values: Sequence[Hashable]) -> list[int]:
    """The same small number for equal values: comparing those is quick."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def _repeats(keys: list[int], start: int, length: int) -> int:
    """How many times in a row the sequence of that length at a position comes."""
    end = start + length
    while end < len(keys) and keys[end] == keys[end - length]:
        end += 1
    return (end - start) // length

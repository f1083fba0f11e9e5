"""Repeated sequences of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgecnn.cost import Costs, LayerCost
from edgecnn.cost.fold import fold


@pytest.fixture
def layers(count_text: Callable[..., Costs]) -> Callable[[str], list[LayerCost]]:
    """Layers of a word: each letter one layer, equal letters equal but for their names."""
    [layer] = count_text("float[1,2,4,4] x", "y = Tanh(x)").layers

    def made(word: str) -> list[LayerCost]:
        return [replace(layer, name=f"{i}", macs=ord(letter)) for i, letter in enumerate(word)]

    return made


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("abc", "a b c"),
        ("aab", "2a b"),
        ("abababc", "3ab c"),
        ("xabcabcy", "x 2abc y"),
        ("abbbab", "a 3b a b"),
        ("aabaab", "2aab"),
        ("abcdabcdabcdd", "3abcd d"),
        ("aaaa", "4a"),
        ("xyyzyyzyyz", "x 3yyz"),
    ],
)
def test_as_few_layers_as_possible_are_shown(
    layers: Callable[[str], list[LayerCost]], word: str, expected: str
) -> None:
    groups = fold(layers(word))
    shown = [
        (f"{group.times}" if group.times > 1 else "") + "".join(chr(layer.macs) for layer in group.layers)
        for group in groups
    ]
    assert " ".join(shown) == expected
    assert "".join("".join(chr(x.macs) for x in g.layers) * g.times for g in groups) == word


def test_the_first_and_the_last_are_kept(layers: Callable[[str], list[LayerCost]]) -> None:
    [group] = fold(layers("ababab"))
    assert [layer.name for layer in (*group.layers, *group.last)] == ["0", "1", "4", "5"]


@pytest.mark.parametrize("field", ["params", "other_ops", "op_type", "output_shape", "activation", "live"])
def test_a_figure_that_differs_is_not_folded(layers: Callable[[str], list[LayerCost]], field: str) -> None:
    first, second = layers("aa")
    assert len(fold([first, replace(second, **{field: "other"})])) == 2

"""Schemes: what is left open is filled, and differences are said in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgecnn.quantize.scheme import DEFAULT, Scheme

SETTLED = Scheme(ranges="mse", bias_correction=False, equalize=True)


def test_only_what_is_open_is_filled() -> None:
    assert DEFAULT.filled(SETTLED) == SETTLED
    asked = Scheme(ranges="mean", bias_correction=True, equalize=False, symmetric=True, weight_bits=7)
    assert asked.filled(SETTLED) == asked
    assert Scheme(equalize=False).filled(SETTLED) == replace(SETTLED, equalize=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ranges": "minmax"}, "minmax ranges"),
        ({"per_channel": False}, "weights per tensor"),
        ({"symmetric": True, "weight_bits": 7}, "activations symmetric, 7-bit weights"),
        ({"bias_correction": True, "equalize": False}, "biases corrected, channels as they are"),
        ({"portable_layers": frozenset("ab")}, "2 layers that cannot saturate"),
        ({"float_layers": frozenset("c")}, "1 layer in float"),
        ({}, "as it is"),
    ],
)
def test_differences_are_said(change: dict[str, object], words: str) -> None:
    assert replace(SETTLED, **change).differences(SETTLED) == words  # type: ignore[arg-type]


def test_the_record_is_json() -> None:
    record = json.loads(json.dumps(Scheme(float_layers=frozenset({"b", "a"})).to_json()))
    assert record["float_layers"] == ["a", "b"]
    assert record["ranges"] is None

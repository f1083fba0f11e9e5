"""Conventions, totals and shares, and their JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest

from edgecnn.cost import Costs
from edgecnn.cost.convention import CONVENTIONS
from edgecnn.cost.records import to_csv, to_json

# 4 filters 3x3 with ReLU on 2x8x8, average pooling, a dense layer: 4,608 + 320 MACs, 256 + 256 others.
BODY = (
    "c = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(c) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) "
    "f = Flatten(p) y = Gemm<transB=1>(f, v, d)"
)
INPUTS = "float[1,2,8,8] x, float[4,2,3,3] w, float[4] b, float[5,64] v, float[5] d"
FIGURES = {
    "macs": (4608, 0, 0, 320),
    "flops": (2 * 4608 + 256, 256, 0, 640),
    "lecture_flops": (4608, 256, 0, 320),
}


@pytest.fixture(scope="module")
def costs(count_text: Callable[..., Costs]) -> Costs:
    return count_text(INPUTS, BODY)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_one_convention_at_a_time(costs: Costs, name: str) -> None:
    convention = CONVENTIONS[name]
    document = json.loads(json.dumps(to_json(costs, convention), allow_nan=False))
    figures = FIGURES[convention.key]
    assert tuple(layer[convention.key] for layer in document["layers"]) == figures
    assert document[convention.key] == convention.total(costs) == sum(figures)
    assert {*FIGURES} & {*document} == {convention.key}
    assert sum(layer[f"{convention.key}_share"] for layer in document["layers"]) == pytest.approx(1)
    assert document["convention_means"] == convention.sentence
    assert ("other_ops" in document) == (name == "macs")


def test_totals(costs: Costs) -> None:
    document = to_json(costs, CONVENTIONS["macs"])
    assert document["model"] == "network"
    assert document["input_shape"] == [1, 2, 8, 8]
    assert (document["params"], document["trained_params"]) == (76 + 325, None)
    assert (document["weight_bytes_fp32"], document["weight_bytes_int8"]) == (4 * 401, 72 + 16 + 320 + 20)
    assert (document["read_bytes_fp32"], document["written_bytes_fp32"]) == (4 * (128 + 256 + 64), 4 * 325)
    assert (document["peak_activation_bytes_fp32"], document["peak_activation_bytes_int8"]) == (1536, 384)
    assert document["peak_layer"] == costs.layers[0].name
    assert document["other_ops"] == 512
    assert document["not_counted"] == []
    assert document["macs_per_byte_fp32"] == 4928 / (4 * (448 + 325 + 401))
    assert document["receptive_height_everything"] is True
    assert sum(layer["params_share"] for layer in document["layers"]) == pytest.approx(1)


def test_csv_says_what_json_says(costs: Costs) -> None:
    convention = CONVENTIONS["macs"]
    layers = to_json(costs, convention)["layers"]
    rows = list(csv.DictReader(io.StringIO(to_csv(costs, convention))))
    assert [list(row) for row in rows] == [list(layer) for layer in layers]
    assert rows[0]["kernel"] == "3x3"
    assert rows[0]["input_shapes"] == "1x2x8x8"
    assert rows[0]["receptive_width_everything"] == "false"
    assert rows[2]["kernel"] == ""
    for row, layer in zip(rows, layers, strict=True):
        for name, value in layer.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert float(row[name]) == value


def test_a_network_without_weights_has_shares_of_nothing(count_text: Callable[..., Costs]) -> None:
    costs = count_text("float[1,2,4,4] x", "y = Tanh(x)")
    [layer] = to_json(costs, CONVENTIONS["macs"])["layers"]
    assert (layer["params_share"], layer["macs_share"], layer["macs_per_byte_fp32"]) == (0.0, 0.0, 0.0)
    assert costs.macs_share(costs.layers[0]) == 0.0

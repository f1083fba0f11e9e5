"""A search finds what is better, says why, and stops when its time is up."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn.backends.onnxruntime import load_fused
from edgecnn.errors import ConversionError
from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import Runner
from edgecnn.quantize.journal import Journal
from edgecnn.quantize.judge import Judge, judge_of
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.quantize.race import Raced
from edgecnn.quantize.scheme import Scheme
from edgecnn.quantize.search import Searched, Tried, search


def images(count: int, seed: int) -> list[np.ndarray]:
    """A fifth of the images is bright: the mean of their extremes clips those."""
    rng = np.random.default_rng(seed)
    lights = np.where(np.arange(count) % 5, 1.0, 4.0)
    return [(light * rng.normal(size=(1, 3, 8, 8))).astype(np.float32) for light in lights]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(),
        nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 10),
    )  # fmt: skip
    return prepare(export(network, "net", (1, 3, 8, 8)), images(20, 0))


@pytest.fixture(scope="module")
def judge(prepared: Prepared) -> Judge:
    return judge_of(prepared.graph, images(60, 1), None)


def per_tensor(graph: Graph) -> bool:
    return all(
        op.inputs[1] is not None and op.inputs[1].scale is not None and op.inputs[1].scale.size == 1
        for op in operators(graph)
        if op.op_type in ("Conv", "Gemm")
    )


def race_of(ratio: float) -> object:
    """A target on which weights with one scale a tensor take ``ratio`` of the time."""

    def race(first: Graph, second: Graph) -> Raced:
        assert not per_tensor(first)
        found = ratio if per_tensor(second) else 1.0
        return Raced(2.0, 2.0 * found, found, found - 0.01, found + 0.01, differs=abs(found - 1) > 0.02)

    return race


CLIPPING = Scheme(ranges="mean", bias_correction=True, equalize=True)


@pytest.fixture(scope="module")
def searched(prepared: Prepared, judge: Judge) -> Searched:
    return search(prepared, judge, race_of(0.5), scheme=CLIPPING)  # type: ignore[arg-type]


def row(searched: Searched, name: str) -> Tried:
    [found] = [row for row in searched.rows if row.name == name]
    return found


def test_each_factor_is_tried_alone_and_what_helps_together(searched: Searched) -> None:
    assert searched.rows[0].name == "as it is"
    assert searched.rows[0].scheme == CLIPPING
    for name in ("minmax ranges", "percentile ranges", "mse ranges", "biases as they are", "7-bit weights",
                 "channels as they are", "weights per tensor", "activations symmetric"):  # fmt: skip
        assert row(searched, name).judged is not None
    assert len({tried.scheme for tried in searched.rows}) == len(searched.rows)
    # From what is faster, the rest is tried again.
    assert {"minmax ranges, weights per tensor", "mse ranges, weights per tensor"} <= {
        tried.name for tried in searched.rows
    }
    assert searched.complete


def test_the_chosen_row_is_faster_on_the_front_and_better_than_the_first(
    searched: Searched, prepared: Prepared
) -> None:
    chosen, first = searched.chosen, searched.rows[0]
    assert chosen in searched.rows
    assert chosen.on_front
    assert not first.on_front
    assert not chosen.scheme.per_channel
    assert chosen.scheme.ranges != "mean"
    assert chosen.sqnr_db > first.sqnr_db + 1
    assert chosen.latency == 0.5
    assert per_tensor(searched.graph)
    assert searched.graph.digest == prepared.qdq(chosen.scheme).digest
    assert searched.sentence.startswith(f"{chosen.name}: 0.50 times the latency and no less accurate")


def test_where_nothing_is_faster_accuracy_decides(prepared: Prepared, judge: Judge) -> None:
    found = search(prepared, judge, race_of(1.01), scheme=CLIPPING)  # type: ignore[arg-type]
    assert all(tried.latency == 1 for tried in found.rows)
    assert found.chosen.scheme.per_channel
    assert found.chosen.scheme.ranges != "mean"
    assert found.chosen.sqnr_db == pytest.approx(
        max(tried.sqnr_db for tried in found.rows if tried.accuracy >= found.chosen.accuracy), abs=0.11
    )


def test_what_is_slower_is_not_taken_for_noise(prepared: Prepared, judge: Judge) -> None:
    found = search(prepared, judge, race_of(3.0))  # type: ignore[arg-type]
    assert row(found, "weights per tensor").latency == 3
    assert found.chosen.scheme.per_channel


def test_what_follows_from_a_scheme_is_judged_with_it(prepared: Prepared, judge: Judge) -> None:
    names = frozenset(
        [str(node.name) for node in prepared.convs.model.graph if node.op_type in ("Conv", "Gemm")][:1]
    )
    found = search(prepared, judge, complete=lambda scheme: replace(scheme, portable_layers=names))
    assert len(found.rows) > 1
    assert {tried.scheme.portable_layers for tried in found.rows} == {names}


def test_without_a_race_and_at_the_best_the_first_stays(prepared: Prepared, judge: Judge) -> None:
    best = search(prepared, judge, scheme=CLIPPING).chosen.scheme
    again = search(prepared, judge, scheme=best)
    assert again.chosen is again.rows[0]
    assert again.sentence.startswith("the first scheme stays")
    assert all(tried.raced is None for tried in again.rows)


def test_what_the_target_refuses_is_a_row_with_the_reason(prepared: Prepared, judge: Judge) -> None:
    def race(first: Graph, second: Graph) -> Raced:
        raise ConversionError("no per-tensor kernel")

    found = search(prepared, judge, race)
    refused = row(found, "weights per tensor")
    assert refused.refused == "no per-tensor kernel"
    assert not refused.on_front
    assert found.chosen.refused is None


def test_no_time_leaves_the_first_row(prepared: Prepared, judge: Judge) -> None:
    started = time.monotonic()
    found = search(prepared, judge, race_of(0.5), time_budget_s=0.0)  # type: ignore[arg-type]
    assert time.monotonic() - started < 5
    assert [tried.name for tried in found.rows] == ["as it is"]
    assert not found.complete
    assert found.chosen is found.rows[0]


def test_labels_make_accuracy_that_of_the_answers(prepared: Prepared) -> None:
    exact = judge_of(prepared.graph, images(30, 1), None)
    right = exact.expected.reshape(30, -1).argmax(axis=1)
    right[:15] = (right[:15] + 1) % 10
    found = search(prepared, Judge(exact.images, right, exact.expected), time_budget_s=0.0)
    assert found.chosen.accuracy <= 0.6
    assert found.chosen.judged is not None
    assert found.chosen.judged.agreement >= 0.8
    assert "top-1" in found.sentence


def test_the_table_is_plain_json(searched: Searched) -> None:
    record = json.loads(json.dumps(searched.to_json()))
    assert record["chosen"] == searched.chosen.name
    assert record["rows"][0]["scheme"]["ranges"] == "mean"
    assert len(record["rows"]) == len(searched.rows)


def test_a_search_goes_on_where_it_was_ended(prepared: Prepared, searched: Searched, tmp_path: Path) -> None:
    loaded: list[str] = []

    def ends_at(count: int) -> Judge:
        def load(graph: Graph) -> Runner:
            if len(loaded) == count:
                raise KeyboardInterrupt
            loaded.append(graph.digest)
            return load_fused(graph)

        journal = Journal.open(tmp_path, prepared.graph, "images")
        return judge_of(prepared.graph, images(60, 1), None, load=load, journal=journal)

    with pytest.raises(KeyboardInterrupt):
        search(prepared, ends_at(3), race_of(0.5), scheme=CLIPPING)  # type: ignore[arg-type]
    again = search(prepared, ends_at(1000), race_of(0.5), scheme=CLIPPING)  # type: ignore[arg-type]
    assert len(loaded) == len(set(loaded))
    assert again.to_json() == searched.to_json()

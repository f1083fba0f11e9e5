"""The accuracy guard on a small network, whose int8 graph names another class for some images."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn.backends.onnxruntime import load_fused
from edgecnn.errors import ConfigError, DataError, OutputError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.progress import silent
from edgecnn.quantize.guard import Budget, Guarded, guard
from edgecnn.quantize.journal import Journal
from edgecnn.quantize.judge import Judged, judge_of
from edgecnn.quantize.order import order
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.quantize.sensitivity import Noise, layers_of, measure
from edgecnn.source.recipes import RECIPES
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x, float[8,3,3,3] w0, float[8,1,3,3] w1, float[8,8,1,1] w2, float[10,8] w3)
    => (float[1,10] logits) {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0)
    [relu0] r0 = Relu(c0)
    [second] c1 = Conv<group=8, kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    [relu1] r1 = Relu(c1)
    [third] c2 = Conv<kernel_shape=[1,1]>(r1, w2)
    [add] a = Add(r0, c2)
    [mean] g = GlobalAveragePool(a)
    [flatten] f = Flatten(g)
    [classes] logits = Gemm<transB=1>(f, w3)
}"""
COUNT = 300


def images(count: int = COUNT, seed: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(canonical(NETWORK), images(16, seed=1))


@pytest.fixture(scope="module")
def labels(prepared: Prepared) -> np.ndarray:
    """The float graph's own classes, but one in ten wrong."""
    run = load_reference(prepared.graph)
    right = np.asarray([int(np.argmax(run(image)[0])) for image in images()])
    return np.where(np.arange(COUNT) % 10, right, (right + 1) % 10)


def guarded(prepared: Prepared, folder: Path, budget: Budget, **options: object) -> Guarded:
    labels, load = options.pop("labels", None), options.pop("load", load_fused)
    journal = Journal.open(folder, prepared.graph, "d", None, labels)  # type: ignore[arg-type]
    judge = judge_of(prepared.graph, images(), labels, load=load, journal=journal)  # type: ignore[arg-type]
    return guard(prepared, judge, budget, **options)  # type: ignore[arg-type]


def agreement(prepared: Prepared, graph: Graph) -> float:
    exact, run = load_reference(prepared.graph), load_reference(graph)
    return float(np.mean([np.argmax(exact(image)[0]) == np.argmax(run(image)[0]) for image in images()]))


def counting(calls: list[Graph]) -> Callable[[Graph], Runner]:
    def load(graph: Graph) -> Runner:
        calls.append(graph)
        return load_fused(graph)

    return load


def test_a_budget_that_holds_leaves_all_in_int8(prepared: Prepared, tmp_path: Path) -> None:
    found = guarded(prepared, tmp_path, Budget(min_agreement=0.5))
    assert (found.met, found.complete, found.rows, found.sensitivity) == (True, True, (), ())
    assert found.graph.digest == prepared.qdq().digest
    assert found.reached == found.before
    assert found.summary.startswith("the budget holds with all layers in int8")


def test_layers_are_returned_until_the_budget_holds(prepared: Prepared, tmp_path: Path) -> None:
    wanted = 0.99
    before = agreement(prepared, prepared.qdq())
    assert before < wanted, "the test needs a network that int8 hurts"
    found = guarded(prepared, tmp_path, Budget(min_agreement=wanted))
    assert found.met
    assert found.complete
    assert found.reached.agreement >= wanted > found.before.agreement
    assert agreement(prepared, found.graph) == pytest.approx(found.reached.agreement, abs=0.007)
    in_float = [layer for row in found.rows for layer in row.layers]
    assert frozenset(in_float) == found.scheme.float_layers
    assert 0 < found.macs_share < 1
    assert found.macs_share == pytest.approx(sum(row.macs_share for row in found.rows))
    assert found.rows[-1].after == found.reached
    assert all(row.alone is not None and row.alone.sqnr_db > 0 for row in found.rows)
    assert sum(entry.weights_noise + entry.output_noise for entry in found.sensitivity) <= 1 + 1e-9
    assert [entry.layer for entry in found.sensitivity] == [
        str(node.name) for node, _ in layers_of(prepared.convs.model)
    ]


def test_a_longer_part_may_fail_where_a_shorter_one_holds(prepared: Prepared, tmp_path: Path) -> None:
    """As on few images, where one answer decides."""
    budget = Budget(min_agreement=0.99)
    plain = guarded(prepared, tmp_path / "plain", budget)
    most = len(quantized(plain.graph))

    def worse_beyond_that(graph: Graph) -> Runner:
        run = load_fused(graph)
        return run if len(quantized(graph)) >= most else lambda x: [-output for output in run(x)]

    found = guarded(prepared, tmp_path / "worse", budget, load=worse_beyond_that)
    assert found.met
    assert found.scheme == plain.scheme


def quantized(graph: Graph) -> list[str]:
    return [str(node.name) for node in graph.model.graph if node.op_type == "QuantizeLinear"]


def test_none_of_the_layers_can_be_taken_back(prepared: Prepared, tmp_path: Path) -> None:
    budget = Budget(min_agreement=0.99)
    found = guarded(prepared, tmp_path, budget)
    for row in found.rows:
        fewer = found.scheme.float_layers - set(row.layers)
        graph = prepared.qdq(replace(found.scheme, float_layers=fewer))
        assert budget.excess(judged_in(tmp_path, graph), None) > 0
        assert agreement(prepared, graph) < 0.99 + 0.007


def judged_in(folder: Path, graph: Graph) -> Judged:
    [path] = folder.glob("guard-*.json")
    figures = json.loads(path.read_text())["figures"]
    return Judged.from_json(figures[f"{graph.digest} on all by onnxruntime"])


def test_top1_on_labels(prepared: Prepared, labels: np.ndarray, tmp_path: Path) -> None:
    found = guarded(prepared, tmp_path, Budget(max_drop=0.4), labels=labels)
    assert found.float_top1 == 0.9
    assert found.met
    assert found.reached.top1 is not None
    assert found.before.top1 is not None
    assert 100 * (0.9 - found.reached.top1) <= 0.4 + 1e-9 < 100 * (0.9 - found.before.top1)
    assert "points lost" in found.summary


def test_a_budget_that_only_the_float_graph_meets(prepared: Prepared, tmp_path: Path) -> None:
    """The best that was found is given, and says that it does not hold."""
    found = guarded(prepared, tmp_path, Budget(min_agreement=1.0), load=always_wrong_once)
    assert not found.met
    assert found.complete
    assert found.reached.agreement == 1 - 1 / COUNT
    assert found.summary.startswith("the budget is not met")


def always_wrong_once(graph: Graph) -> Runner:
    """As good as the graph without any int8, but for one image."""
    run, first = load_fused(graph), images(1)[0]

    def wrong(x: np.ndarray) -> list[np.ndarray]:
        [logits] = run(x)
        return [-logits] if np.array_equal(x, first) else [logits]

    return wrong


def test_without_time_the_int8_graph_is_judged_and_kept(prepared: Prepared, tmp_path: Path) -> None:
    found = guarded(prepared, tmp_path, Budget(min_agreement=0.99), time_budget_s=0)
    assert (found.met, found.complete) == (False, False)
    assert found.graph.digest == prepared.qdq().digest
    assert found.reached.images == COUNT


def test_the_search_goes_on_where_it_was_ended(prepared: Prepared, tmp_path: Path) -> None:
    budget = Budget(min_agreement=0.99)
    calls: list[Graph] = []
    whole = guarded(prepared, tmp_path / "whole", budget, load=counting(calls))
    needed = len(calls)
    assert needed > 4
    calls.clear()

    def ends(graph: Graph) -> Runner:
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counting(calls)(graph)

    with pytest.raises(KeyboardInterrupt):
        guarded(prepared, tmp_path / "parts", budget, load=ends)
    again = guarded(prepared, tmp_path / "parts", budget, load=counting(calls))
    assert len(calls) == needed
    assert (again.rows, again.reached, again.scheme) == (whole.rows, whole.reached, whole.scheme)
    calls.clear()
    guarded(prepared, tmp_path / "parts", budget, load=counting(calls))
    assert not calls


def test_figures_of_other_images_are_not_taken_over(prepared: Prepared, tmp_path: Path) -> None:
    budget = Budget(min_agreement=0.5)
    calls: list[Graph] = []
    guarded(prepared, tmp_path, budget)
    for changed in (("other", None), ("d", RECIPES["signed"])):
        calls.clear()
        journal = Journal.open(tmp_path, prepared.graph, *changed)
        judge = judge_of(prepared.graph, images(20), None, load=counting(calls), journal=journal)
        guard(prepared, judge, budget)
        assert len(calls) == 1
    assert len(list(tmp_path.glob("guard-*.npy"))) == 3


def test_a_torn_journal_is_written_anew(prepared: Prepared, tmp_path: Path) -> None:
    guarded(prepared, tmp_path, Budget(min_agreement=0.5))
    [path] = tmp_path.glob("guard-*.json")
    path.write_text(path.read_text()[:40])
    guarded(prepared, tmp_path, Budget(min_agreement=0.5))
    assert json.loads(path.read_text())["figures"]
    [outputs] = tmp_path.glob("guard-*.npy")
    outputs.write_bytes(outputs.read_bytes()[:200])
    assert guarded(prepared, tmp_path, Budget(min_agreement=0.5)).met


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no budget"),
        ({"max_drop": -1.0}, "--max-drop -1"),
        ({"min_agreement": 98.0}, "--min-agreement 98"),
        ({"min_agreement": 0.0}, "--min-agreement 0"),
    ],
)
def test_budgets_that_say_nothing_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**options)


def test_bad_input(prepared: Prepared, labels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have no labels"):
        guarded(prepared, tmp_path, Budget(max_drop=1))
    with pytest.raises(DataError, match="300 images with 10 labels"):
        guarded(prepared, tmp_path, Budget(max_drop=1), labels=labels[:10])
    with pytest.raises(DataError, match="no images"):
        judge_of(prepared.graph, [], None)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        guarded(prepared, tmp_path / "file" / "folder", Budget(min_agreement=0.9))


def test_noise_of_roundings_adds_up(prepared: Prepared) -> None:
    """Alone, in the float graph, against all together in the int8 graph."""
    inputs = images(24)
    noise = measure(prepared, prepared.scheme, inputs, known={})
    exact, run = load_reference(prepared.graph), load_reference(prepared.qdq())
    pairs = [(exact(image)[0], run(image)[0]) for image in inputs]
    shares = [np.square(a - b).sum() / np.square(a).sum() for a, b in pairs]
    assert noise.complete
    assert math.log10(noise.total) == pytest.approx(np.mean(np.log10(shares)), abs=0.2)


def test_measuring_goes_on_and_stops_in_time(prepared: Prepared) -> None:
    known: dict[str, float] = {}
    inputs = images(2)
    first = measure(prepared, prepared.scheme, inputs, known=known, until=time.monotonic())
    assert not known
    assert not first.complete
    whole = measure(prepared, prepared.scheme, inputs, known=known)
    assert whole.complete
    known.pop("weights third")
    seen: list[str] = []
    assert measure(prepared, prepared.scheme, inputs, known=known, found=lambda: seen.append("")) == whole
    assert len(seen) == 1


def test_the_order_takes_neighbours_together(prepared: Prepared) -> None:
    """All noise is of the tensor between two layers: neither alone would gain anything."""
    noise = Noise({"relu1": 1.0, "x": 0.0}, {"first": 0.1, "classes": 0.0}, complete=True)
    costs = {"first": 1.0, "second": 1.0, "third": 1.0, "add": 1.0, "classes": 1.0}
    first, second, *rest = order(prepared.convs.model, noise, costs)
    assert first.layers == ("second", "third")
    assert (first.gain, first.cost) == (1.0, 2.0)
    assert second.layers == ("first",)
    assert [step.gain for step in rest] == [0.0]
    everything = {layer for step in (first, second, *rest) for layer in step.layers}
    assert everything == {str(node.name) for node, _ in layers_of(prepared.convs.model)}


def test_the_order_weighs_gain_against_cost(prepared: Prepared) -> None:
    noise = Noise({}, {"first": 1.0, "second": 0.5, "third": 0.1}, complete=True)
    steps = order(prepared.convs.model, noise, {"first": 100.0, "second": 1.0, "third": 1.0})
    assert [step.layers for step in steps[:3]] == [("second",), ("third",), ("first",)]


def test_images_are_decoded_once(prepared: Prepared) -> None:
    class Counted(list[np.ndarray]):
        passes = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Counted.passes += 1
            return super().__iter__()

    judge = judge_of(prepared.graph, Counted(images(5)), None, progress=silent)
    assert judge(prepared.qdq()) == judge(prepared.qdq())
    assert Counted.passes == 1

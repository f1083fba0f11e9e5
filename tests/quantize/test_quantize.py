"""One calibration, many int8 graphs; what a scheme leaves open is settled on images put aside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgecnn.check import lowered_graph, outputs_of
from edgecnn.errors import DataError
from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.quantize import quantize as module
from edgecnn.quantize.quantize import Prepared, prepare, quantize
from edgecnn.quantize.saturation import saturable
from edgecnn.quantize.scheme import ESTIMATORS, Estimator, Scheme


@pytest.fixture(scope="module")
def graph() -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(),
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5),
        )  # fmt: skip
        return export(network, "net", (1, 3, 8, 8))


def images(count: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def prepared(graph: Graph) -> Prepared:
    return prepare(graph, images())


def sqnr_db(graph: Graph, qdq: Graph) -> float:
    return lowered_graph(graph, qdq, outputs_of(graph, qdq, images()), images(), "images").value


def test_nothing_is_left_open_and_the_verdict_is_that_of_the_graph(graph: Graph, prepared: Prepared) -> None:
    scheme = prepared.scheme
    assert None not in (scheme.ranges, scheme.bias_correction, scheme.equalize)
    assert prepared.qdq().digest == prepared.qdq(scheme).digest == prepared.qdq(Scheme()).digest
    assert prepared.qdq().digest == quantize(graph, images()).digest
    judges = images()[::4]
    outputs = outputs_of(graph, prepared.qdq(), judges)
    check = lowered_graph(graph, prepared.qdq(), outputs, judges, "images")
    assert prepared.verdict.images == 3
    assert prepared.verdict.sqnr_db == pytest.approx(check.value, abs=1e-4)
    assert prepared.verdict.top1_agreement == check.top1_agreement


@pytest.mark.parametrize("ranges", ESTIMATORS)
def test_every_estimator_serves(graph: Graph, prepared: Prepared, ranges: Estimator) -> None:
    assert sqnr_db(graph, prepared.qdq(Scheme(ranges=ranges))) > 20


@pytest.mark.parametrize("change", ["symmetric", "per_channel", "bias_correction", "equalize"])
def test_every_choice_serves(graph: Graph, prepared: Prepared, change: str) -> None:
    scheme = prepared.scheme
    changed = prepared.qdq(replace(scheme, **{change: not getattr(scheme, change)}))
    assert changed.digest != prepared.qdq().digest
    assert sqnr_db(graph, changed) > 20


def test_seven_bits_serve(graph: Graph, prepared: Prepared) -> None:
    assert 20 < sqnr_db(graph, prepared.qdq(Scheme(weight_bits=7))) < sqnr_db(graph, prepared.qdq()) - 1


def test_weights_obey_the_scheme(prepared: Prepared) -> None:
    layers = [str(node.name) for node in prepared.convs.model.graph if node.op_type in ("Conv", "Gemm")]
    scheme = Scheme(
        portable_layers=frozenset(layers[:1]), float_layers=frozenset(layers[1:2]), per_channel=False
    )
    graph = prepared.qdq(scheme)
    assert layers[0] in saturable(prepared.qdq(replace(scheme, portable_layers=frozenset())), "mlas")
    assert layers[0] not in saturable(graph, "mlas")
    weights = {op.name: op.inputs[1] for op in operators(graph) if op.name in layers}
    _, floating, *others = (weights[name] for name in layers)
    assert floating is not None
    assert floating.scale is None
    assert np.array_equal(floating.data, original(prepared, layers[1]))  # type: ignore[arg-type]
    for other in others:
        assert other is not None
        assert other.data is not None
        assert np.abs(other.data).max() == 127
        assert other.scale is not None
        assert other.scale.size == 1


def original(prepared: Prepared, layer: str) -> np.ndarray:
    """The layer's weights before integers, as equalisation leaves them."""
    exact = prepared.parts(Scheme(float_layers=frozenset({layer}))).exact
    [weight] = [constant(node.inputs[1]) for node in exact.model.graph if node.name == layer]
    assert weight is not None
    return weight


def test_a_bias_correction_that_harms_is_left_out(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    correct = module.correct_biases

    def spoilt(*args: object) -> Graph:
        model = correct(*args).copy()  # type: ignore[arg-type]
        for value in model.graph.initializers.values():
            if str(value.name).endswith("bias"):
                assert value.const_value is not None
                value.const_value = ir.tensor(value.const_value.numpy() + np.float32(1), name=value.name)
        return Graph(model, "fp32")

    monkeypatch.setattr(module, "correct_biases", spoilt)
    harmed = prepare(graph, images())
    assert harmed.scheme.bias_correction is False
    assert harmed.verdict.sqnr_db > 20


def test_what_makes_no_difference_stays_as_it_was(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "correct_biases", lambda rounded, exact, means: rounded)
    assert prepare(graph, images()).scheme.bias_correction is True


def test_what_is_asked_is_not_settled_otherwise(graph: Graph) -> None:
    asked = Scheme(ranges="minmax", bias_correction=True, equalize=False)
    assert prepare(graph, images(), scheme=asked).scheme == asked


def test_images_that_differ_in_all_they_compute_get_ranges_that_hold_them_all(graph: Graph) -> None:
    """Dark images and a bright one: the mean of the extremes is a fraction of the bright one's."""
    lights = [image * (0.1 if index % 5 else 10) for index, image in enumerate(images(20))]
    prepared = prepare(graph, lights)
    assert prepared.scheme.ranges in ("minmax", "mse")
    expected, got = load_reference(graph)(lights[0])[0], load_reference(prepared.qdq())(lights[0])[0]
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()


def test_equalisation_that_only_fits_the_images_it_saw_is_left_out() -> None:
    """Each image lights other channels: the highest value of a channel says little of the next image."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(32, 32, 1, bias=False), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32), nn.Flatten(),
        nn.Linear(32 * 4, 5),
    )  # fmt: skip
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(32)[:, :, None, None])  # type: ignore[operator]
    graph = export(network, "sparse", (1, 32, 4, 4))
    rng = np.random.default_rng(0)

    def lit() -> np.ndarray:
        image = rng.uniform(0, 0.05, (1, 32, 4, 4))
        image[:, rng.choice(32, 2)] *= rng.uniform(1, 120)
        return image.astype(np.float32)

    prepared = prepare(graph, [lit() for _ in range(24)], scheme=Scheme(ranges="minmax"))
    assert prepared.scheme.equalize is False
    others = [lit() for _ in range(50)]
    exact = load_reference(graph)

    def noise(qdq: Graph) -> float:
        run = load_reference(qdq)
        return sum(float(np.square(exact(x)[0] - run(x)[0]).sum()) for x in others)

    assert noise(prepared.qdq()) < 0.5 * noise(prepared.qdq(replace(prepared.scheme, equalize=True)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_decide_and_judge(graph: Graph, count: int) -> None:
    assert prepare(graph, images(count)).verdict.images == count


def test_no_image_is_refused(graph: Graph) -> None:
    with pytest.raises(DataError, match="no image"):
        prepare(graph, [])
